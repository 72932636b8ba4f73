"""What may be concluded from paired scores on cross-validation folds: pure functions of numbers.

Scores of different outer folds are not independent, because their training rows overlap. The corrected
resampled t test (Nadeau & Bengio 2003, "Inference for the generalization error", Machine Learning 52) adds
that dependence to the variance of the mean difference.

J is the number of outer folds times repeats. A unit is the score on one outer test fold, a mean over training
seeds. n_train counts all rows outside the outer test fold, also those that select or stop the training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from margins.data.extras import extra
from margins.errors import MarginsError

Floats = npt.NDArray[np.float64]

_ROUNDING = 1e-12  # a spread below this share of the largest difference is rounding, not variation


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A mean paired difference with its interval and two-sided p value.

    `has_basis` is False when all differences are identical: no spread, so nothing says how far the mean could
    be off. Then the interval is the point itself, the p value is 1, and no verdict may rest on it.
    """

    mean: float
    low: float
    high: float
    p_value: float
    spread: float  # standard deviation of the differences
    has_basis: bool


def variance_factor(num_differences: int, test_to_train: float) -> float:
    """The variance of the mean difference in units of the variance of one: 1/J + n_test/n_train.

    With rho = n_test / (n_train + n_test), the correlation that Nadeau & Bengio assume of two units, it is
    1/J + rho / (1 - rho). It stays above rho / (1 - rho) however many repeats are made.

    Example:
        >>> variance_factor(10, 0.25)
        0.35
    """
    return 1 / num_differences + test_to_train


def corrected_t(
    differences: Sequence[float] | Floats, *, test_to_train: float, confidence: float = 0.95
) -> PairedTest:
    """The corrected resampled t test of paired differences, one an outer fold.

    Use it for folds of one data set, repeated or not; for independent repetitions pass `test_to_train=0`,
    which gives the ordinary paired t test.

    Args:
        differences: [J] differences of the two scores, J >= 2.
        test_to_train: rows of an outer test fold over rows outside it.
        confidence: of the two-sided interval, in (0, 1).

    Returns:
        the mean, its interval and its two-sided p value.

    Raises:
        MarginsError: fewer than two differences, non-finite ones, arguments out of range.

    Example:
        >>> test = corrected_t([0.01, 0.02, 0.03, 0.02], test_to_train=1 / 3)
        >>> round(test.mean, 3), round(test.p_value, 3)
        (0.02, 0.049)
    """
    values = np.asarray(differences, np.float64)
    _check_differences(values, test_to_train, confidence)
    with extra("tool"):
        from scipy.stats import t as student
    mean, spread = _mean_and_spread(values)
    if spread == 0:
        return PairedTest(mean=mean, low=mean, high=mean, p_value=1.0, spread=0.0, has_basis=False)
    freedom = len(values) - 1
    error = spread * math.sqrt(variance_factor(len(values), test_to_train))
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * float(student.sf(abs(mean) / error, freedom))
    return PairedTest(
        mean=mean, low=mean - reach, high=mean + reach, p_value=p_value, spread=spread, has_basis=True
    )


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """How the probability of the true difference splits at a region of practical equivalence.

    The three masses sum to one. `has_basis` is False when all differences are identical: then nothing says
    how far the mean could be off, all three are 0, and nothing is claimed.
    """

    below: float  # of a difference under -rope
    inside: float  # from -rope to rope
    above: float  # over rope
    has_basis: bool


def correlated_posterior(
    differences: Sequence[float] | Floats, *, test_to_train: float, rope: float
) -> Posterior:
    """The Bayesian correlated t test of paired differences, one an outer fold.

    Use it to say that two methods are practically the same, which no p value says. Do not use it to confirm
    `corrected_t`: with its flat prior its central interval is that of the corrected t test, so it holds
    nothing that the test does not hold.

    The true difference is Student t with J - 1 degrees of freedom, its location the mean of the differences,
    its scale their standard deviation times sqrt(1/J + n_test/n_train).

    Args:
        differences: [J] differences of the two scores, J >= 2.
        test_to_train: rows of an outer test fold over rows outside it.
        rope: half the width of the region of practical equivalence, >= 0, in the unit of the scores. It says
            what matters, so it is chosen before the scores are seen. 0 leaves only the two directions.

    Returns:
        the masses below, inside and above the region.

    Raises:
        MarginsError: fewer than two differences, non-finite ones, arguments out of range.

    Example:
        >>> found = correlated_posterior([0.001, 0.002, -0.001, 0.0], test_to_train=1 / 3, rope=0.01)
        >>> round(found.inside, 3)
        0.998

    References:
        Corani & Benavoli 2015, Machine Learning 100; Benavoli, Corani, Demsar & Zaffalon 2017, JMLR 18.
    """
    values = np.asarray(differences, np.float64)
    _check_differences(values, test_to_train, confidence=0.5)
    check_rope(rope)
    with extra("tool"):
        from scipy.stats import t as student
    mean, spread = _mean_and_spread(values)
    if spread == 0:
        return Posterior(below=0.0, inside=0.0, above=0.0, has_basis=False)
    scale = spread * math.sqrt(variance_factor(len(values), test_to_train))
    law = student(len(values) - 1, loc=mean, scale=scale)
    below, up_to = (float(law.cdf(end)) for end in (-rope, rope))
    return Posterior(below=below, inside=up_to - below, above=float(law.sf(rope)), has_basis=True)


