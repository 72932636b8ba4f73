"""Losses of bags: several rows share one target, the mean of what is not known of each."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.reduction import RowLosses
from margins.engine.sources import at_least_float32, checked, full_precision
from margins.errors import MarginsError, describe
from margins.losses.forms.base import Loss, in_range
from margins.targets.checks import check_finite, check_labels, check_not_negative, check_range

Base = Literal["squared_error", "cross_entropy"]


@carded(
    LossCard(
        name="Interpolated aggregate loss",
        summary="only the mean target of each bag of rows is known: aggregated answers, label proportions",
        paper="Javanmard et al., Learning from Aggregate Responses: Instance Level versus Bag Level Loss "
        "Functions, 2024, arXiv 2401.11081",
        entry=96,
        targets=("bags", "values", "classes"),
        distributed="gathered",
        comparable=True,
        collapse="the bag targets' variance, or their cross-entropy with their mean: all outputs equal",
        limits=(
            "bags of one row: SquaredError, or CrossEntropy",
            "rho = 0: the base between a bag's target and its mean output",
            "rho = 1, squared error: rho = 0 plus the mean variance of the scores of a bag",
        ),
        recipe={
            "objective": {"loss": "aggregated", "settings": {"base": "cross_entropy"}},
            "draw": {"name": "bags"},
        },
        tests=(
            "tests/test_bags.py::test_the_instance_loss_is_the_bag_loss_plus_the_variance_within_bags",
            "tests/test_bags.py::test_gradient_descent_arrives_at_the_closed_form",
            "tests/test_bags.py::test_a_recipe_trains_on_bag_means_alone",
        ),
        study="aggregated",
    )
)
class Aggregated(Loss):
    r"""Between a bag's loss and the mean loss of its rows, all of which get the bag's target.

    $L_\rho = \frac{1}{A} \sum_a \left[(1 - \rho)\, \ell(\bar y_a, \bar f_a) + \rho\, \frac{1}{|a|}
    \sum_{i \in a} \ell(\bar y_a, f_i)\right]$, with $\bar f_a$ the mean output of bag $a$. The base $\ell$ is
    the squared error of scores, summed over columns, or the cross-entropy of softmax probabilities (learning
    from label proportions). For squared error it is $L_0$ plus $\rho$ times the variance of the scores within
    a bag: small $\rho$ has little bias and much variance, $\rho = 1$ pulls all outputs of a bag together.

    Use it where targets of single rows are not to be had. Of a linear model an inner $\rho$ is best, and
    cross-validation over bags finds it without any row's target (`margins.labels.choose_rho`). A network on
    digits in bags of 12 was as good with $\rho = 0$ as with any other, and lost 17 points of accuracy with
    $\rho = 1$. Where rows have targets of their own, it only throws information away. Targets made private
    may be negative: for "cross_entropy" bring them back to proportions first
    (`margins.labels.privatise_proportions` does).

    Args:
        base: "squared_error" or "cross_entropy".
        rho: in [0, 1]; 0 is the loss of bags, 1 the loss of rows.
        reduction: over bags that have a row; see `margins.engine.reduction`.

    References:
        Javanmard et al. 2024, arXiv 2401.11081.

    Example:
        >>> scores, bags = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1])
        >>> [Aggregated(rho=rho)(scores, bags, torch.tensor([2.0, 4.0])).item() for rho in (0.0, 1.0)]
        [0.5, 1.0]
    """

    form = "bags"

    def __init__(self, base: Base = "squared_error", *, rho: float = 0.1, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if base not in get_args(Base):
            raise MarginsError("base", expected=f"one of {get_args(Base)}", received=repr(base))
        self.base: Base = base
        self.rho = in_range("rho", rho, low=0, high=1)

    def forward(
        self,
        scores: Float[Tensor, "rows *columns"],
        bag_index: Int[Tensor, " rows"],
        bag_targets: Float[Tensor, "bags *columns"],
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss of a batch of whole bags.

        Args:
            scores: [B, C], or [B] with the squared error of one value a row; finite.
            bag_index: [B] integers in [0, A): the bag of each row, in any order.
            bag_targets: [A, C] or [A], as the scores: the mean target of each bag. For "cross_entropy" the
                shares of the classes, >= 0.
            denominator: number of bags of the whole step.

        Raises:
            MarginsError: shapes that do not fit, a bag out of range, values that are not finite.
        """
        return self.bags(scores, bag_index, bag_targets).reduce(self.reduction, denominator)

    def per_bag(
        self,
        scores: Float[Tensor, "rows *columns"],
        bag_index: Int[Tensor, " rows"],
        bag_targets: Float[Tensor, "bags *columns"],
    ) -> Float[Tensor, " bags"]:
        """The loss of each bag, not reduced; arguments as for a call."""
        return self.bags(scores, bag_index, bag_targets).values

    def bags(
        self,
        scores: Float[Tensor, "rows *columns"],
        bag_index: Int[Tensor, " rows"],
        bag_targets: Float[Tensor, "bags *columns"],
    ) -> RowLosses:
        """The losses of bags with all that a reduction needs; a bag without rows does not count."""
        self._check(scores, bag_index, bag_targets)
        with full_precision(scores.device):
            outputs = checked("scores", at_least_float32(scores))
            targets = bag_targets.to(outputs.dtype)
            if scores.ndim == 1:
                outputs, targets = outputs[:, None], targets[:, None]
            bag_index = bag_index.long()
            if self.base == "squared_error":
                means = bag_means(outputs, bag_index, len(targets))
                whole = (means - targets).square().sum(1)
                single = (outputs - targets[bag_index]).square().sum(1)
            else:
                log_shares = outputs.log_softmax(1)
                whole = -(targets * _log_means(log_shares, bag_index, len(targets))).sum(1)
                single = -(targets[bag_index] * log_shares).sum(1)
            within = bag_means(single, bag_index, len(targets))
            values = (1 - self.rho) * whole + self.rho * within
            there = torch.bincount(bag_index, minlength=len(targets)) > 0
            return RowLosses(torch.where(there, values, 0.0), counts=there)

    def _check(self, scores: Tensor, bag_index: Tensor, bag_targets: Tensor) -> None:
        shape = "[B, C] or [B]" if self.base == "squared_error" else "[B, C] with C >= 2"
        num_columns = scores.shape[1] if scores.ndim == 2 else 1
        is_fit = scores.ndim in (1, 2) and (self.base == "squared_error" or num_columns > 1)
        if not is_fit or not scores.is_floating_point():
            raise MarginsError("scores", expected=f"{shape} floats", received=describe(scores))
        check_labels("bag_index", bag_index)
        if bag_index.shape[0] != scores.shape[0]:
            raise MarginsError(
                "bag_index", expected=f"[B] = [{scores.shape[0]}]", received=describe(bag_index)
            )
        if bag_targets.shape[1:] != scores.shape[1:] or not bag_targets.is_floating_point():
            shape = "[A]" if scores.ndim == 1 else f"[A, {num_columns}]"
            raise MarginsError(
                "bag_targets", expected=f"{shape} floats, columns as the scores have",
                received=describe(bag_targets), fix="margins.losses.bag_means makes them of rows",
            )  # fmt: skip
        if bag_index.shape[0]:
            check_range("bag_index", bag_index, bag_targets.shape[0])
        check_finite("bag_targets", bag_targets)
        if self.base == "cross_entropy":
            check_not_negative("bag_targets", bag_targets)


