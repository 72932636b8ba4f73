"""The metrics that have names, and what the numbers in names mean."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np

from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.evaluation import counts, curves, probability, ranking, values
from margins.evaluation.counts import Average
from margins.evaluation.forms import Sums, Whole
from margins.evaluation.metric import Metric
from margins.evaluation.records import Floats, Task

_SETS: tuple[Task, ...] = ("label_sets", "rankings")
_BOTH: tuple[Task, ...] = ("classes", "label_sets")
_CLASSES: tuple[Task, ...] = ("classes",)
_LABEL_SETS: tuple[Task, ...] = ("label_sets",)
_VALUES: tuple[Task, ...] = ("values",)

_USUAL = (
    "macro_f1", "micro_f1", "weighted_f1", "macro_f0.5", "macro_f2", "accuracy", "top_3", "top_5",
    "balanced_accuracy", "g_mean", "mcc", "average_precision", "auroc", "micro_average_precision",
    "micro_auroc", "log_loss", "brier", "ece", "classwise_ece", "subset_accuracy", "hamming_loss",
    "precision@1", "precision@5", "recall@5", "recall@10", "ndcg@10", "hits@1", "hits@10", "map@r",
    "r_precision", "mrr", "lrap", "coverage", "mae", "rmse", "r2", "spearman",
)  # fmt: skip


def listed_metrics() -> list[Metric]:
    """One metric of every kind of name but `psp@k`, which needs propensities."""
    return [make_metric(name, None) for name in _USUAL]


def make_metric(name: str, propensities: Floats | None) -> Metric:
    """The metric of a name, with its numbers read.

    Raises:
        MarginsError: no such name, or propensities missing or out of place.
    """
    if propensities is not None and not name.startswith("psp@"):
        raise MarginsError("propensities", expected="none but for psp@k", received=f"some for {name}")
    if name in _fixed():
        return _fixed()[name]
    if match := re.fullmatch(r"(?:(macro|micro|weighted)_)?f(\d+(?:\.\d+)?)", name):
        return _f_beta(match[1] or "macro", float(match[2]))
    if match := re.fullmatch(r"top_([1-9]\d*)", name):
        return _top(int(match[1]))
    if match := re.fullmatch(r"(precision|recall|ndcg|hits|psp)@([1-9]\d*)", name):
        return _at(match[1], int(match[2]), propensities)
    known = [*_USUAL, "psp@5"]
    near = suggestion(name, known)
    raise MarginsError("metric", expected="the name of a metric", received=repr(name), fix=near)


def _f_beta(average: str, beta: float) -> Metric:
    if beta <= 0:
        raise MarginsError("metric", expected="F-beta with beta > 0", received=f"f{beta:g}")
    named: dict[str, Average] = {"macro": "macro", "micro": "micro", "weighted": "weighted"}

    def chance(shares: Floats) -> float:
        largest = _always_largest(shares, beta)
        return {
            "macro": largest / len(shares),
            "micro": float(shares.max()),
            "weighted": float(shares.max()) * largest,
        }[average]

    return Metric(
        name=f"{average}_f{beta:g}", title=f"{average} F{beta:g}", higher_is_better=True, kind="f1",
        tasks=_BOTH, compute=counts.f_beta(beta, named[average]), chance=chance,
        per_class=counts.class_f_beta(beta) if average == "macro" else None,
    )  # fmt: skip


def _top(k: int) -> Metric:
    return Metric(
        name=f"top_{k}", title=f"top-{k} accuracy", higher_is_better=True, kind="accuracy", tasks=_CLASSES,
        compute=counts.top_accuracy(k), chance=lambda shares: float(np.sort(shares)[::-1][:k].sum()),
    )  # fmt: skip


def _at(name: str, k: int, propensities: Floats | None) -> Metric:
    if name == "psp":
        if propensities is None:
            raise MarginsError(
                "propensities", expected=f"[C] propensities of labels for psp@{k}", received="none",
                fix="find_metric(..., propensities=propensities(label_counts, num_rows))",
            )  # fmt: skip
        title, compute = "propensity-scored precision", ranking.propensity_precision_at(k, propensities)
    else:
        title, make = ranking.RANKINGS_AT[name]
        compute = make(k)
    return Metric(
        name=f"{name}@{k}", title=f"{title} at {k}", higher_is_better=True, kind="candidates", tasks=_SETS,
        compute=compute, chance=_unknown,
    )  # fmt: skip


@functools.cache
def _fixed() -> dict[str, Metric]:
    return {metric.name: metric for metric in (*_decided(), *_of_rows(), *_ranked(), *_real())}


def _decided() -> list[Metric]:
    return [
        Metric(
            name="accuracy", title="accuracy", higher_is_better=True, kind="accuracy", tasks=_CLASSES,
            compute=counts.accuracy(), chance=lambda shares: float(shares.max()),
        ),
        Metric(
            name="balanced_accuracy", title="balanced accuracy", higher_is_better=True, kind="accuracy",
            tasks=_CLASSES, compute=counts.balanced_accuracy(), chance=lambda shares: 1 / len(shares),
            per_class=counts.class_recalls,
        ),
        Metric(
            name="g_mean", title="G-mean", higher_is_better=True, kind="accuracy", tasks=_CLASSES,
            compute=counts.g_mean(), chance=lambda _: 0.0, per_class=counts.class_recalls,
        ),
        Metric(
            name="mcc", title="Matthews correlation", higher_is_better=True, kind="accuracy", tasks=_CLASSES,
            compute=counts.matthews(), chance=lambda _: 0.0,
        ),
        Metric(
            name="subset_accuracy", title="subset accuracy", higher_is_better=True, kind="accuracy",
            tasks=_LABEL_SETS, compute=counts.subset_accuracy(), chance=_unknown,
        ),
        Metric(
            name="hamming_loss", title="Hamming loss", higher_is_better=False, kind="accuracy",
            tasks=_LABEL_SETS, compute=counts.hamming_loss(), chance=_unknown,
        ),
    ]  # fmt: skip


def _of_rows() -> list[Metric]:
    roc, precision = curves.roc_area, curves.average_precision
    return [
        Metric(
            name="average_precision", title="average precision", higher_is_better=True, kind="ranking",
            tasks=_BOTH, compute=Whole(compute=curves.macro(precision)),
            per_class=curves.per_class(precision),
            chance=lambda shares: float(shares[1]) if len(shares) == 2 else 1 / len(shares),
        ),
        Metric(
            name="auroc", title="AUROC", higher_is_better=True, kind="ranking", tasks=_BOTH,
            compute=Whole(compute=curves.macro(roc)), chance=lambda _: 0.5, per_class=curves.per_class(roc),
        ),
        Metric(
            name="micro_average_precision", title="micro average precision", higher_is_better=True,
            kind="ranking", tasks=_LABEL_SETS, compute=Whole(compute=curves.micro(precision)),
            chance=_unknown,
        ),
        Metric(
            name="micro_auroc", title="micro AUROC", higher_is_better=True, kind="ranking",
            tasks=_LABEL_SETS, compute=Whole(compute=curves.micro(roc)), chance=_unknown,
        ),
        Metric(
            name="log_loss", title="log loss", higher_is_better=False, kind="probability", tasks=_BOTH,
            compute=probability.log_loss(), chance=_entropy,
        ),
        Metric(
            name="brier", title="Brier score", higher_is_better=False, kind="probability", tasks=_BOTH,
            compute=probability.brier(), chance=_gini,
        ),
        Metric(
            name="ece", title="expected calibration error", higher_is_better=False, kind="probability",
            tasks=_CLASSES, compute=probability.calibration_error(), chance=lambda _: 0.0,
        ),
        Metric(
            name="classwise_ece", title="classwise calibration error", higher_is_better=False,
            kind="probability", tasks=_CLASSES, compute=probability.classwise_calibration_error(),
            chance=lambda _: 0.0, per_class=probability.class_calibration_errors,
        ),
    ]  # fmt: skip


def _ranked() -> list[Metric]:
    rows: list[tuple[str, str, bool, tuple[Task, ...], Callable[[], Sums]]] = [
        ("map@r", "MAP@R", True, _SETS, ranking.map_at_r),
        ("r_precision", "R-precision", True, _SETS, ranking.r_precision),
        ("mrr", "mean reciprocal rank", True, _SETS, ranking.reciprocal_rank),
        ("lrap", "label ranking average precision", True, _SETS, ranking.ranking_average_precision),
        ("coverage", "coverage", False, _SETS, ranking.coverage),
    ]
    return [
        Metric(
            name=name, title=title, higher_is_better=up, kind="candidates", tasks=tasks, compute=make(),
            chance=_unknown,
        )
        for name, title, up, tasks, make in rows
    ]  # fmt: skip


def _real() -> list[Metric]:
    rows: list[tuple[str, str, bool, Sums | Whole, Callable[[Floats], float]]] = [
        ("mae", "mean absolute error", False, values.mean_absolute_error(), _unknown),
        ("rmse", "root mean squared error", False, values.root_mean_squared_error(), _unknown),
        ("r2", "R squared", True, values.r_squared(), lambda _: 0.0),
        ("spearman", "Spearman correlation", True, values.spearman(), lambda _: 0.0),
    ]
    return [
        Metric(
            name=name, title=title, higher_is_better=up, kind="values", tasks=_VALUES, compute=compute,
            chance=chance,
        )
        for name, title, up, compute, chance in rows
    ]  # fmt: skip


def _unknown(_shares: Floats) -> float:
    """Shares of classes alone do not tell what chance gives."""
    return float("nan")


def _entropy(shares: Floats) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _gini(shares: Floats) -> float:
    spread = float(1 - (shares**2).sum())
    return spread / 2 if len(shares) == 2 else spread


def _always_largest(shares: Floats, beta: float) -> float:
    """F-beta of the largest class, guessed for every row: precision is its share, recall is one."""
    largest = float(shares.max())
    return (1 + beta**2) * largest / (beta**2 * largest + 1) if largest else 0.0
