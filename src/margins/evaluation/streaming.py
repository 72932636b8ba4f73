"""Metrics of predictions that come in batches: the same number as of all rows at once, in float64.

A metric that is a function of sums keeps only the sums. One that is not (AUROC, average precision, R squared,
Spearman) keeps every prediction, and says how much memory that takes; no metric is a mean over batches.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from margins.errors import MarginsError
from margins.evaluation.forms import Sums, Whole
from margins.evaluation.metric import Measurement, Metric, nothing_to_measure
from margins.evaluation.records import Floats, Record, read_record


class Accumulator:
    """One metric, batch by batch.

    Args:
        metric: what to measure.

    Example:
        >>> from margins.evaluation import find_metric
        >>> seen = Accumulator(find_metric("macro_f1"))
        >>> for labels in ([0, 1], [1, 1]):
        ...     seen.update(np.eye(2)[[0, 1]], np.array(labels))
        >>> round(seen.result().value, 4), seen.num_bytes
        (0.7333, 48)
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._sums: Floats | None = None
        self._kept: list[tuple[Record, Floats]] = []
        self._num_rows = 0
        self._num_lone = 0

    @property
    def num_bytes(self) -> int:
        """Memory held: constant for a metric of sums, growing with the rows for others."""
        sums = 0 if self._sums is None else self._sums.nbytes
        return sums + sum(record.num_bytes + weight.nbytes for record, weight in self._kept)

    def update(self, predictions: object, truth: object, *, weight: object = None) -> None:
        """Adds a batch; arguments as in the call of a `Metric`.

        Raises:
            MarginsError: as that call, or a batch of another number of classes.
        """
        record = read_record(self.metric.tasks, predictions, truth)
        weights = self.metric.weights(weight, len(record))
        compute = self.metric.compute
        if isinstance(compute, Whole):
            # Rows of their own: the caller may write into the batch's memory afterwards.
            self._kept.append((record.take(np.arange(len(record))), weights.copy()))
        elif compute.rows is None:
            self._add(compute.state(record, weights))
        else:
            rows = compute.rows(record)
            self._add(weights @ rows)
            self._num_lone += int((rows[:, -1] == 0).sum())
        self._num_rows += len(record)

    def result(self) -> Measurement:
        """The metric of everything so far.

        Raises:
            MarginsError: no batch yet, or none of their rows counts.
        """
        if not self._num_rows:
            raise MarginsError("result", expected="at least one update before it", received="none")
        value = self._value()
        if not np.isfinite(value):
            raise nothing_to_measure(self.metric.name, self._num_lone)
        num_rows = self._num_rows - self._num_lone
        return Measurement(value=value, num_rows=num_rows, num_lone=self._num_lone)

    def merge(self, other: Self) -> None:
        """Adds all that another accumulator of the same metric has seen.

        Raises:
            MarginsError: it is of another metric, or saw another number of classes.
        """
        if other.metric.name != self.metric.name:
            raise MarginsError(
                "other", expected=f"an accumulator of {self.metric.name}", received=other.metric.name
            )
        if other._sums is not None:
            self._add(other._sums)
        self._kept.extend(other._kept)
        self._num_rows += other._num_rows
        self._num_lone += other._num_lone

    def _value(self) -> float:
        compute: Any = self.metric.compute
        if isinstance(compute, Sums):
            return float(compute.finish(self._sums)) if self._sums is not None else float("nan")
        records: list[Any] = [record for record, _ in self._kept]
        whole = type(records[0]).cat(records)
        return compute(whole, np.concatenate([weight for _, weight in self._kept]))

    def _add(self, sums: Floats) -> None:
        if self._sums is not None and self._sums.shape != sums.shape:
            raise MarginsError(
                "predictions", expected="the number of classes of earlier batches", received="another"
            )
        self._sums = sums.copy() if self._sums is None else self._sums + sums
