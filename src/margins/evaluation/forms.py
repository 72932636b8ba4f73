"""The two forms of a metric: a function of sums over rows, which streams exactly, or of all rows at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from margins.evaluation.records import Floats


@dataclass(frozen=True, kw_only=True)
class Sums:
    """A metric that is a function of sums over rows: what it needs of two parts adds up.

    Args:
        state: (record, weight [N]) -> [S], the weighted sums.
        finish: [..., S] -> [...], the metric of such sums; NaN where nothing counts.
        rows: record -> [N, S], what each row adds, where that is cheap; None otherwise. The last column is 1
            for a row that counts and 0 for a lone one.
    """

    state: Callable[[Any, Floats], Floats]
    finish: Callable[[Floats], Floats]
    rows: Callable[[Any], Floats] | None = None

    def __call__(self, record: Any, weight: Floats) -> float:
        """The metric; NaN when no row counts."""
        return float(self.finish(self.state(record, weight)))


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A metric that needs all rows at once (a sort of them): a mean over parts would be another number.

    Args:
        compute: (record, weight [N]) -> the metric.
        takes_weight: whether weights other than one have a meaning for it.
    """

    compute: Callable[[Any, Floats], float]
    takes_weight: bool = True

    def __call__(self, record: Any, weight: Floats) -> float:
        """The metric."""
        return float(self.compute(record, weight))


def row_means(values: Callable[[Any], Floats], finish: Callable[[Floats], Floats] | None = None) -> Sums:
    """A function of weighted means over rows.

    Args:
        values: record -> [N] or [N, S]; a row of NaN is lone and counts nowhere.
        finish: [..., S] means -> [...]; None takes the only mean.
    """

    def rows(record: Any) -> Floats:
        given = values(record)
        table = given[:, None] if given.ndim == 1 else given
        counts = ~np.isnan(table[:, :1])
        return np.concatenate([np.where(counts, table, 0.0), counts], axis=1, dtype=np.float64)

    def of_sums(sums: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums[..., :-1] / sums[..., -1:]
        return means[..., 0] if finish is None else finish(means)

    return Sums(state=lambda record, weight: weight @ rows(record), finish=of_sums, rows=rows)
