"""Linear models of bags in closed form, and how much of the instance loss they should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError, describe
from margins.labels.bag_sampler import local_bags
from margins.labels.bags import bag_sizes
from margins.losses import bag_means
from margins.losses.forms.base import in_range
from margins.targets.checks import check_finite

RHOS = (0.0, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""What cross-validation tries when nothing else is said."""

_PAPER = (
    "Javanmard et al., Learning from Aggregate Responses: Instance Level versus Bag Level Loss Functions, "
    "2024, arXiv 2401.11081"
)


@dataclass(frozen=True, eq=False)
class LinearOfBags:
    """A linear model fitted on bag means.

    Args:
        weight: [d] or [d, C], float64.
        intercept: [] or [C].
    """

    weight: Tensor
    intercept: Tensor

    def predict(self, inputs: Tensor) -> Tensor:
        """[N] or [N, C] values of rows [N, d]."""
        return inputs.to(self.weight) @ self.weight + self.intercept


@carded(
    Card(
        name="Interpolated bag regression",
        summary="linear regression when only means of answers over bags of rows are known",
        paper=_PAPER,
        kind="training",
        stations=("step",),
        targets=("bags", "values"),
        entry=96,
        tests=(
            "tests/test_bags.py::test_gradient_descent_arrives_at_the_closed_form",
            "tests/test_bags.py::test_parameter_errors_are_those_measured_before",
        ),
        study="aggregated",
    )
)
def fit_linear_bags(
    inputs: Tensor, bag_index: Tensor, bag_targets: Tensor, *, rho: float, fit_intercept: bool = True
) -> LinearOfBags:
    r"""The linear model with the smallest `Aggregated` squared error, in closed form.

    $\theta = \left(\frac{1}{A} \bar X^\top \bar X + \rho\, \frac{1}{A} \sum_a \frac{1}{|a|} X_a^{c\top} X_a^c
    \right)^{+} \frac{1}{A} \bar X^\top \bar y$ with $\bar X$ the bags' mean inputs and $X_a^c$ a bag's inputs
    minus their mean; for bags of one size the second term is $\rho X^{c\top} X^c / N$. Of several solutions
    ($\rho = 0$ with fewer bags than inputs) it is the shortest.

    $\rho = 0$ has much variance where bags are few, $\rho = 1$ shrinks a lot: let `choose_rho` choose.

    Args:
        inputs: [N, d] floats.
        bag_index: [N] integers from 0; every bag has a row.
        bag_targets: [A] or [A, C] floats: the mean target of each bag.
        rho: in [0, 1].
        fit_intercept: whether a constant is fitted too, without shrinking it.

    Raises:
        MarginsError: shapes that do not fit, a bag without rows, values that are not finite.

    References:
        Javanmard et al. 2024, arXiv 2401.11081.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
        >>> found = fit_linear_bags(x, torch.tensor([0, 0, 1, 1]), torch.tensor([3.0, 11.0]), rho=0.0)
        >>> round(float(found.weight), 6), round(float(found.intercept), 6)
        (2.0, 1.0)
    """
    sizes = _checked(inputs, bag_index, bag_targets)
    rho = in_range("rho", rho, low=0, high=1)
    rows, targets = inputs.double(), bag_targets.double()
    means = bag_means(rows, bag_index, len(sizes))
    within = (rows - means[bag_index]) / sizes[bag_index].double().sqrt()[:, None]
    centre, level = means.mean(0), targets.mean(0)
    if not fit_intercept:
        centre, level = torch.zeros_like(centre), torch.zeros_like(level)
    # As one least-squares problem: squaring the inputs first would lose half of the digits.
    left = torch.cat([means - centre, rho**0.5 * within]) if rho else means - centre
    right = (targets - level).reshape(len(sizes), -1)
    right = torch.cat([right, right.new_zeros(len(left) - len(right), right.shape[1])])
    weight = torch.linalg.lstsq(left, right, driver="gelsd").solution
    weight = weight.reshape(-1, *targets.shape[1:])
    return LinearOfBags(weight, level - centre @ weight)


