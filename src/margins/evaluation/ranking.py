"""Metrics of the order of candidates within a query or row.

Means are over queries with something relevant; lone queries are counted beside the metric, never as 0.
Two rules for tied candidates. Metrics at k, map@r and r_precision: they share their gains evenly
(`ranked.shared_gains`). Metrics of the rank of a relevant candidate (mrr, hits@k, lrap, coverage): whatever
is tied with it counts as before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from margins.errors import MarginsError
from margins.evaluation.forms import Sums, row_means
from margins.evaluation.ranked import (
    Gain,
    ideal_gains,
    is_relevant,
    its_grade,
    label_precision,
    lowest_ranks,
    num_relevant,
    shared_gains,
)
from margins.evaluation.records import Array, Candidates, Floats, as_array


def precision_at(k: int) -> Sums:
    """The share of relevant ones among the first k, also where there are fewer than k candidates."""
    return row_means(lambda record: _lone_aside(record, shared_gains(record, k, is_relevant).sum(1) / k))


def recall_at(k: int) -> Sums:
    """The share of the relevant ones that is among the first k."""
    return row_means(lambda record: shared_gains(record, k, is_relevant).sum(1) / num_relevant(record))


def hits_at(k: int) -> Sums:
    """The share of queries with a relevant candidate among the first k."""

    def rows(record: Candidates) -> Floats:
        best = lowest_ranks(record)[0]
        return np.where(np.isnan(best), np.nan, best <= k)

    return row_means(rows)


def ndcg_at(k: int) -> Sums:
    """The sum of grades over log2(1 + rank) of the first k, over that of the best order."""

    def rows(record: Candidates) -> Floats:
        discount = 1 / np.log2(np.arange(2, k + 2))
        best = ideal_gains(record, k, its_grade) @ discount
        return _lone_aside(record, shared_gains(record, k, its_grade) @ discount) / np.where(best, best, 1)

    return row_means(rows)


def propensity_precision_at(k: int, propensities: Floats) -> Sums:
    """The sum of 1 / propensity over relevant ones among the first k, over the greatest possible sum.

    A ratio of sums over rows (Jain et al. 2016), not a mean of ratios.
    """
    gain = _inverse_gain(propensities)

    def rows(record: Candidates) -> Floats:
        if record.targets.num_candidates != len(propensities):
            raise MarginsError(
                "propensities", expected=f"[C] = [{record.targets.num_candidates}]",
                received=f"[{len(propensities)}]",
            )  # fmt: skip
        sides = [shared_gains(record, k, gain).sum(1), ideal_gains(record, k, gain).sum(1)]
        return np.stack([_lone_aside(record, side) for side in sides], axis=1)

    return row_means(rows, lambda means: means[..., 0] / means[..., 1])


def map_at_r() -> Sums:
    """The mean over the first R ranks of precision there times relevance, R being the number relevant."""

    def rows(record: Candidates) -> Floats:
        relevant, gains = _to_r(record)
        precision = gains.cumsum(1) / np.arange(1, gains.shape[1] + 1)
        return (precision * gains * _within(relevant, gains)).sum(1) / relevant

    return row_means(rows)


def r_precision() -> Sums:
    """The share of relevant ones among the first R, R being the number relevant."""

    def rows(record: Candidates) -> Floats:
        relevant, gains = _to_r(record)
        return (gains * _within(relevant, gains)).sum(1) / relevant

    return row_means(rows)


def reciprocal_rank() -> Sums:
    """The mean of one over the rank of the best relevant candidate."""
    return row_means(lambda record: 1 / lowest_ranks(record)[0])


def coverage() -> Sums:
    """How far down one must go to meet every relevant label: the mean rank of the worst of them."""
    return row_means(lambda record: lowest_ranks(record)[1])


def ranking_average_precision() -> Sums:
    """For each relevant label the share of relevant ones among those ranked no lower; the mean of that."""
    return row_means(label_precision)


def propensities(label_counts: Array, num_rows: int, *, a: float = 0.55, b: float = 1.5) -> Floats:
    """How likely a true label is to be noted, from how often it was (Jain et al. 2016).

    1 / (1 + c exp(-a log(count + b))) with c = (log(num_rows) - 1) (b + 1)^a: rare labels are missed more.

    Args:
        label_counts: [C] training rows of each label.
        num_rows: training rows, at least 3.
        a: 0.55 by default; 0.5 and 0.6 were published for Wikipedia and Amazon data.
        b: 1.5 by default; 0.4 and 2.6 there.

    Returns:
        [C] numbers in (0, 1].

    Raises:
        MarginsError: negative counts, or too few rows for the model.

    Example:
        >>> propensities(np.array([1, 1000]), 10000).round(3)
        array([0.109, 0.767])
    """
    counts = as_array("label_counts", label_counts).astype(np.float64)
    if counts.ndim != 1 or not (counts >= 0).all() or num_rows < 3 or counts.max(initial=0) > num_rows:
        raise MarginsError(
            "label_counts, num_rows",
            expected="[C] counts from 0 to the number of rows, at least 3 rows",
            received=f"{list(counts.shape)} and {num_rows}",
        )
    scale = (np.log(num_rows) - 1) * (b + 1) ** a
    return 1 / (1 + scale * np.exp(-a * np.log(counts + b)))


def _inverse_gain(given: Floats) -> Gain:
    if given.ndim != 1 or not ((given > 0) & (given <= 1)).all():
        raise MarginsError(
            "propensities", expected="[C] numbers in (0, 1]", received=str(given)[:60],
            fix="make them with propensities(label_counts, num_rows)",
        )  # fmt: skip
    inverse = torch.from_numpy(1 / given)
    return lambda grades, columns: is_relevant(grades, columns) * inverse[columns]


def _to_r(record: Candidates) -> tuple[Floats, Floats]:
    relevant = num_relevant(record)
    most = 1 if np.isnan(relevant).all() else int(np.nanmax(relevant))
    return relevant, shared_gains(record, most, is_relevant)


def _within(relevant: Floats, gains: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.arange(gains.shape[1]) < relevant[:, None]


def _lone_aside(record: Candidates, values: Floats) -> Floats:
    return np.where(np.isnan(num_relevant(record)), np.nan, values)


RANKINGS_AT: dict[str, tuple[str, Callable[[int], Sums]]] = {
    "precision": ("precision", precision_at),
    "recall": ("recall", recall_at),
    "ndcg": ("nDCG", ndcg_at),
    "hits": ("hits", hits_at),
}
