"""Bags of rows: who is in which, and their means, made private if asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError, describe
from margins.losses import bag_means
from margins.losses.forms.base import in_range
from margins.targets.checks import check_finite, check_labels, check_range

_PAPER = (
    "Javanmard et al., Learning from Aggregate Responses: Instance Level versus Bag Level Loss Functions, "
    "2024, arXiv 2401.11081"
)


def make_bags(num_rows: int, bag_size: int, *, generator: torch.Generator) -> Tensor:
    """[N] the bag of each row: random bags of one size that share no row; the last one takes what is left.

    Make them once: a row that stands in another bag every time is soon no secret.

    Args:
        num_rows: N.
        bag_size: rows a bag, at least 1.
        generator: draws who is with whom.

    Raises:
        MarginsError: fewer than one row or one row a bag.

    Example:
        >>> bags = make_bags(7, 3, generator=torch.Generator().manual_seed(0))
        >>> bags.bincount()
        tensor([3, 3, 1])
    """
    if num_rows < 1 or bag_size < 1:
        raise MarginsError(
            "num_rows, bag_size", expected="at least 1 of each", received=f"{num_rows}, {bag_size}"
        )
    bags = torch.empty(num_rows, dtype=torch.long)
    bags[torch.randperm(num_rows, generator=generator)] = torch.arange(num_rows) // bag_size
    return bags


@carded(
    Card(
        name="Label-private bag means",
        summary="means of bags of answers that may be given away: differentially private in every answer",
        paper=_PAPER,
        kind="targets",
        stations=("before training",),
        targets=("bags", "values"),
        entry=96,
        tests=("tests/test_bags.py::test_the_noise_of_private_means_has_the_scale_of_one_answer",),
    )
)
def privatise_bags(
    responses: Tensor, bag_index: Tensor, *, clip: float, epsilon: float, generator: torch.Generator
) -> Tensor:
    r"""[A] means of clipped answers, with noise that hides any single answer.

    $\bar y_a = \frac{1}{|a|} \sum_{i \in a} \min(\max(y_i, -c), c) + \eta_a$ with $\eta_a$ drawn from a
    Laplace distribution of scale $2c / (|a|\,\varepsilon)$.

    One answer moves the mean of its bag by $2c / |a|$ at most, and no other bag: all means together are
    $\varepsilon$-differentially private in the answers. The inputs and who is in which bag are taken to be
    public. Larger bags have less noise and say less: with little privacy asked for (large $\varepsilon$)
    small bags are better, otherwise an inner size is; choose it on held-out bags.

    It guards against readers of the means, not against an attack on the last bits of floating-point noise.
    Answers are clipped before they are averaged: clipping means instead would not bound one answer's pull.

    Args:
        responses: [N] floats.
        bag_index: [N] integers from 0; every bag has a row.
        clip: c > 0, chosen without looking at the answers.
        epsilon: > 0; smaller is more private.
        generator: draws the noise. Its seed must stay as secret as the answers.

    Raises:
        MarginsError: shapes that do not fit, a bag without rows, settings out of range.

    References:
        Javanmard et al. 2024, arXiv 2401.11081; Dwork et al., Calibrating Noise to Sensitivity, 2006.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> answers, bags = torch.tensor([1.0, 3.0, 99.0]), torch.tensor([0, 0, 1])
        >>> privatise_bags(answers, bags, clip=5.0, epsilon=1e9, generator=draws)
        tensor([2., 5.])
    """
    if responses.ndim != 1 or not responses.is_floating_point():
        raise MarginsError("responses", expected="[N] floats", received=describe(responses))
    check_finite("responses", responses)
    counts = bag_sizes(bag_index, num_rows=len(responses))
    clip = in_range("clip", clip, low=0, open_low=True)
    epsilon = in_range("epsilon", epsilon, low=0, open_low=True)
    means = bag_means(responses.clamp(-clip, clip), bag_index, len(counts))
    scale = 2 * clip / (counts * epsilon)
    return means + (scale * _laplace(scale.shape, generator)).to(means)


@carded(
    Card(
        name="Label-private class proportions",
        summary="shares of classes in bags that may be given away: differentially private in every label",
        paper=_PAPER,
        kind="targets",
        stations=("before training",),
        targets=("bags", "classes"),
        entry=96,
        tests=("tests/test_bags.py::test_private_proportions_are_shares_and_near_the_true_ones",),
    )
)
def privatise_proportions(
    labels: Tensor, bag_index: Tensor, *, num_classes: int, epsilon: float, generator: torch.Generator
) -> Tensor:
    r"""[A, C] shares of the classes in each bag, with noise that hides any single label.

    $\mathrm{Laplace}(2 / (|a|\,\varepsilon))$ is added to each share: another label of one row moves two
    shares by $1 / |a|$ each. Then the nearest point among proportions is taken, which needs no label and so
    costs no privacy. See `privatise_bags` for what is and is not private.

    Args:
        labels: [N] integers in [0, num_classes).
        bag_index: [N] integers from 0; every bag has a row.
        num_classes: C.
        epsilon: > 0; smaller is more private.
        generator: draws the noise. Its seed must stay as secret as the labels.

    Raises:
        MarginsError: shapes that do not fit, a bag without rows, settings out of range.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> labels, bags = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 1])
        >>> privatise_proportions(labels, bags, num_classes=3, epsilon=1e9, generator=draws).round(decimals=4)
        tensor([[0.5000, 0.5000, 0.0000],
                [0.0000, 0.5000, 0.5000]])
    """
    check_labels("labels", labels)
    check_range("labels", labels, num_classes)
    counts = bag_sizes(bag_index, num_rows=len(labels))
    epsilon = in_range("epsilon", epsilon, low=0, open_low=True)
    hot = torch.nn.functional.one_hot(labels.long(), num_classes).double()
    shares = bag_means(hot, bag_index, len(counts))
    scale = (2 / (counts * epsilon))[:, None].expand_as(shares)
    return _nearest_proportions(shares + scale * _laplace(shares.shape, generator)).float()


def bag_sizes(bag_index: Tensor, *, num_rows: int) -> Tensor:
    """[A] rows of each bag, at least one.

    Raises:
        MarginsError: not one bag a row, or a bag number that is left out.
    """
    check_labels("bag_index", bag_index, dims="[N]")
    if len(bag_index) != num_rows or not num_rows or int(bag_index.min()) < 0:
        raise MarginsError(
            "bag_index", expected=f"[N] = [{num_rows}] integers from 0, at least one",
            received=describe(bag_index),
        )  # fmt: skip
    counts = torch.bincount(bag_index)
    if not bool(counts.all()):
        raise MarginsError(
            "bag_index", expected="bags numbered from 0 without a gap",
            received=f"none of bag {int(counts.argmin())}", fix="torch.unique(bags, return_inverse=True)[1]",
        )  # fmt: skip
    return counts


def _laplace(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draws of scale 1: the difference of two exponential ones has no end at which a logarithm breaks."""
    pair = torch.empty((2, *shape), dtype=torch.float64).exponential_(generator=generator)
    return pair[0] - pair[1]


def _nearest_proportions(values: Tensor) -> Tensor:
    """The nearest [A, C] that are >= 0 and add up to 1: a number is taken off, and what is below 0 is cut."""
    falling = values.sort(1, descending=True).values
    num = torch.arange(1, values.shape[1] + 1)
    taken_off = (falling.cumsum(1) - 1) / num
    last = (falling > taken_off).sum(1, keepdim=True) - 1
    return (values - taken_off.gather(1, last)).clamp(min=0)
