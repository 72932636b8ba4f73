"""Decisions as the Fréchet mean of a model's probabilities: the label nearest to all that may be true."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.engine.sources import at_least_float32
from margins.errors import MarginsError, describe, values_are_readable


@carded(
    Card(
        name="Loki (Fréchet-mean decision)",
        summary="labels at known distances, some of them without a training row: decide for the one between",
        paper="Roberts et al., Geometry-Aware Adaptation for Pretrained Models, 2023, arXiv 2307.12226",
        kind="decision",
        stations=("after training",),
        targets=("classes", "taxonomy"),
        entry=61,
        tests=(
            "tests/test_frechet.py::test_the_decision_under_a_zero_one_metric_is_the_likeliest_class",
            "tests/test_frechet.py::test_no_decision_has_a_smaller_expected_distance",
            "tests/test_frechet.py::test_the_scale_of_the_distances_is_irrelevant",
            "tests/test_frechet.py::test_two_leaves_that_are_as_likely_give_the_node_between_them",
        ),
        study="frechet_decoder",
    )
)
class FrechetDecoder:
    r"""The label with the smallest expected distance to the truth, under the model's own probabilities.

    $\hat y = \arg\min_{v} \sum_k p_k\, d(k, v)^{power}$ over all labels $v$, seen in training or not.

    Use it when labels have a metric (a taxonomy, word vectors, a grid) and some have no training row, or when
    a near miss costs less than a far one. It needs no training. Not without asking `reachable` first: a label
    is decided for only if it lies between seen ones, and no unseen leaf of a tree does. Over the leaves alone
    a tree gains almost nothing: let inner nodes be answers. For certain probabilities it is the largest one.

    Args:
        distances: [K, V] >= 0, finite: of each seen class, in the order of the probabilities, to each label;
            see `tree_distances` and `embedding_distances`. Their scale does not matter.
        power: > 0 of the distances: 2 the mean, 1 the median.
        temperature: > 0, at which the probabilities are first softened ($p^{1/T}$, normalised).
        candidates: [M] labels that may be decided for; None for all.
        labels_at_once: labels whose powers are held in memory together.

    Raises:
        MarginsError: distances that are negative or not finite, or arguments out of range.

    Example:
        >>> path = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])  # the ends were seen, the middle was not
        >>> FrechetDecoder(path)(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
        tensor([1, 0])

    With the metric "0 for the same, else 1" it is the class of the largest probability.

    References:
        Roberts et al. 2023, arXiv 2307.12226.
    """

    def __init__(
        self,
        distances: Float[Tensor, "K V"],
        *,
        power: float = 2.0,
        temperature: float = 1.0,
        candidates: Int[Tensor, "M"] | None = None,
        labels_at_once: int = 8192,
    ) -> None:
        check_distances(distances)
        check_positive("power", power)
        check_positive("temperature", temperature)
        if labels_at_once < 1:
            raise MarginsError("labels_at_once", expected="at least 1", received=str(labels_at_once))
        if candidates is not None:
            check_labels("candidates", candidates, distances.shape[1])
        self.power, self.temperature = power, temperature
        self.candidates = candidates
        self._distances = at_least_float32(distances)
        self._labels_at_once = labels_at_once

    @torch.no_grad()
    def __call__(self, probabilities: Float[Tensor, "B K"]) -> Int[Tensor, "B"]:
        """The decisions [B], columns of the distances; of equal ones the first.

        Args:
            probabilities: [B, K], rows that sum to one, on the device of the distances.
        """
        shares = self._tempered(probabilities)
        labels = self._labels()
        smallest = shares.new_full((len(shares),), torch.inf)
        decided = labels.new_zeros(len(shares))
        for block in labels.split(self._labels_at_once):
            found, place = self._risks(shares, block).min(1)
            is_less = found < smallest
            smallest = torch.where(is_less, found, smallest)
            decided = torch.where(is_less, block[place], decided)
        return decided

    @torch.no_grad()
    def risks(self, probabilities: Float[Tensor, "B K"]) -> Float[Tensor, "B M"]:
        """Expected distances, to the power, of deciding for each candidate; all are held at once.

        Args:
            probabilities: [B, K], rows that sum to one, on the device of the distances.
        """
        largest = self._largest().to(torch.float64) ** self.power
        shares = self._tempered(probabilities)
        return (self._risks(shares, self._labels()).to(torch.float64) * largest).to(shares.dtype)

    def _labels(self) -> Tensor:
        if self.candidates is not None:
            return self.candidates
        return torch.arange(self._distances.shape[1], device=self._distances.device)

    def _largest(self) -> Tensor:
        # Powers of shares of the largest distance neither overflow nor depend on the unit.
        largest = self._distances.max()
        return torch.where(largest > 0, largest, 1.0)

    def _risks(self, shares: Tensor, labels: Tensor) -> Tensor:
        block = (self._distances[:, labels] / self._largest()).pow(self.power)
        return shares @ block.to(shares.dtype)

    def _tempered(self, probabilities: Tensor) -> Tensor:
        num_seen = self._distances.shape[0]
        if probabilities.ndim != 2 or probabilities.shape[1] != num_seen:
            raise MarginsError(
                "probabilities", expected=f"[B, K] with K = {num_seen}", received=describe(probabilities)
            )
        shares = at_least_float32(probabilities)
        if values_are_readable(shares) and not bool((shares >= 0).all() & (shares.sum(1) > 0).all()):
            raise MarginsError(
                "probabilities", expected="rows of numbers >= 0 that sum to one", received="other rows",
                fix="pass scores.softmax(1)",
            )  # fmt: skip
        return shares if self.temperature == 1 else (shares.log() / self.temperature).softmax(1)


def check_distances(distances: Tensor) -> None:
    """Raises MarginsError for what is no matrix of finite distances >= 0."""
    if distances.ndim != 2 or not distances.is_floating_point() or 0 in distances.shape:
        raise MarginsError("distances", expected="[K, V] floats", received=describe(distances))
    if not bool(torch.isfinite(distances).all()):
        raise MarginsError(
            "distances", expected="finite numbers", received="infinite or undefined ones",
            fix="labels without a common ancestor: put one root above the roots",
        )  # fmt: skip
    if bool((distances < 0).any()):
        raise MarginsError("distances", expected="numbers >= 0", received=f"{float(distances.min()):g}")


def check_labels(argument: str, labels: Tensor, num_labels: int) -> None:
    """Raises MarginsError for what are no different labels, at least one."""
    is_list = labels.ndim == 1 and labels.dtype == torch.int64 and len(labels) > 0
    if not is_list or bool(((labels < 0) | (labels >= num_labels)).any()):
        raise MarginsError(
            argument, expected=f"[M] int64 labels in [0, {num_labels}), M >= 1", received=describe(labels)
        )
    if len(labels.unique()) < len(labels):
        raise MarginsError(argument, expected="each label once", received=f"{labels.tolist()[:20]}")


def check_positive(argument: str, value: float) -> None:
    """Raises MarginsError for what is no positive finite number."""
    if not 0 < value < float("inf"):
        raise MarginsError(argument, expected="a positive number", received=f"{value!r}")
