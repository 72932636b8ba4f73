"""Intervals of a metric for the draw of the rows that it was measured on.

They say how far the metric of these predictions would move with other rows of the same kind; not how far it
would move with another training run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from margins.errors import MarginsError
from margins.evaluation.forms import Sums, Whole
from margins.evaluation.metric import Metric
from margins.evaluation.records import Array, Floats, Ints, Record, as_array, read_record

_ENTRIES = 1 << 22  # draws held at once
_JACKKNIFE = 200  # parts left out in turn where each costs a whole metric
_UNDEFINED = 0.1  # share of resamples without a value above which an interval would mislead


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric with a bootstrap interval.

    Args:
        value: the metric of the rows as they are.
        low: lower end.
        high: upper end.
        confidence: nominal.
        num_units: rows, or groups of rows, that were drawn with replacement.
        num_undefined: resamples left out, because the metric has no value for them (one class alone).
    """

    value: float
    low: float
    high: float
    confidence: float
    num_units: int
    num_undefined: int


def bootstrap_interval(
    metric: Metric,
    predictions: object,
    truth: object,
    *,
    seed: int,
    num: int = 1000,
    confidence: float = 0.95,
    method: Literal["bca", "percentile"] = "bca",
    groups: Array | None = None,
    weight: object = None,
) -> Interval:
    """The metric with an interval from resampled rows, or resampled groups of rows.

    Use groups where rows come in families (patients, users, documents): rows of one are not independent, and
    an interval over rows would be too narrow. BCa (Efron 1987) mends the bias and the skewness of the
    percentile interval; its acceleration comes from leaving out each unit, or one of 200 parts where the
    metric is not a mean over rows. With few units (under about 30) both are too narrow.

    Args:
        metric: what to measure. A mean over rows costs one matrix product; others are computed `num` times.
        predictions: as in the call of the metric.
        truth: as in the call of the metric.
        seed: of the draws.
        num: resamples, at least 100.
        confidence: in (0, 1).
        method: "bca" or "percentile".
        groups: [N] group of each row; None draws rows.
        weight: [N] row weights.

    Returns:
        the metric and its interval.

    Raises:
        MarginsError: as the metric; fewer than two units; more than a tenth of the resamples without a value.

    Example:
        >>> from margins.evaluation import find_metric
        >>> p, labels = np.eye(2)[[0, 1] * 50], np.array([0] * 10 + [0, 1] * 45)
        >>> found = bootstrap_interval(find_metric("accuracy"), p, labels, seed=0)
        >>> found.value, round(found.low, 2), round(found.high, 2)
        (0.95, 0.9, 0.98)
    """
    check_settings(num, confidence, method)
    record = read_record(metric.tasks, predictions, truth)
    weights = metric.weights(weight, len(record))
    value = metric.measure(predictions, truth, weight=weight).value
    units, num_units = units_of(groups, len(record))
    generator = np.random.default_rng(seed)
    draws = drawn_counts(generator, num, num_units)
    if isinstance(metric.compute, Sums) and metric.compute.rows is not None:
        sums = unit_sums(metric.compute.rows(record) * weights[:, None], units, num_units)
        finish = metric.compute.finish
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.concatenate([finish(drawn @ sums) for drawn in draws])
            left_out = finish(sums.sum(0) - sums) if method == "bca" else None
    else:
        measure = measured(metric.compute, record, weights, units)
        found = np.array([measure(one) for drawn in draws for one in drawn])
        left_out = _parts_left_out(measure, generator, num_units) if method == "bca" else None
    defined = defined_of(found, metric)
    low, high = _ends(defined, value, left_out, confidence)
    return Interval(
        value=value, low=low, high=high, confidence=confidence, num_units=num_units,
        num_undefined=num - len(defined),
    )  # fmt: skip


def check_settings(num: int, confidence: float, method: str = "percentile") -> None:
    """Refuses what is no bootstrap.

    Raises:
        MarginsError: too few resamples, a confidence out of range, an unknown method.
    """
    if num < 100 or not 0 < confidence < 1 or method not in ("bca", "percentile"):
        raise MarginsError(
            "num, confidence, method",
            expected="at least 100 resamples, a confidence in (0, 1), bca or percentile",
            received=f"{num}, {confidence}, {method}",
        )


