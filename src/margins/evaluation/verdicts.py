"""One rule from paired scores to verdicts, the same for every pair of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from margins.errors import MarginsError
from margins.evaluation.statistics import (
    Floats,
    PairedTest,
    Posterior,
    check_rope,
    corrected_t,
    correlated_posterior,
    holm,
)

Verdict = Literal["better", "worse", "practically the same", "undecided"]

PRACTICALLY = 0.95  # mass inside the region of practical equivalence that is enough to say so


@dataclass(frozen=True, kw_only=True)
class PairJudgement:
    """What the scores of two recipes say about `first - second`.

    Args:
        first: the recipe with the better mean.
        second: the other one.
        test: corrected resampled t test of the pair alone.
        posterior: masses around the region of practical equivalence; None if none was stated.
        p_holm: p value adjusted over all pairs of the comparison.
        verdict: of the first over the second.
    """

    first: str
    second: str
    test: PairedTest
    posterior: Posterior | None
    p_holm: float
    verdict: Verdict


def verdict_of(
    test: PairedTest,
    posterior: Posterior | None,
    p_holm: float,
    *,
    alpha: float,
    higher_is_better: bool,
    looked: bool = False,
) -> Verdict:
    """The verdict of the first over the second, by rules in this order.

    1. Differences without any spread are no basis: undecided.
    2. A mass of 0.95 inside the region of practical equivalence: practically the same. This wins over a
       significant difference: the region is what the user said, before the run, does not matter, and a
       difference can be both real and of that size. The mass is of this pair alone: Holm's correction does
       not reach it.
    3. `p_holm <= alpha`: better or worse, by the sign of the mean and the direction of the metric.
    4. Else undecided.

    Args:
        test: of the differences first - second.
        posterior: of the same differences; None if no region was stated: then never practically the same.
        p_holm: the p value, adjusted over all pairs.
        alpha: level that the adjusted p value must reach, in (0, 1).
        higher_is_better: direction of the metric.
        looked: whether repeats were added after results had been seen. Then better and worse are withdrawn to
            undecided: who may go on until a difference is significant finds one more often than alpha, and
            the p value does not know of it. Practically the same stays, because a posterior does not depend
            on when one stopped; but of differences at the edge of the region it is then said more often, too.

    Raises:
        MarginsError: a level or p value out of range.

    Example:
        >>> from margins.evaluation.statistics import corrected_t
        >>> test = corrected_t([0.01, 0.02, 0.03, 0.02], test_to_train=1 / 3)
        >>> verdict_of(test, None, test.p_value, alpha=0.05, higher_is_better=True)
        'better'
        >>> verdict_of(test, None, test.p_value, alpha=0.05, higher_is_better=True, looked=True)
        'undecided'
    """
    if not 0 < alpha < 1 or not 0 <= p_holm <= 1:
        raise MarginsError(
            "alpha, p_holm",
            expected="a level in (0, 1) and a p value in [0, 1]",
            received=f"{alpha}, {p_holm}",
        )
    if not test.has_basis:
        return "undecided"
    if posterior is not None and posterior.inside >= PRACTICALLY:
        return "practically the same"
    if p_holm > alpha or looked:
        return "undecided"
    return "better" if (test.mean > 0) == higher_is_better else "worse"


def judge_pairs(
    scores: Mapping[str, Floats],
    *,
    test_to_train: float,
    rope: float | None,
    confidence: float = 0.95,
    higher_is_better: bool = True,
    looked: bool = False,
) -> list[PairJudgement]:
    """Compares all m(m - 1)/2 pairs of recipes, with Holm's correction over all of them.

    Args:
        scores: for each recipe its scores [J], one an outer fold, folds in the same order for all.
        test_to_train: rows of an outer test fold over rows outside it.
        rope: half the width of the region of practical equivalence, stated before the run; None for none.
        confidence: of the intervals; better and worse hold together with this confidence.
        higher_is_better: direction of the metric.
        looked: whether repeats were added after results had been seen; see `verdict_of`.

    Returns:
        the pairs, the recipe with the better mean first; recipes of equal means as they came.

    Raises:
        MarginsError: fewer than two recipes, scores of other lengths than the first's, non-finite ones, or
            arguments out of range.

    Example:
        >>> folds = {"a": np.array([0.70, 0.72, 0.71]), "b": np.array([0.80, 0.83, 0.81])}
        >>> [(p.first, p.second, p.verdict) for p in judge_pairs(folds, test_to_train=0.5, rope=None)]
        [('b', 'a', 'better')]
    """
    _check_scores(scores)
    if rope is not None:
        check_rope(rope)
    sign = 1 if higher_is_better else -1
    order = sorted(scores, key=lambda name: -sign * float(scores[name].mean()))
    pairs = list(combinations(order, 2))
    differences = [scores[a] - scores[b] for a, b in pairs]
    tests = [corrected_t(d, test_to_train=test_to_train, confidence=confidence) for d in differences]
    found: list[PairJudgement] = []
    for (a, b), test, each, p_holm in zip(
        pairs, tests, differences, holm([t.p_value for t in tests]), strict=True
    ):
        posterior = (
            None if rope is None else correlated_posterior(each, test_to_train=test_to_train, rope=rope)
        )
        verdict = verdict_of(
            test, posterior, p_holm, alpha=1 - confidence, higher_is_better=higher_is_better, looked=looked
        )
        found.append(
            PairJudgement(
                first=a, second=b, test=test, posterior=posterior, p_holm=p_holm, verdict=verdict
            )
        )  # fmt: skip
    return found


def _check_scores(scores: Mapping[str, Floats]) -> None:
    if len(scores) < 2:
        raise MarginsError("scores", expected="at least two recipes", received=str(list(scores)))
    shape = next(iter(scores.values())).shape
    for name, each in scores.items():
        if each.shape != shape or each.ndim != 1 or len(each) < 2 or not np.isfinite(each).all():
            raise MarginsError(
                f"scores[{name!r}]",
                expected=f"[J] finite numbers, J >= 2, as many as the other recipes: {list(shape)}",
                received=f"{list(each.shape)} {each.tolist()[:5]}",
                fix="give every recipe a score on every outer fold",
            )
