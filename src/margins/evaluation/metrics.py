"""Metrics by name, for predicted classes, label sets, rankings and real values."""

from __future__ import annotations

from margins.errors import MarginsError
from margins.evaluation.catalog import listed_metrics, make_metric
from margins.evaluation.metric import Kind, Measurement, Metric
from margins.evaluation.records import Floats, Task

__all__ = ["Kind", "Measurement", "Metric", "all_metrics", "find_metric"]


def find_metric(name: str, *, task: Task | None = None, propensities: Floats | None = None) -> Metric:
    """The metric of this name.

    Names may hold a number: `ndcg@10`, `precision@5`, `recall@5`, `hits@1`, `psp@3`, `top_5`; `f2` and
    `macro_f2`, `micro_f0.5`, `weighted_f1` are F-beta.

    Args:
        name: as listed by `all_metrics`, or one with another number.
        task: what it must be able to measure; None for anything.
        propensities: [C] of labels, for `psp@k` only.

    Example:
        >>> import numpy as np
        >>> find_metric("macro_f1")(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        1.0

    Raises:
        MarginsError: no such metric, and then the nearest name is suggested, or it is not of this task.
    """
    metric = make_metric(name, propensities)
    if task is not None and task not in metric.tasks:
        raise MarginsError(
            "metric", expected=f"a metric of {task}", received=f"{name}, of {' and '.join(metric.tasks)}",
            fix="one of " + ", ".join(m.name for m in all_metrics(task)),
        )  # fmt: skip
    return metric


def all_metrics(task: Task | None = None) -> list[Metric]:
    """Every metric, or those of a task, in the order of the documentation; with a number, as usual ones."""
    return [m for m in listed_metrics() if task is None or task in m.tasks]
