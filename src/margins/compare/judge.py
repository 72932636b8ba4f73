"""From scores on outer folds to differences, verdicts and ranks, by rules fixed before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from margins.compare.results import Difference, Verdict
from margins.evaluation import Metric
from margins.evaluation.statistics import PairedTest, corrected_t, detectable_difference, holm, ranks

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What follows from the scores."""

    order: list[str]  # best mean first
    ranks: dict[str, int]
    differences: list[Difference]
    detectable_difference: float
    warnings: list[str]


def judge(
    scores: Mapping[str, Floats], *, metric: Metric, test_to_train: float, confidence: float = 0.95
) -> Judgement:
    """Compares all pairs: corrected resampled t tests, Holm over all of them at 1 - confidence.

    Args:
        scores: for each recipe its scores [J], one an outer fold, folds in the same order for all.
        metric: says which direction is better.
        test_to_train: rows of an outer test fold over rows outside it.
        confidence: of the intervals; the verdicts hold together with this confidence.

    Returns:
        differences `first - second` of all pairs, the recipe with the better mean first.
    """
    order = sorted(scores, key=lambda name: -metric.improvement(float(scores[name].mean())))
    pairs = list(combinations(order, 2))
    tests = [
        corrected_t(scores[a] - scores[b], test_to_train=test_to_train, confidence=confidence)
        for a, b in pairs
    ]
    adjusted = holm([t.p_value for t in tests])
    differences: list[Difference] = []
    is_better = np.zeros((len(order), len(order)), bool)
    for (a, b), test, p_holm in zip(pairs, tests, adjusted, strict=True):
        verdict = _verdict(test, p_holm, metric, alpha=1 - confidence)
        is_better[order.index(a), order.index(b)] = verdict == "better"
        is_better[order.index(b), order.index(a)] = verdict == "worse"
        differences.append(
            Difference(
                first=a, second=b, mean=test.mean, low=test.low, high=test.high,
                p_value=test.p_value, p_holm=p_holm, verdict=verdict,
            )
        )  # fmt: skip
    num_folds = len(scores[order[0]])
    return Judgement(
        order=order,
        ranks=dict(zip(order, ranks(is_better), strict=True)),
        differences=differences,
        detectable_difference=_detectable(tests, num_folds, test_to_train, confidence),
        warnings=_without_basis(differences, tests),
    )


def _verdict(test: PairedTest, p_holm: float, metric: Metric, *, alpha: float) -> Verdict:
    if not test.has_basis or p_holm > alpha:
        return "undecided"
    return "better" if metric.improvement(test.mean) > 0 else "worse"


def _detectable(tests: list[PairedTest], num_folds: int, test_to_train: float, confidence: float) -> float:
    """For the median spread of the pairs: one recipe that failed must not speak for all."""
    spreads = [t.spread for t in tests if t.has_basis]
    spread = float(np.median(spreads)) if spreads else 0.0
    # A verdict must pass Holm's correction, whose first step is this strict.
    alpha = (1 - confidence) / len(tests)
    return detectable_difference(spread, num_folds, test_to_train=test_to_train, alpha=alpha)


def _without_basis(differences: list[Difference], tests: list[PairedTest]) -> list[str]:
    sentences: list[str] = []
    for difference, test in zip(differences, tests, strict=True):
        if test.has_basis:
            continue
        how = "scored exactly alike" if test.mean == 0 else "differed by exactly the same amount"
        sentences.append(
            f"{difference.first} and {difference.second} {how} on every outer fold; without any spread there "
            "is no basis for a verdict on them."
        )
    return sentences
