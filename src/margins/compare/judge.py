"""From scores on outer folds to differences, verdicts and ranks, by rules fixed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margins.compare.results import Difference
from margins.evaluation import Metric
from margins.evaluation.statistics import detectable_difference, rank_intervals
from margins.evaluation.verdicts import PairJudgement, judge_pairs

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What follows from the scores."""

    order: list[str]  # best mean first
    ranks: dict[str, tuple[int, int]]  # 1 + the better ones, and the number that are not worse
    differences: list[Difference]
    detectable_difference: float
    warnings: list[str]


def judge(
    scores: Mapping[str, Floats],
    *,
    metric: Metric,
    test_to_train: float,
    rope: float | None = None,
    confidence: float = 0.95,
    looked: bool = False,
) -> Judgement:
    """Compares all pairs: corrected resampled t tests, Holm over all of them at 1 - confidence.

    Args:
        scores: for each recipe its scores [J], one an outer fold, folds in the same order for all.
        metric: says which direction is better.
        test_to_train: rows of an outer test fold over rows outside it.
        rope: differences up to this size do not matter; None leaves open which do.
        confidence: of the intervals; the verdicts hold together with this confidence.
        looked: whether repeats were added after results had been seen.

    Returns:
        differences `first - second` of all pairs, the recipe with the better mean first.
    """
    pairs = judge_pairs(
        scores, test_to_train=test_to_train, rope=rope, confidence=confidence,
        higher_is_better=metric.higher_is_better, looked=looked,
    )  # fmt: skip
    order = sorted(scores, key=lambda name: -metric.improvement(float(scores[name].mean())))
    is_better = np.zeros((len(order), len(order)), bool)
    for pair in pairs:
        a, b = order.index(pair.first), order.index(pair.second)
        is_better[a, b], is_better[b, a] = pair.verdict == "better", pair.verdict == "worse"
    return Judgement(
        order=order,
        ranks=dict(zip(order, rank_intervals(is_better), strict=True)),
        differences=[_difference(pair) for pair in pairs],
        detectable_difference=_detectable(pairs, len(scores[order[0]]), test_to_train, confidence),
        warnings=_without_basis(pairs),
    )


def _difference(pair: PairJudgement) -> Difference:
    test, posterior = pair.test, pair.posterior
    return Difference(
        first=pair.first, second=pair.second, mean=test.mean, low=test.low, high=test.high,
        p_value=test.p_value, p_holm=pair.p_holm, verdict=pair.verdict,
        same=None if posterior is None or not posterior.has_basis else posterior.inside,
    )  # fmt: skip


def _detectable(
    pairs: Sequence[PairJudgement], num_folds: int, test_to_train: float, confidence: float
) -> float:
    """For the median spread of the pairs: one recipe that failed must not speak for all."""
    spreads = [pair.test.spread for pair in pairs if pair.test.has_basis]
    spread = float(np.median(spreads)) if spreads else 0.0
    # A verdict must pass Holm's correction, whose first step is this strict.
    alpha = (1 - confidence) / len(pairs)
    return detectable_difference(spread, num_folds, test_to_train=test_to_train, alpha=alpha)


def _without_basis(pairs: Sequence[PairJudgement]) -> list[str]:
    sentences: list[str] = []
    for pair in pairs:
        if pair.test.has_basis:
            continue
        how = "scored exactly alike" if pair.test.mean == 0 else "differed by exactly the same amount"
        sentences.append(
            f"{pair.first} and {pair.second} {how} on every outer fold; without any spread there "
            "is no basis for a verdict on them."
        )
    return sentences
