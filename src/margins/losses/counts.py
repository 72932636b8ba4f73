"""Surrogates of metrics of the confusion matrix: F-measures, balanced accuracy, correlation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.errors import MarginsError, MarginsWarning
from margins.losses.forms.base import in_range
from margins.losses.forms.counts import Average, Confusion, CountsLoss, Items, Link
from margins.losses.softplus import softplus

_EPS = 1e-5

Metric = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A metric of (tp, fp, fn, tn), element by element."""


def _accuracy(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    return (tp + tn) / (tp + fp + fn + tn + _EPS)


def _g_mean_squared(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    return tp * tn / ((tp + fn) * (tn + fp) + _EPS)


def _g_mean(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    return (_g_mean_squared(tp, fp, fn, tn) + 1e-12).sqrt()


def _balanced_accuracy(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    true, false = tp + fn, tn + fp
    return (false * tp + true * tn) / (2 * true * false + _EPS)


def _matthews(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    squared = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / (squared.clamp(min=1e-12).sqrt() + _EPS)


def _kappa(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    by_chance = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
    return 2 * (tp * tn - fn * fp) / (by_chance + _EPS)


def _jaccard(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:  # noqa: ARG001
    return tp / (tp + fp + fn + _EPS)


def _f_beta(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor, *, beta: float) -> Tensor:  # noqa: ARG001
    return (1 + beta**2) * tp / (beta**2 * (tp + fn) + tp + fp + _EPS)


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "bacc": _balanced_accuracy,
    "gmean": _g_mean,
    "gmean_squared": _g_mean_squared,
    "jaccard": _jaccard,
    "kappa": _kappa,
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
            "F1, amplify = None: Dice, not squared, smoothing -> 0",
            "metric_share = 0, class_weight = None: BinaryCrossEntropy",
        ),
        recipe={
            "objective": {"loss": "any_loss", "settings": {"metric": "f1", "link": "softmax"}},
            "metric": "macro_f1",
        },
        tests=(
            "tests/test_overlap_losses.py::test_any_loss_of_certain_predictions_is_the_metric_of_scikit_learn",
            "tests/test_overlap_losses.py::test_any_loss_nears_the_hard_metric_as_it_is_amplified",
            "tests/test_overlap_losses.py::test_any_loss_of_f1_that_is_not_amplified_is_dice",
            "tests/test_overlap_losses.py::test_counts_of_earlier_batches_are_added_and_get_no_gradient",
        ),
        study="any_loss",
    )
)
class AnyLoss(CountsLoss):
    r"""One minus a metric of amplified soft predictions.

    $a = 1 / (1 + e^{-L (p - 1/2)})$; the confusion counts of $a$ over the batch;
    $L = r (1 - metric) + (1 - r) BCE$, with $r = 1$ by default.

    Use it when a metric of decisions at threshold 1/2 counts, and the model is linear, small or under-fitted:
    there it gained much. Its honest rival is cross-entropy with a tuned cut (`decisions.cut: tuned` or
    thresholds per label in a recipe), and cross-entropy that weighs positives: a model that is fitted well
    gains little or nothing over them, and its probabilities are worse. Compare, do not assume.

    Every batch should hold both classes: one without positives gives exactly 0 and is passed over, and where
    a column has no negatives a metric that asks for them (bacc, gmean, mcc, kappa) gives 1 and no gradient.
    So take batches of 128 rows or more, draw classes evenly, or let earlier batches count by `decay`.

    Args:
        metric: "f1", "fbeta", "accuracy", "bacc", "gmean", "gmean_squared" (the G-mean without its root,
            which is steadier near 0), "jaccard", "kappa", "mcc", or a function of the four counts
            (tp, fp, fn, tn), element by element.
        amplify: $L$ > 0; up to 33 in float32, beyond which wrong certain rows get no gradient (MG001). None
            takes $a = p$.
        beta: of "fbeta", > 0.
        metric_share: $r$ in [0, 1]; the rest is binary cross-entropy, with the link "sigmoid" only.
        class_weight: of that cross-entropy: "balanced" weighs positives by the batch's share of negatives and
            negatives by that of positives; None weighs all alike.
        decay: in [0, 0.999]; the counts of the batch k steps back are added times decay ** k, without a
            gradient. They are a state, updated in training mode and saved with the module.
        average: "macro" or "micro" over columns.
        link: "sigmoid" or "softmax".

    Raises:
        MarginsError: a hyperparameter out of its range, or other columns than in earlier batches.

    References:
        Han, Moniz, Chawla 2024, arXiv 2405.14745.

    Example:
        >>> AnyLoss("f1")(torch.tensor([9.0, -9.0]), torch.tensor([1.0, 0.0]))
        tensor(0.0067)
    """

    earlier: Tensor | None

    def __init__(
        self,
        metric: str | Metric = "f1",
        *,
        amplify: float | None = 10.0,
        beta: float = 1.0,
        metric_share: float = 1.0,
        class_weight: Literal["balanced"] | None = "balanced",
        decay: float = 0.0,
        average: Average = "macro",
        link: Link = "sigmoid",
    ) -> None:
        super().__init__(average=average, link=link)
        self.amplify = None if amplify is None else in_range("amplify", amplify, low=0, open_low=True)
        self.beta = in_range("beta", beta, low=0, open_low=True)
        self.metric_share = in_range("metric_share", metric_share, low=0, high=1)
        self.decay = in_range("decay", decay, low=0, high=0.999)
        if class_weight not in ("balanced", None):
            raise MarginsError("class_weight", expected="'balanced' or None", received=repr(class_weight))
        self.class_weight = class_weight
        if self.metric_share < 1 and link != "sigmoid":
            raise MarginsError(
                "metric_share", expected="1 with link='softmax'", received=f"{metric_share:g}",
                fix="the rest is binary cross-entropy: use link='sigmoid'",
            )  # fmt: skip
        if self.amplify is not None and self.amplify > 33:
            text = f"AnyLoss(amplify={amplify:g}): above 33, wrong certain rows get no gradient in float32"
            warnings.warn(MarginsWarning("MG001", text), stacklevel=2)
        self.metric = metric if isinstance(metric, str) else getattr(metric, "__name__", "callable")
        self._metric = metric if callable(metric) else self._named(metric)
        self.register_buffer("earlier", None)

    def _named(self, metric: str) -> Metric:
        if metric in ("f1", "fbeta"):
            return partial(_f_beta, beta=1.0 if metric == "f1" else self.beta)
        if metric not in METRICS:
            names = sorted({*METRICS, "f1", "fbeta"})
            raise MarginsError("metric", expected=f"one of {names} or a function", received=repr(metric))
        return METRICS[metric]

    def predicted(self, probabilities: Float[Tensor, "anchors columns"]) -> Float[Tensor, "anchors columns"]:
        """Probabilities pushed towards 0 and 1."""
        if self.amplify is None:
            return probabilities
        return torch.sigmoid(self.amplify * (probabilities - 0.5))

    def loss_of(self, counts: Confusion) -> Float[Tensor, "*columns"]:
        """One minus the metric."""
        return 1 - self._metric(counts.tp, counts.fp, counts.fn, counts.tn)

    def of_items(self, items: Items) -> tuple[Float[Tensor, "*columns"], Bool[Tensor, "*columns"]]:
        """The loss of each column, and which have a positive, in this batch or in those that still count."""
        counts, is_there = self.count(items), items.weight.sum(self.summed_dims) > 0
        if self.decay:
            counts = self._with_earlier(counts)
        values = self.loss_of(counts)
        if self.metric_share < 1:
            values = self.metric_share * values + (1 - self.metric_share) * self._cross_entropy(items)
        return values, is_there & ((counts.tp + counts.fn).detach() > 0)

    def _with_earlier(self, counts: Confusion) -> Confusion:
        now = torch.stack([counts.tp, counts.fp, counts.fn, counts.tn])
        earlier = torch.zeros_like(now) if self.earlier is None else self.earlier.to(now)
        if earlier.shape != now.shape:
            raise MarginsError(
                "scores", expected=f"C = {earlier[0].numel()} columns, as in earlier batches",
                received=f"{now[0].numel()}", fix="make a new loss, or set decay=0",
            )  # fmt: skip
        both = earlier + now
        if self.training:
            self.earlier = self.decay * both.detach()
        tp, fp, fn, tn = both.unbind()
        return replace(counts, tp=tp, fp=fp, fn=fn, tn=tn)

    def _cross_entropy(self, items: Items) -> Float[Tensor, "*columns"]:
        s, y, weight, dims = items.scores, items.y, items.weight, self.summed_dims
        total = weight.sum(dims)
        total = torch.where(total > 0, total, 1.0)
        of_positives, of_negatives = weight * y * softplus(-s), weight * (1 - y) * softplus(s)
        if self.class_weight is None:
            return (of_positives + of_negatives).sum(dims) / total
        share = (weight * y).sum(dims) / total
        return ((1 - share) * of_positives.sum(dims) + share * of_negatives.sum(dims)) / total

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        # The number of columns is not known before the first batch; the state brings it along.
        saved = state_dict.get(f"{prefix}earlier")
        self.earlier = None if saved is None else torch.zeros_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
