"""Ordered and nested classes from one number a row."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from margins.cards import Card, carded
from margins.engine.sources import at_least_float32
from margins.errors import MarginsError, describe, values_are_readable
from margins.heads.settings import HeadSettings

Thresholds = Literal["fixed", "learned"]

_LEAST_GAP = 1e-4


def nested_log_probabilities(position: Tensor, thresholds: Tensor, *, steepness: float) -> Tensor:
    r"""Log-probabilities of nested levels 0 ... L from one number an item.

    With $f_l = \sigma(k (x - b_l)) = P(level \ge l)$: $P_0 = 1 - f_1$, $P_l = f_l - f_{l + 1}$,
    $P_L = f_L$. The difference is taken in logarithms, so that it is finite however far x is from the
    thresholds.

    Args:
        position: x, of any shape: a row, or the items of a map.
        thresholds: [L] rising.
        steepness: k > 0.

    Returns:
        [..., L + 1].

    Example:
        >>> nested_log_probabilities(torch.tensor([0.0]), torch.tensor([-0.5, 0.5]), steepness=10.0).exp()
        tensor([[0.0067, 0.9866, 0.0067]])
    """
    if thresholds.ndim != 1 or not len(thresholds):
        raise MarginsError("thresholds", expected="[L] rising numbers", received=describe(thresholds))
    if values_are_readable(thresholds) and not bool((thresholds.diff() > 0).all()):
        raise MarginsError("thresholds", expected="[L] rising numbers", received=f"{thresholds.tolist()}")
    logits = steepness * (at_least_float32(position)[..., None] - thresholds)
    from_here = functional.logsigmoid(logits)
    not_beyond = functional.logsigmoid(-logits)
    # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)), and a - b does not depend on x.
    between = torch.log(-torch.expm1(-steepness * thresholds.diff()))
    return torch.cat(
        [not_beyond[..., :1], from_here[..., :-1] + not_beyond[..., 1:] + between, from_here[..., -1:]], -1
    )


@carded(
    Card(
        name="Multi-level activation",
        summary="nested regions or ordered grades: no prediction can break the nesting",
        paper="Piraud, Sekuboyina, Menze, Multi-level Activation for Segmentation of Hierarchically-nested "
        "Classes, 2018, arXiv 1804.01910; Hu et al. 2018, arXiv 1810.09488",
        kind="head",
        stations=("score",),
        targets=("classes", "maps"),
        entry=126,
        recipe={"head": {"name": "nested"}, "objective": {"loss": "cumulative"}},
        tests=(
            "tests/test_nested.py::test_class_probabilities_sum_to_one_and_none_is_negative",
            "tests/test_nested.py::test_levels_are_nested_for_any_scores_and_independent_sigmoids_are_not",
            "tests/test_nested.py::test_one_level_is_binary_cross_entropy_of_the_scaled_distance",
            "tests/test_nested.py::test_gradients_are_right_where_everything_is_saturated",
        ),
        study="nested",
    )
)
class NestedHead(nn.Module):
    r"""Class log-probabilities from one number a row and rising thresholds.

        x = w^T e + c,   P(class >= l) = sigma(k (x - b_l)),   b_1 < b_2 < ...

    Use it for classes that are nested (tumour, its core, its active part) or ordered (grades, stages), with
    cross-entropy, `Cumulative` or `NestedDice`. The numbers of the classes are their order, lowest first;
    `margins.train` numbers them so by `class_order`. Where they have none, or where what sets two neighbours
    apart is another feature than for the next two, one number cannot tell, and a linear head is better.

    Args:
        width: of the embedding.
        num_classes: L + 1 >= 2: nothing, and L nested levels.
        steepness: k > 0; 10 in the paper. Probabilities between two thresholds are surer the larger it is.
        spacing: > 0 between two thresholds, which stand about 0; at first, when they are learned.
        thresholds: "fixed" (the paper) or "learned", which lets classes be of unequal width.
        generator: draws the first weights.

    Raises:
        MarginsError: fewer than two classes, or a number out of its range.

    Reduces to:
        binary cross-entropy of logit k (x - b) for two classes; with `Cumulative` it is cumulative-link
        (proportional odds) regression.

    References:
        Piraud, Sekuboyina, Menze 2018, arXiv 1804.01910 (two levels, k = 10, b = -1/2 and 1/2);
        Hu et al. 2018, arXiv 1810.09488 (three levels).

    Example:
        >>> head = NestedHead(4, 3, generator=torch.Generator().manual_seed(0))
        >>> head(torch.ones(2, 4)).exp().sum(1)
        tensor([1.0000, 1.0000], grad_fn=<SumBackward1>)
    """

    lowest: Tensor
    raw_gaps: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        steepness: float = 10.0,
        spacing: float = 1.0,
        thresholds: Thresholds = "fixed",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise MarginsError(
                "num_classes", expected="at least 2 ordered classes", received=f"{num_classes}"
            )
        if thresholds not in get_args(Thresholds):
            raise MarginsError("thresholds", expected="'fixed' or 'learned'", received=repr(thresholds))
        for name, value, low in (("steepness", steepness, 0.0), ("spacing", spacing, _LEAST_GAP)):
            if not (value > low and math.isfinite(value)):
                raise MarginsError(name, expected=f"a number above {low:g}", received=f"{value!r}")
        self.steepness = steepness
        self.weight = nn.Parameter(torch.empty(1, width))
        self.bias = nn.Parameter(torch.zeros(1))
        bound = 1 / math.sqrt(width)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        lowest = torch.tensor(-spacing * (num_classes - 2) / 2)
        # The inverse of the softplus that keeps learned thresholds in their order.
        raw_gaps = torch.full((num_classes - 2,), _inverse_softplus(spacing - _LEAST_GAP))
        for name, start in (("lowest", lowest), ("raw_gaps", raw_gaps)):
            if thresholds == "learned":
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)

    @property
    def thresholds(self) -> Tensor:
        """[L] rising."""
        gaps = functional.softplus(self.raw_gaps) + _LEAST_GAP
        return torch.cat([self.lowest[None], self.lowest + gaps.cumsum(0)])

    def position(self, embeddings: Tensor) -> Tensor:
        """The number [B] of embeddings [B, width]."""
        return functional.linear(embeddings, self.weight, self.bias)[..., 0]

    def forward(self, embeddings: Tensor) -> Tensor:
        """Class log-probabilities [B, L + 1] of embeddings [B, width]."""
        return nested_log_probabilities(self.position(embeddings), self.thresholds, steepness=self.steepness)

    def at_least(self, embeddings: Tensor) -> Tensor:
        """[B, L] probabilities of level l or a later one, for l = 1 ... L; they never rise along a row."""
        distance = at_least_float32(self.position(embeddings))[..., None] - self.thresholds
        return torch.sigmoid(self.steepness * distance)

    def activation(self, embeddings: Tensor) -> Tensor:
        """[B] the mean of `at_least`: a staircase of x from 0 to 1 with a step at every threshold."""
        return self.at_least(embeddings).mean(-1)

    def levels(self, embeddings: Tensor) -> Tensor:
        """[B] the median class: how many thresholds x is above."""
        return (self.position(embeddings)[..., None] > self.thresholds).sum(-1)


def _inverse_softplus(x: float) -> float:
    return x + math.log(-math.expm1(-x))


class NestedSettings(HeadSettings):
    """A nested head; see `NestedHead` for when to use it. Classes are in the order of their numbers.

    Args:
        steepness: of the steps between levels.
        spacing: between thresholds.
        thresholds: "fixed" or "learned".
    """

    name: Literal["nested"] = "nested"
    reads_order: ClassVar[bool] = True
    steepness: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    spacing: float = Field(default=1.0, gt=_LEAST_GAP, allow_inf_nan=False)
    thresholds: Thresholds = "fixed"

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> NestedHead:
        """An untrained nested head."""
        return NestedHead(
            width, num_outputs, steepness=self.steepness, spacing=self.spacing, thresholds=self.thresholds,
            generator=generator,
        )  # fmt: skip
