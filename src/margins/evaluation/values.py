"""Metrics of real values. With several outputs, the mean of their metrics."""

from __future__ import annotations

import numpy as np

from margins.data.extras import extra
from margins.errors import MarginsError
from margins.evaluation.forms import Sums, Whole, row_means
from margins.evaluation.records import Floats, Values


def mean_absolute_error() -> Sums:
    """The mean absolute difference."""
    return row_means(lambda record: np.abs(record.predicted - record.true).mean(1))


def root_mean_squared_error() -> Sums:
    """The root of the mean squared difference of each output, then the mean over outputs."""
    return row_means(
        lambda record: (record.predicted - record.true) ** 2, lambda means: np.sqrt(means).mean(-1)
    )


def r_squared() -> Whole:
    """One minus the squared error over that of the mean; of a constant truth 1 if met exactly, else 0."""

    def compute(record: Values, weight: Floats) -> float:
        errors = weight @ (record.true - record.predicted) ** 2
        mean = weight @ record.true / weight.sum()
        spread = weight @ (record.true - mean) ** 2
        ratio = np.divide(errors, spread, out=np.where(errors > 0, 1.0, 0.0), where=spread > 0)
        return float((1 - ratio).mean())

    return Whole(compute=compute)


def spearman() -> Whole:
    """The correlation of ranks; equal values share their mean rank."""

    def compute(record: Values, _weight: Floats) -> float:
        with extra("tool"):
            from scipy.stats import rankdata
        sides = [rankdata(side, axis=0) for side in (record.predicted, record.true)]
        centred = [np.asarray(side, np.float64) - (len(side) + 1) / 2 for side in sides]
        scale = np.sqrt((centred[0] ** 2).sum(0) * (centred[1] ** 2).sum(0))
        if not scale.all():
            raise MarginsError(
                "predictions, truth", expected="values that vary, for a rank correlation", received="constant"
            )
        return float(((centred[0] * centred[1]).sum(0) / scale).mean())

    return Whole(compute=compute, takes_weight=False)
