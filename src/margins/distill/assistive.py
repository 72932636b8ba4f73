"""Regression with teachers that pull a student which is worse than they are, and let go of a better one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.engine.sources import at_least_float32, checked, full_precision
from margins.errors import MarginsError, describe
from margins.losses.forms.base import in_range


@dataclass(frozen=True, kw_only=True)
class Assistance:
    """How one teacher acts on a number that the student predicts.

    Args:
        beyond: weight >= 0 where the student is farther from the truth than the teacher: it is drawn to it.
        between: weight <= 0 where the student is nearer than the teacher: it is pushed on to the truth.
        weight: >= 0, of this teacher's part of the loss.
    """

    beyond: float
    between: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        in_range("beyond", self.beyond, low=0)
        in_range("between", self.between, low=-float("inf"), high=0)
        in_range("weight", self.weight, low=0)


TOUGH = Assistance(beyond=1.9, between=-0.45)
"""The authors' weights for a teacher that learned the targets themselves."""
TOLERANT = Assistance(beyond=1.8, between=-0.4)
"""Those for a teacher that learned smoothed targets."""


@carded(
    Card(
        name="Assistive regression (two teachers)",
        summary="a small network of coordinates or other numbers, with larger trained ones to lean on",
        paper="Fard and Mahoor, Facial Landmark Points Detection Using Knowledge Distillation-Based Neural "
        "Networks, 2022, arXiv 2111.07047",
        kind="loss",
        stations=("loss",),
        targets=("values",),
        entry=30,
        tests=(
            "tests/test_assistive.py::test_teachers_equal_to_the_truth_do_not_assist",
            "tests/test_assistive.py::test_the_main_loss_is_continuous_where_it_changes",
            "tests/test_assistive.py::test_beyond_the_teacher_the_student_is_drawn_to_it",
            "tests/test_assistive.py::test_between_band_and_teacher_the_student_is_pushed_to_the_truth",
        ),
        study="assistive_distillation",
    )
)
class AssistiveRegression(nn.Module):
    r"""A regression loss that is helped by teachers, number by number.

    Use it to train a small regressor when larger ones are there, one of them taught on smoothed targets
    (`shape_smooth`). Not without comparing it with plain regression to the teachers' outputs, and not to
    watch the value: it jumps at the edge of the band and can be negative; log an error beside it.

    With $d = |x - g|$ for output x and truth g, $D_t = |t - g|$ for teacher t, which is thereby mirrored to
    the student's side: $A(t) = mean(w |D_t - d|)$, w = `beyond` where $d > D_t > 0$, `between` where $band
    \cdot D_t < d < D_t$, else 0. The main part is $3 d$ where $d \le D$ of the tolerant teacher, else $d^2 +
    3 D - D^2$. $L = main \cdot mean(main\ part) + \sum_t weight_t A(t)$. Teachers are constants.

    Args:
        teachers: how each named teacher acts; "tough" and "tolerant" as published by default.
        tolerant: the teacher that bends the main part.
        band: share of $D_t$, in [0, 1), within which the student is left alone.
        main: weight of the main part, >= 0.

    Raises:
        MarginsError: a setting out of range; a tolerant teacher that is not there; tensors that do not fit.

    Example:
        >>> loss = AssistiveRegression()
        >>> truth = torch.tensor([[0.0, 1.0]])
        >>> loss(truth + 0.5, truth, {"tough": truth, "tolerant": truth})  # main: 0.5^2, twice
        tensor(0.5000)

    Reduces to: twice the mean squared error, when every teacher is right.

    References:
        Fard and Mahoor 2022, arXiv 2111.07047.
    """

    def __init__(
        self,
        teachers: Mapping[str, Assistance] | None = None,
        *,
        tolerant: str = "tolerant",
        band: float = 0.15,
        main: float = 2.0,
    ) -> None:
        super().__init__()
        self.teachers = {"tough": TOUGH, "tolerant": TOLERANT} if teachers is None else dict(teachers)
        if tolerant not in self.teachers:
            raise MarginsError(
                "tolerant", expected=f"one of {sorted(self.teachers)}", received=repr(tolerant)
            )
        self.tolerant = tolerant
        self.band = in_range("band", band, low=0, high=1)
        if band == 1:
            raise MarginsError("band", expected="a number in [0, 1)", received="1")
        self.main = in_range("main", main, low=0)

    def forward(self, predictions: Tensor, targets: Tensor, teachers: Mapping[str, Tensor]) -> Tensor:
        """The loss, a mean over rows and numbers.

        Args:
            predictions: [B, ...] floats, the student's.
            targets: the truth, of the same shape.
            teachers: what each teacher predicts, of the same shape.
        """
        if set(teachers) != set(self.teachers):
            raise MarginsError(
                "teachers", expected=f"predictions of {sorted(self.teachers)}", received=f"{sorted(teachers)}"
            )
        named = {"targets": targets, **{f"teachers[{name!r}]": t for name, t in teachers.items()}}
        for name, tensor in named.items():
            if tensor.shape != predictions.shape or not predictions.is_floating_point():
                raise MarginsError(
                    name, expected=f"{list(predictions.shape)} floats, as the predictions",
                    received=f"{describe(tensor)} for {describe(predictions)}",
                )  # fmt: skip
        with full_precision(predictions.device):
            return self._of_distances(predictions, targets, teachers)

    def _of_distances(self, predictions: Tensor, targets: Tensor, teachers: Mapping[str, Tensor]) -> Tensor:
        student = checked("predictions", at_least_float32(predictions))
        truth = checked("targets", targets.detach().to(student.dtype))
        own = (student - truth).abs()
        away = {
            name: (checked(f"teachers[{name!r}]", t.detach().to(student.dtype)) - truth).abs()
            for name, t in teachers.items()
        }
        total = self.main * _mean(main_part(own, away[self.tolerant]))
        for name, how in self.teachers.items():
            total = total + how.weight * _mean(assistance(own, away[name], how, band=self.band))
        return total


def main_part(own: Tensor, tolerant: Tensor) -> Tensor:
    """The main part of distances of the student, given those of the tolerant teacher."""
    beyond = own.square() + 3 * tolerant - tolerant.square()
    return torch.where(own <= tolerant, 3 * own, beyond)


def assistance(own: Tensor, teacher: Tensor, how: Assistance, *, band: float) -> Tensor:
    """The assistance of one teacher at every number, from the distances of student and teacher."""
    beyond = (own > teacher) & (teacher > 0)
    between = (own > band * teacher) & (own < teacher)
    weight = how.beyond * beyond.to(own.dtype) + how.between * between.to(own.dtype)
    return weight * (teacher - own).abs()


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, values.numel())
