"""An interval of the difference of two models on the same rows, for the draw of rows and training seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margins.errors import MarginsError
from margins.evaluation.bootstrap import (
    check_settings,
    defined_of,
    drawn_counts,
    measured,
    unit_sums,
    units_of,
)
from margins.evaluation.forms import Sums, Whole
from margins.evaluation.metric import Metric
from margins.evaluation.records import Array, Floats, Ints, Record, read_record

# (how often each unit is drawn [b, units], which models are wanted [b, M]) -> their metrics [b, M]
_Measure = Callable[[Floats, npt.NDArray[np.bool_]], Floats]


@dataclass(frozen=True, kw_only=True)
class PairedInterval:
    """The difference of a metric between two models with a percentile bootstrap interval.

    Args:
        value: mean over seeds of metric(first) - metric(second), of the rows as they are.
        low: lower end.
        high: upper end.
        confidence: nominal.
        num_seeds: training seeds that were drawn with replacement. With 1 the interval speaks of items only.
        num_units: rows, or groups of rows, that were drawn with replacement.
        num_undefined: resamples left out, because the metric has no value for them.
    """

    value: float
    low: float
    high: float
    confidence: float
    num_seeds: int
    num_units: int
    num_undefined: int


def paired_bootstrap(
    metric: Metric,
    first: Sequence[object],
    second: Sequence[object],
    truth: object,
    *,
    seed: int,
    num: int = 1000,
    confidence: float = 0.95,
    groups: Array | None = None,
    weight: object = None,
) -> PairedInterval:
    """The difference of two models with an interval from resampled training seeds and resampled items.

    For the report role only, to confirm on untouched rows a choice that was made before. Never to rank again:
    who picks the best of several by these rows needs others to measure it. One resample draws S seeds with
    replacement, the same for both models, and items (rows, or groups of rows) with replacement, the same for
    both; its value is the mean over the drawn seeds of metric(first) - metric(second).

    With one seed the interval speaks of the draw of items only. With few seeds (under about ten) it is too
    narrow, because the variance over S drawn seeds is only (S - 1)/S of the true one: where the seeds matter
    most, three of them cover about 0.7 for a nominal 0.9. With few units (under about 30) it is too narrow as
    well. It says nothing of other training rows.

    Args:
        metric: what to measure. A mean over rows costs one matrix product; others are computed up to 2 S
            times a resample.
        first: S predictions of the first model, one a training seed, each as in the call of the metric.
        second: S predictions of the second model, paired with the first's by seed.
        truth: of the rows, as in the call of the metric.
        seed: of the draws.
        num: resamples, at least 100.
        confidence: in (0, 1).
        groups: [N] group of each row; None draws rows.
        weight: [N] row weights.

    Returns:
        the difference in the unit of the metric, whichever direction is better, and its interval.

    Raises:
        MarginsError: as the metric; no seed, or not as many for both; fewer than two units; more than a tenth
            of the resamples without a value.

    Example:
        >>> from margins.evaluation import find_metric
        >>> labels, right, poor = np.array([0, 1] * 50), np.eye(2)[[0, 1] * 50], np.eye(2)[[0, 1, 1, 1] * 25]
        >>> found = paired_bootstrap(find_metric("accuracy"), [right], [poor], labels, seed=0)
        >>> found.value, round(found.low, 2), round(found.high, 2), found.num_seeds
        (0.25, 0.17, 0.34, 1)
    """
    check_settings(num, confidence)
    num_seeds = _num_seeds(first, second)
    models = [*first, *second]
    values = [metric.measure(each, truth, weight=weight).value for each in models]
    records = [read_record(metric.tasks, each, truth) for each in models]
    weights = metric.weights(weight, len(records[0]))
    units, num_units = units_of(groups, len(weights))
    for_seeds, for_units = np.random.default_rng(seed).spawn(2)
    times = np.concatenate(list(drawn_counts(for_seeds, num, num_seeds)))
    measure = _measure_of(metric.compute, records, weights, units, num_units)
    parts: list[Floats] = []
    start = 0
    for drawn in drawn_counts(for_units, num, num_units):
        seeds = times[start : start + len(drawn)]
        table = measure(drawn, np.tile(seeds > 0, 2))
        parts.append(_mean_over_seeds(table[:, :num_seeds] - table[:, num_seeds:], seeds))
        start += len(drawn)
    defined = defined_of(np.concatenate(parts), metric)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return PairedInterval(
        value=float(np.mean(values[:num_seeds]) - np.mean(values[num_seeds:])), low=float(low),
        high=float(high), confidence=confidence, num_seeds=num_seeds, num_units=num_units,
        num_undefined=num - len(defined),
    )  # fmt: skip


def _num_seeds(first: Sequence[object], second: Sequence[object]) -> int:
    for name, side in (("first", first), ("second", second)):
        if not isinstance(side, (list, tuple)) or not side:
            raise MarginsError(
                name,
                expected="a list of predictions, one a training seed",
                received="an empty one" if isinstance(side, (list, tuple)) else type(side).__name__,
                fix="pass [predictions] for one training run",
            )
    if len(first) != len(second):
        raise MarginsError(
            "second", expected=f"as many seeds as first: {len(first)}", received=str(len(second))
        )
    return len(first)


def _measure_of(
    compute: Sums | Whole, records: list[Record], weights: Floats, units: Ints, num_units: int
) -> _Measure:
    """The metric of each model as a function of how often each unit is there; NaN where it has no value."""
    if isinstance(compute, Sums) and compute.rows is not None:
        rows, finish = compute.rows, compute.finish
        sums = np.stack([unit_sums(rows(r) * weights[:, None], units, num_units) for r in records], axis=1)

        def by_sums(drawn: Floats, _wanted: npt.NDArray[np.bool_]) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                return finish((drawn @ sums.reshape(num_units, -1)).reshape(len(drawn), *sums.shape[1:]))

        return by_sums
    measures = [measured(compute, record, weights, units) for record in records]

    def one_by_one(drawn: Floats, wanted: npt.NDArray[np.bool_]) -> Floats:
        table = np.full(wanted.shape, np.nan)
        for row, model in zip(*np.nonzero(wanted), strict=True):
            table[row, model] = measures[model](drawn[row])
        return table

    return one_by_one


def _mean_over_seeds(differences: Floats, times: Floats) -> Floats:
    """[b] means over the drawn seeds; one that was not drawn may have no value."""
    return np.where(times > 0, times * differences, 0.0).sum(1) / times.sum(1)
