"""One student that keeps what several teachers' features know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import linear
from margins.engine.reduction import Reduction, RowLosses, check_reduction
from margins.engine.score_rules import unit
from margins.engine.sources import at_least_float32, full_precision
from margins.errors import MarginsError, describe


@carded(
    Card(
        name="Distilled rich representations (DISTILL)",
        summary="the features of several trained encoders in one of normal size",
        paper="Zhang and Bottou, Learning useful representations for shifting tasks and distributions, 2023, "
        "arXiv 2212.07346",
        kind="loss",
        stations=("loss",),
        targets=("none",),
        entry=60,
        tests=(
            "tests/test_concatenated.py::test_a_student_that_is_its_teacher_has_nothing_to_learn",
            "tests/test_concatenated.py::test_distillation_is_two_minus_twice_the_cosine_of_each_teacher",
        ),
    )
)
class MultiTeacherFeatures(nn.Module):
    r"""A linear head on the student's features for each teacher, that must point where the teacher's do.

    $L = \frac{1}{B} \sum_b \sum_i \| \overline{A_i \phi_s(x_b)} - \overline{\phi_i(x_b)} \|^2$ with
    $\overline{v}$ of length one; teachers are constants. Each term is twice one minus a cosine.

    Use it to bring a `ConcatenatedEncoder` down to the cost of one encoder. It needs no labels: learn on rows
    like those of the target task too. Where the features of different teachers never part, a student imitates
    all of them by one cue, and gains little. Standardise the teachers (`ConcatenatedEncoder` does): raw ReLU
    features share most of their direction. Give its parameters to the optimiser beside the student's; the
    heads are dropped afterwards. Not when teachers agree (`diagnose.richness`): there is nothing to add up.

    Args:
        width: of the student's features.
        teacher_widths: of each teacher's.
        reduction: over rows; see `margins.engine.reduction`.
        generator: draws the first weights of the heads.

    Raises:
        MarginsError: no teacher; features that do not fit.

    Example:
        >>> loss = MultiTeacherFeatures(4, [3, 5], generator=torch.Generator().manual_seed(0))
        >>> loss(torch.zeros(2, 4), [torch.ones(2, 3), torch.ones(2, 5)]).shape
        torch.Size([])

    References:
        Zhang and Bottou 2023, arXiv 2212.07346 (distillation).
    """

    def __init__(
        self,
        width: int,
        teacher_widths: Sequence[int],
        *,
        reduction: str = "mean",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not teacher_widths:
            raise MarginsError("teacher_widths", expected="at least one teacher", received="none")
        self.reduction: Reduction = check_reduction(reduction)
        self.heads = nn.ModuleList(linear(width, num, generator=generator) for num in teacher_widths)

    def forward(
        self,
        features: Float[Tensor, "B width"],
        teachers: Sequence[Float[Tensor, "B _"]],
        *,
        weight: Float[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The distillation loss.

        Args:
            features: [B, width] of the student.
            teachers: [B, teacher width] of each teacher, in order.
            weight: [B] of rows.
        """
        if len(teachers) != len(self.heads):
            raise MarginsError("teachers", expected=f"{len(self.heads)} tensors", received=f"{len(teachers)}")
        with full_precision(features.device):
            student = at_least_float32(features)
            rows = student.new_zeros(len(student))
            for number, (head, teacher) in enumerate(zip(self.heads, teachers, strict=True)):
                found = head(student)
                if teacher.shape != found.shape:
                    raise MarginsError(
                        f"teachers[{number}]", expected=f"[B, width] = {list(found.shape)}",
                        received=describe(teacher),
                    )  # fmt: skip
                aim = unit(at_least_float32(teacher.detach())).to(found.dtype)
                rows = rows + (unit(found) - aim).square().sum(1)
        return RowLosses(rows, weight=weight).reduce(self.reduction)