def units_of(groups: Array | None, num_rows: int) -> tuple[Ints, int]:
    """The number of the unit of each row, and how many units there are."""
    if groups is None:
        units, num_units = np.arange(num_rows), num_rows
    else:
        given = as_array("groups", groups)
        if given.shape != (num_rows,):
            raise MarginsError("groups", expected=f"[N] = [{num_rows}]", received=str(list(given.shape)))
        names, units = np.unique(given, return_inverse=True)
        num_units = len(names)
    if num_units < 2:
        raise MarginsError("groups, rows", expected="at least two to draw from", received=str(num_units))
    return units.astype(np.int64), num_units


def drawn_counts(generator: np.random.Generator, num: int, num_units: int) -> Iterator[Floats]:
    """Blocks of [b, units]: how often each unit is drawn in each resample."""
    step = max(1, _ENTRIES // num_units)
    for start in range(0, num, step):
        count = min(step, num - start)
        drawn = generator.integers(0, num_units, (count, num_units))
        keys = drawn + np.arange(count)[:, None] * num_units
        counts = np.bincount(keys.ravel(), minlength=count * num_units)
        yield counts.reshape(count, num_units).astype(np.float64)


def unit_sums(rows: Floats, units: Ints, num_units: int) -> Floats:
    """[units, S]: what the rows of each unit add together."""
    sums = np.zeros((num_units, rows.shape[1]))
    np.add.at(sums, units, rows)
    return sums


def measured(
    compute: Sums | Whole, record: Record, weights: Floats, units: Ints
) -> Callable[[Floats], float]:
    """The metric as a function of how often each unit is there; NaN where it has no value."""

    def measure(times: Floats) -> float:
        drawn: Any = times[units]
        try:
            if isinstance(compute, Whole) and not compute.takes_weight:
                rows = np.repeat(np.arange(len(units)), drawn.astype(np.int64))
                return compute(record.take(rows), np.ones(len(rows)))
            return compute(record, weights * drawn)
        except MarginsError:
            return math.nan

    return measure


def defined_of(found: Floats, metric: Metric) -> Floats:
    """The resamples that have a value.

    Raises:
        MarginsError: more than a tenth has none.
    """
    defined = found[np.isfinite(found)]
    if len(defined) < (1 - _UNDEFINED) * len(found):
        raise MarginsError(
            "truth", expected=f"rows whose resamples nearly always have a {metric.name}",
            received=f"{len(found) - len(defined)} of {len(found)} without one", fix="measure more rows",
        )  # fmt: skip
    return defined


def _parts_left_out(
    measure: Callable[[Floats], float], generator: np.random.Generator, num_units: int
) -> Floats:
    num_parts = min(num_units, _JACKKNIFE)
    parts = generator.permutation(num_units) % num_parts
    return np.array([measure((parts != part).astype(np.float64)) for part in range(num_parts)])


def _ends(found: Floats, value: float, left_out: Floats | None, confidence: float) -> tuple[float, float]:
    levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if left_out is not None:
        levels = _corrected_levels(found, value, left_out[np.isfinite(left_out)], levels)
    low, high = np.quantile(found, levels)
    return float(low), float(high)


def _corrected_levels(found: Floats, value: float, left_out: Floats, levels: Floats) -> Floats:
    """Efron's levels: shifted by the median bias of the resamples and skewed by the acceleration."""
    normal = NormalDist()
    # All resamples on one side would shift without end; half a resample stands on the other.
    below = ((found < value).sum() + (found == value).sum() / 2).clip(0.5, len(found) - 0.5) / len(found)
    shift = normal.inv_cdf(float(below))
    away = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float((away**2).sum())
    skew = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    wanted = [shift + normal.inv_cdf(float(level)) for level in levels]
    return np.array([normal.cdf(shift + z / max(1 - skew * z, 1e-9)) for z in wanted])