def bag_means(
    values: Float[Tensor, "rows *columns"], bag_index: Int[Tensor, " rows"], num_bags: int
) -> Float[Tensor, "bags *columns"]:
    """The mean of the rows of each bag; 0 for a bag without any.

    Args:
        values: [B] or [B, C] floats.
        bag_index: [B] integers in [0, num_bags).
        num_bags: A.

    Example:
        >>> bag_means(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 0, 1]), num_bags=2)
        tensor([2.0000, 3.5000])
    """
    sums = values.new_zeros((num_bags, *values.shape[1:])).index_add(0, bag_index, values)
    counts = torch.bincount(bag_index, minlength=num_bags).clamp(min=1).to(values.dtype)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))


def _log_means(log_values: Tensor, bag_index: Tensor, num_bags: int) -> Tensor:
    """[A, C] logarithms of the means of exp(log_values) within bags; nothing over- or underflows."""
    places = bag_index[:, None].expand_as(log_values)
    lowest = log_values.new_full((num_bags, log_values.shape[1]), -torch.inf)
    top = lowest.scatter_reduce(0, places, log_values.detach(), "amax")
    top = torch.where(torch.isfinite(top), top, 0.0)
    means = bag_means((log_values - top[bag_index]).exp(), bag_index, num_bags)
    # A bag with rows has a mean of at least 1 / |bag|; one without has none, and does not count.
    return torch.where(means > 0, means, 1.0).log() + top
