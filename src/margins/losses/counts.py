"""Surrogates of metrics of the confusion matrix: F-measures, balanced accuracy, Dice."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.errors import MarginsError, MarginsWarning
from margins.losses.forms.base import in_range
from margins.losses.forms.counts import Average, Confusion, CountsLoss, Link

_EPS = 1e-5

Metric = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A metric of (tp, fp, fn, tn), element by element."""


def _accuracy(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    return (tp + tn) / (tp + fp + fn + tn + _EPS)


def _g_mean(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    return (tp * tn / ((tp + fn) * (tn + fp) + _EPS) + 1e-12).sqrt()


def _balanced_accuracy(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    true, false = tp + fn, tn + fp
    return (false * tp + true * tn) / (2 * true * false + _EPS)


def _matthews(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    squared = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / (squared.clamp(min=1e-12).sqrt() + _EPS)


def _jaccard(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:  # noqa: ARG001
    return tp / (tp + fp + fn + _EPS)


def _f_beta(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor, *, beta: float) -> Tensor:  # noqa: ARG001
    return (1 + beta**2) * tp / (beta**2 * (tp + fn) + tp + fp + _EPS)


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "bacc": _balanced_accuracy,
    "gmean": _g_mean,
    "jaccard": _jaccard,
    "mcc": _matthews,
}


@carded(
    LossCard(
        name="AnyLoss",
        summary="trains for a metric of the confusion matrix itself; weak or under-fitted models gain most",
        paper="Han, Moniz, Chawla, AnyLoss: Transforming Classification Metrics into Loss Functions, 2024, "
        "arXiv 2405.14745",
        entry=32,
        targets=("label sets", "scores", "classes"),
        distributed="global",
        comparable=True,
        collapse="1 - metric of predicting one half everywhere",
        limits=(
            "certain predictions: 1 - the metric itself",
            "amplify large: 1 - the metric at threshold 1/2",
        ),
    )
)
class AnyLoss(CountsLoss):
    r"""One minus a metric of amplified soft predictions.

    $a = 1 / (1 + e^{-L (p - 1/2)})$; the confusion counts of $a$ over the batch; $L = 1 - metric$. Report it
    beside cross-entropy with a tuned threshold, which is its honest rival.

    Args:
        metric: "f1", "fbeta", "accuracy", "bacc", "gmean", "mcc", "jaccard", or a function of the four
            counts (tp, fp, fn, tn), element by element.
        amplify: $L$ > 0; up to 33 in float32, beyond which wrong certain rows get no gradient.
        beta: of "fbeta", > 0.
        average: "macro" or "micro" over columns.
        link: "sigmoid" or "softmax".

    References:
        Han, Moniz, Chawla 2024, arXiv 2405.14745.

    Example:
        >>> AnyLoss("f1")(torch.tensor([9.0, -9.0]), torch.tensor([1.0, 0.0]))
        tensor(0.0067)
    """

    def __init__(
        self,
        metric: str | Metric = "f1",
        *,
        amplify: float = 10.0,
        beta: float = 1.0,
        average: Average = "macro",
        link: Link = "sigmoid",
    ) -> None:
        super().__init__(average=average, link=link)
        self.amplify = in_range("amplify", amplify, low=0, open_low=True)
        self.beta = in_range("beta", beta, low=0, open_low=True)
        if self.amplify > 33:
            text = f"AnyLoss(amplify={amplify:g}): above 33, wrong certain rows get no gradient in float32"
            warnings.warn(MarginsWarning("MG001", text), stacklevel=2)
        self.metric = metric if isinstance(metric, str) else getattr(metric, "__name__", "callable")
        self._metric = metric if callable(metric) else self._named(metric)

    def _named(self, metric: str) -> Metric:
        if metric in ("f1", "fbeta"):
            return partial(_f_beta, beta=1.0 if metric == "f1" else self.beta)
        if metric not in METRICS:
            names = sorted({*METRICS, "f1", "fbeta"})
            raise MarginsError("metric", expected=f"one of {names} or a function", received=repr(metric))
        return METRICS[metric]

    def predicted(self, probabilities: Float[Tensor, "anchors columns"]) -> Float[Tensor, "anchors columns"]:
        """Probabilities pushed towards 0 and 1."""
        return torch.sigmoid(self.amplify * (probabilities - 0.5))

    def loss_of(self, counts: Confusion) -> Float[Tensor, " columns"]:
        """One minus the metric."""
        return 1 - self._metric(counts.tp, counts.fp, counts.fn, counts.tn)


@carded(
    LossCard(
        name="Dice loss",
        summary="F1 of soft predictions over the batch; few positives among many negatives",
        paper="Li et al., Dice Loss for Data-imbalanced NLP Tasks, 2020, arXiv 1911.02855",
        entry=22,
        targets=("label sets", "scores", "classes"),
        distributed="global",
        comparable=True,
        collapse="near 1: nothing predicted",
        limits=("certain predictions, smoothing -> 0: 1 - F1",),
    )
)
class Dice(CountsLoss):
    r"""One minus the Dice coefficient of the batch.

    $L = 1 - \frac{2 \sum p t + \gamma}{\sum p^{(2)} + \sum t + \gamma}$, the predictions squared in the
    denominator by default, which trains more steadily.

    Args:
        smoothing: $\gamma$ >= 0.
        square: whether predictions are squared in the denominator.
        average: "macro" or "micro" over columns.
        link: "sigmoid" or "softmax".

    References:
        Li et al. 2020, arXiv 1911.02855; Milletari et al. 2016, arXiv 1606.04797 (squared).
    """

    def __init__(
        self,
        *,
        smoothing: float = 1.0,
        square: bool = True,
        average: Average = "macro",
        link: Link = "sigmoid",
    ) -> None:
        super().__init__(average=average, link=link)
        self.smoothing = in_range("smoothing", smoothing, low=0)
        self.square = square

    def predicted(self, probabilities: Float[Tensor, "anchors columns"]) -> Float[Tensor, "anchors columns"]:
        """The probabilities themselves."""
        return probabilities

    def loss_of(self, counts: Confusion) -> Float[Tensor, " columns"]:
        """One minus the smoothed coefficient."""
        predicted = counts.squares if self.square else counts.tp + counts.fp
        overlap = 2 * counts.tp + self.smoothing
        sizes = predicted + counts.tp + counts.fn + self.smoothing
        return 1 - overlap / sizes.clamp(min=1e-12)
