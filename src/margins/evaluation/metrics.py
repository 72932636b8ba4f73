"""Metrics by name, each of predicted class probabilities against true class ids.

Two rules hold for all. With two classes, class 1 is the positive one for metrics that rank (tables number
classes from the most frequent to the rarest, so it is the rarer one). A macro average is over the classes
that have rows among `labels`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from margins.data.extras import extra
from margins.data.nearest import suggestion
from margins.errors import MarginsError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kind = Literal["f1", "accuracy", "ranking", "probability"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named metric.

    Args:
        name: as users write it.
        title: as reports write it.
        higher_is_better: its direction.
        kind: what it looks at: hard decisions (f1, accuracy), the order of rows, or the probabilities.
        compute: the number, for checked input; call the metric itself for unchecked input.
        chance: its value for the best constant guess, from the shares of the classes.
    """

    name: str
    title: str
    higher_is_better: bool
    kind: Kind
    compute: Callable[[Floats, Ints], float]
    chance: Callable[[Floats], float]

    def __call__(self, probabilities: Floats, labels: Ints) -> float:
        """The metric of these predictions.

        Args:
            probabilities: [N, C] float64, rows sum to one.
            labels: [N] class ids in [0, C).

        Returns:
            a finite number.

        Raises:
            MarginsError: shapes that do not fit, no row, non-finite probabilities, labels out of range.
        """
        _check(probabilities, labels)
        return float(self.compute(probabilities, labels))

    def improvement(self, difference: float) -> float:
        """The difference with the sign that makes better positive."""
        return difference if self.higher_is_better else -difference


def find_metric(name: str) -> Metric:
    """The metric of this name.

    Example:
        >>> find_metric("macro_f1")(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        1.0

    Raises:
        MarginsError: no such metric; the nearest name is suggested.
    """
    if name not in _METRICS:
        raise MarginsError(
            "metric",
            expected="the name of a metric",
            received=repr(name),
            fix=suggestion(name, list(_METRICS)),
        )
    return _METRICS[name]


def all_metrics() -> list[Metric]:
    """Every metric, in the order of the documentation."""
    return list(_METRICS.values())


def _check(probabilities: Floats, labels: Ints) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or not len(probabilities):
        raise MarginsError(
            "probabilities", expected="[N, C] with N >= 1, C >= 2", received=str(list(probabilities.shape))
        )
    if labels.shape != probabilities.shape[:1]:
        raise MarginsError(
            "labels", expected=f"[N] with N = {len(probabilities)}", received=str(list(labels.shape))
        )
    if not np.isfinite(probabilities).all():
        raise MarginsError("probabilities", expected="finite numbers", received="NaN or infinity")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise MarginsError(
            "labels",
            expected=f"class ids in [0, C) = [0, {probabilities.shape[1]})",
            received=f"{labels.min()} to {labels.max()}",
        )


def _f1(average: Literal["macro", "micro", "weighted"]) -> Callable[[Floats, Ints], float]:
    def compute(probabilities: Floats, labels: Ints) -> float:
        with extra("compare"):
            from sklearn.metrics import f1_score
        guesses = probabilities.argmax(1)
        nothing: Any = 0  # F1 of a class that is neither there nor guessed; typed too narrowly there
        # `labels=` keeps a class that is guessed but has no row out of the macro average; micro and
        # weighted must count every guess.
        counted = np.unique(labels) if average == "macro" else None
        return float(f1_score(labels, guesses, labels=counted, average=average, zero_division=nothing))

    return compute


def _accuracy(probabilities: Floats, labels: Ints) -> float:
    return float((probabilities.argmax(1) == labels).mean())


def _balanced_accuracy(probabilities: Floats, labels: Ints) -> float:
    right = probabilities.argmax(1) == labels
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def _one_versus_rest(
    probabilities: Floats, labels: Ints, score: Callable[[npt.NDArray[np.bool_], Floats], float]
) -> float:
    """Class 1 of two; of more, the mean over classes that have rows and do not have them all."""
    present = np.unique(labels)
    if len(present) < 2:
        raise MarginsError(
            "labels", expected="rows of at least two classes", received=f"class {present[0]} only"
        )
    columns = [1] if probabilities.shape[1] == 2 else present
    return float(np.mean([score(labels == c, probabilities[:, c]) for c in columns]))


def _average_precision(probabilities: Floats, labels: Ints) -> float:
    with extra("compare"):
        from sklearn.metrics import average_precision_score
    return _one_versus_rest(probabilities, labels, lambda y, s: float(average_precision_score(y, s)))


def _auroc(probabilities: Floats, labels: Ints) -> float:
    with extra("compare"):
        from sklearn.metrics import roc_auc_score
    return _one_versus_rest(probabilities, labels, lambda y, s: float(roc_auc_score(y, s)))


def _log_loss(probabilities: Floats, labels: Ints) -> float:
    # A probability of exactly zero comes from rounding; the floor keeps the loss of such a row finite.
    given = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(given, np.finfo(np.float64).tiny)).mean())


def _entropy(shares: Floats) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _always_largest_f1(shares: Floats) -> float:
    """F1 of the largest class when it is guessed for every row: precision is its share, recall is one."""
    return float(2 * shares.max() / (1 + shares.max()))


_METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="macro_f1", title="macro F1", higher_is_better=True, kind="f1", compute=_f1("macro"),
            chance=lambda shares: _always_largest_f1(shares) / len(shares),
        ),
        Metric(
            name="micro_f1", title="micro F1", higher_is_better=True, kind="f1", compute=_f1("micro"),
            chance=lambda shares: float(shares.max()),
        ),
        Metric(
            name="weighted_f1", title="weighted F1", higher_is_better=True, kind="f1",
            compute=_f1("weighted"), chance=lambda shares: float(shares.max()) * _always_largest_f1(shares),
        ),
        Metric(
            name="accuracy", title="accuracy", higher_is_better=True, kind="accuracy", compute=_accuracy,
            chance=lambda shares: float(shares.max()),
        ),
        Metric(
            name="balanced_accuracy", title="balanced accuracy", higher_is_better=True, kind="accuracy",
            compute=_balanced_accuracy, chance=lambda shares: 1 / len(shares),
        ),
        Metric(
            name="average_precision", title="average precision", higher_is_better=True, kind="ranking",
            compute=_average_precision,
            chance=lambda shares: float(shares[1]) if len(shares) == 2 else 1 / len(shares),
        ),
        Metric(
            name="auroc", title="AUROC", higher_is_better=True, kind="ranking", compute=_auroc,
            chance=lambda _: 0.5,
        ),
        Metric(
            name="log_loss", title="log loss", higher_is_better=False, kind="probability", compute=_log_loss,
            chance=_entropy,
        ),
    )
}  # fmt: skip