def holm(p_values: Sequence[float] | Floats) -> list[float]:
    """P values adjusted so that rejecting those up to alpha errs at all with probability alpha at most.

    Holm (1979): the k-th smallest of m is multiplied by m - k + 1, never below its predecessor, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise MarginsError("p_values", expected="[M] numbers in [0, 1]", received=str(p_values))
    order = np.argsort(values, kind="stable")
    steps = np.minimum(values[order] * np.arange(len(values), 0, -1), 1.0)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def ranks(is_better: npt.NDArray[np.bool_]) -> list[int]:
    """1 + the number of methods that are significantly better; `is_better[i, j]`: i is better than j.

    Example:
        >>> ranks(np.array([[False, False, True], [False, False, False], [False, False, False]]))
        [1, 1, 2]
    """
    return (1 + is_better.sum(0)).tolist()


def rank_intervals(is_better: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """From which rank to which each method may be: 1 + the better ones, k - the worse ones.

    The true rank is 1 + the number of methods that are truly better. If every significant direction is right,
    all intervals hold at once; where `is_better` comes from `holm` over all pairs at alpha, an error among
    these directions has probability alpha at most.

    Args:
        is_better: [k, k]; `is_better[i, j]`: i is significantly better than j.

    Raises:
        MarginsError: not square, or a pair of which each is better than the other.

    Example:
        >>> rank_intervals(np.array([[False, False, True], [False, False, False], [False, False, False]]))
        [(1, 2), (1, 3), (2, 3)]
    """
    if is_better.ndim != 2 or is_better.shape[0] != is_better.shape[1] or (is_better & is_better.T).any():
        raise MarginsError(
            "is_better",
            expected="[k, k] booleans, no pair of which each is better than the other",
            received=f"{list(is_better.shape)} {is_better.tolist()[:5]}",
        )
    lowest = len(is_better) - is_better.sum(1)
    return list(zip(ranks(is_better), lowest.tolist(), strict=True))


def detectable_difference(
    spread: float, num_differences: int, *, test_to_train: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The true difference that one two-sided corrected t test at `alpha` finds with probability `power`.

    Found means: called significant, in the right direction.

    Args:
        spread: standard deviation of the paired differences, >= 0.
        num_differences: J >= 2.
        test_to_train: rows of an outer test fold over rows outside it.
        power: wanted probability of finding it, in (alpha, 1).
        alpha: two-sided level.

    Returns:
        the difference, in the unit of `spread`.

    Example:
        >>> round(detectable_difference(0.01, 10, test_to_train=1 / 9), 4)
        0.0145
    """
    if num_differences < 2 or spread < 0 or not alpha < power < 1:
        raise MarginsError(
            "num_differences, spread, power",
            expected="J >= 2, spread >= 0, alpha < power < 1",
            received=f"{num_differences}, {spread}, {power}",
        )
    with extra("tool"):
        from scipy.optimize import brentq
        from scipy.stats import nct
        from scipy.stats import t as student
    freedom = num_differences - 1
    critical = float(student.ppf(1 - alpha / 2, freedom))

    def shortfall(shift: float) -> float:
        return float(nct.sf(critical, freedom, shift)) - power

    # Doubling finds an upper end: with one degree of freedom the critical value alone is 12.7.
    upper = 1.0
    while shortfall(upper) < 0:
        upper *= 2
    shift: Any = brentq(shortfall, 0.0, upper)
    return float(shift) * spread * math.sqrt(variance_factor(num_differences, test_to_train))


def check_rope(rope: float) -> None:
    """Refuses what is no half width of a region of practical equivalence.

    Raises:
        MarginsError: negative, infinite or not a number.
    """
    if not 0 <= rope < math.inf:
        raise MarginsError(
            "rope", expected="a finite half width >= 0, in the unit of the scores", received=str(rope)
        )


def _mean_and_spread(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation; the latter 0 where the values differ by rounding alone."""
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    return mean, spread if spread > _ROUNDING * float(np.abs(values).max()) else 0.0


def _check_differences(values: Floats, test_to_train: float, confidence: float) -> None:
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise MarginsError(
            "differences",
            expected="[J] finite numbers, J >= 2",
            received=f"{list(values.shape)} {values.tolist()[:5]}",
            fix="use at least two outer folds",
        )
    if not 0 <= test_to_train < math.inf or not 0 < confidence < 1:
        raise MarginsError(
            "test_to_train, confidence",
            expected="a ratio >= 0 and a confidence in (0, 1)",
            received=f"{test_to_train}, {confidence}",
        )
