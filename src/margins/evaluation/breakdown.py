"""A metric for the head, the middle and the tail of a long-tailed set of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from margins.errors import MarginsError
from margins.evaluation.metric import Metric
from margins.evaluation.metrics import all_metrics
from margins.evaluation.records import Array, Floats, Ints, as_array, read_record


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassGroups:
    """Classes put into groups by how many training rows they have.

    Args:
        rule: how, in words, for reports.
        names: of the groups, most frequent classes first.
        members: [C] the group of each class.
    """

    rule: str
    names: Sequence[str]
    members: Ints

    @classmethod
    def thirds(cls, training_counts: Array) -> Self:
        """A third of the classes each, by count; among equal counts the lower number is more frequent.

        Example:
            >>> ClassGroups.thirds(np.array([5, 100, 50])).members
            array([2, 0, 1])
        """
        counts = _counts(training_counts)
        place = np.empty(len(counts), np.int64)
        place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        return cls(
            rule="thirds of the classes by training rows",
            names=("head", "medium", "tail"),
            members=place * 3 // len(counts),
        )

    @classmethod
    def by_rows(cls, training_counts: Array, *, many: int = 100, few: int = 20) -> Self:
        """More than `many` training rows, fewer than `few`, and those between (Liu et al. 2019)."""
        counts = _counts(training_counts)
        if not 0 < few <= many:
            raise MarginsError("many, few", expected="0 < few <= many", received=f"{many}, {few}")
        return cls(
            rule=f"more than {many}, {few} to {many}, fewer than {few} training rows",
            names=("many", "medium", "few"),
            members=np.where(counts > many, 0, np.where(counts < few, 2, 1)),
        )


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """A metric of one group of classes.

    Args:
        name: of the group.
        value: the mean over its classes that have one; NaN when none has.
        num_classes: classes in the mean.
        num_absent: classes without a value, because no row has them.
    """

    name: str
    value: float
    num_classes: int
    num_absent: int


def class_values(metric: Metric, predictions: object, truth: object, *, weight: object = None) -> Floats:
    """The metric of each class, [C]; NaN where a class has none.

    For `balanced_accuracy` and `g_mean` that is recall.

    Raises:
        MarginsError: a metric that is not made of those of classes.
    """
    if metric.per_class is None:
        raise MarginsError(
            "metric", expected="a metric with a value for each class", received=metric.name,
            fix="one of " + ", ".join(m.name for m in all_metrics() if m.per_class is not None),
        )  # fmt: skip
    record = read_record(metric.tasks, predictions, truth)
    return metric.per_class(record, metric.weights(weight, len(record)))


def breakdown(
    metric: Metric, predictions: object, truth: object, groups: ClassGroups, *, weight: object = None
) -> list[GroupScore]:
    """The mean of a metric over the classes of each group, most frequent group first.

    Args:
        metric: one with a value for each class: F-beta, `balanced_accuracy`, `auroc`, `average_precision`,
            `classwise_ece`.
        predictions: as in the call of the metric.
        truth: as in the call of the metric.
        groups: of the same number of classes.
        weight: [N] row weights.

    Raises:
        MarginsError: another metric, or groups of another number of classes.
    """
    values = class_values(metric, predictions, truth, weight=weight)
    if len(values) != len(groups.members):
        raise MarginsError("groups", expected=f"[C] = [{len(values)}]", received=f"[{len(groups.members)}]")
    scores: list[GroupScore] = []
    for number, name in enumerate(groups.names):
        inside = values[groups.members == number]
        there = inside[~np.isnan(inside)]
        value = float(there.mean()) if len(there) else float("nan")
        absent = len(inside) - len(there)
        scores.append(GroupScore(name=name, value=value, num_classes=len(there), num_absent=absent))
    return scores


def _counts(training_counts: Array) -> Ints:
    counts = as_array("training_counts", training_counts)
    if counts.ndim != 1 or not len(counts) or counts.dtype.kind not in "iu" or counts.min() < 0:
        raise MarginsError(
            "training_counts", expected="[C] integers >= 0", received=f"{list(counts.shape)} {counts.dtype}"
        )
    return counts.astype(np.int64)