@dataclass(frozen=True)
class RhoChoice:
    """What cross-validation over bags found.

    Args:
        rho: the one with the smallest error.
        errors: mean squared error of held-out bags for each rho that was tried.
    """

    rho: float
    errors: dict[float, float]


@carded(
    Card(
        name="Choice of rho over bags",
        summary="how far between bag loss and instance loss, chosen without any row's own target",
        paper=_PAPER,
        kind="decision",
        stations=("before training",),
        targets=("bags", "values"),
        entry=96,
        tests=("tests/test_bags.py::test_rho_chosen_over_bags_beats_both_ends",),
        study="aggregated",
    )
)
def choose_rho(
    inputs: Tensor,
    bag_index: Tensor,
    bag_targets: Tensor,
    *,
    rhos: Sequence[float] = RHOS,
    num_folds: int = 5,
    fit_intercept: bool = True,
    generator: torch.Generator,
) -> RhoChoice:
    """The rho whose linear model predicts the means of held-out bags best.

    Bags are held out whole, and judged by their means alone. A sound first choice for `Aggregated` with a
    network on the same bags, too, but for that try its neighbours on held-out bags.

    Args:
        inputs: [N, d] floats.
        bag_index: [N] integers from 0; every bag has a row.
        bag_targets: [A] or [A, C] floats.
        rhos: to try, each in [0, 1].
        num_folds: at least 2, at most the number of bags.
        fit_intercept: as for `fit_linear_bags`.
        generator: draws the folds.

    Raises:
        MarginsError: as `fit_linear_bags`; nothing to try; too few bags for the folds.

    References:
        Javanmard et al. 2024, arXiv 2401.11081.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> x, bags = torch.randn(400, 40, generator=draws), torch.arange(400) // 4
        >>> y = bag_means(x[:, 0] + torch.randn(400, generator=draws), bags, 100)
        >>> 0 < choose_rho(x, bags, y, generator=draws).rho < 1
        True
    """
    sizes = _checked(inputs, bag_index, bag_targets)
    if not rhos:
        raise MarginsError("rhos", expected="at least one", received="none")
    if not 2 <= num_folds <= len(sizes):
        raise MarginsError(
            "num_folds", expected=f"from 2 to {len(sizes)}, the number of bags", received=str(num_folds)
        )
    fold = torch.empty(len(sizes), dtype=torch.long)
    fold[torch.randperm(len(sizes), generator=generator)] = torch.arange(len(sizes)) % num_folds
    means, targets = bag_means(inputs.double(), bag_index, len(sizes)), bag_targets.double()
    errors = dict.fromkeys(rhos, 0.0)
    for number in range(num_folds):
        held = fold == number
        rows = ~held[bag_index]
        kept, which = local_bags(bag_index[rows])
        for rho in errors:
            model = fit_linear_bags(inputs[rows], kept, targets[which], rho=rho, fit_intercept=fit_intercept)
            missed = (model.predict(means[held]) - targets[held]).square().reshape(int(held.sum()), -1)
            errors[rho] += float(missed.sum()) / len(sizes)
    return RhoChoice(min(errors, key=lambda rho: errors[rho]), errors)


def _checked(inputs: Tensor, bag_index: Tensor, bag_targets: Tensor) -> Tensor:
    """The sizes of the bags, when all fits."""
    if inputs.ndim != 2 or not inputs.is_floating_point():
        raise MarginsError("inputs", expected="[N, d] floats", received=describe(inputs))
    sizes = bag_sizes(bag_index, num_rows=len(inputs))
    is_fit = bag_targets.ndim in (1, 2) and bag_targets.is_floating_point() and len(bag_targets) == len(sizes)
    if not is_fit:
        raise MarginsError(
            "bag_targets", expected=f"[A] or [A, C] floats with A = {len(sizes)}, the number of bags",
            received=describe(bag_targets),
        )  # fmt: skip
    check_finite("inputs", inputs)
    check_finite("bag_targets", bag_targets)
    return sizes
