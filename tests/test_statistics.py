"""Statistics of paired fold scores: by hand, and by simulation of what they promise."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from margins.errors import MarginsError
from margins.evaluation.statistics import (
    corrected_t,
    correlated_posterior,
    detectable_difference,
    holm,
    rank_intervals,
    ranks,
    variance_factor,
)


def correlated_folds(num: int, folds: int, *, mean: float, ratio: float, seed: int) -> np.ndarray:
    """[num, folds] differences whose mean has the variance 1/J + ratio that the correction assumes."""
    draws = np.random.default_rng(seed)
    shared = draws.normal(0, math.sqrt(ratio), (num, 1))
    return mean + shared + draws.normal(0, 1, (num, folds))


def test_corrected_t_equals_the_formula_worked_by_hand():
    # Mean 2, standard deviation 1, J = 3, factor 1/3 + 1/2 = 5/6; with two degrees of freedom the t
    # distribution has the closed form P(|T| > t) = 1 - t / sqrt(2 + t^2).
    test = corrected_t([1.0, 2.0, 3.0], test_to_train=0.5)
    statistic = 2 / math.sqrt(5 / 6)
    assert test.mean == 2.0
    assert test.spread == 1.0
    assert test.p_value == pytest.approx(1 - statistic / math.sqrt(2 + statistic**2))
    assert test.high - test.mean == pytest.approx(4.302652729911275 * math.sqrt(5 / 6))
    assert test.mean - test.low == pytest.approx(test.high - test.mean)


def test_without_overlap_it_is_the_ordinary_paired_t_test():
    values = np.random.default_rng(1).normal(0.3, 1, 12)
    test = corrected_t(values, test_to_train=0.0)
    assert test.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (test.low, test.high) == pytest.approx((interval.low, interval.high))


def test_swapping_the_two_methods_turns_the_interval_round():
    values = np.random.default_rng(2).normal(0.3, 1, 8)
    one, other = corrected_t(values, test_to_train=0.25), corrected_t(-values, test_to_train=0.25)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)
    assert one.p_value < 1


def test_under_the_null_one_in_twenty_is_called_and_the_uncorrected_test_calls_many_more():
    folds = correlated_folds(4000, 10, mean=0.0, ratio=1 / 9, seed=3)
    called = np.mean([corrected_t(row, test_to_train=1 / 9).p_value <= 0.05 for row in folds])
    naive = np.mean([corrected_t(row, test_to_train=0.0).p_value <= 0.05 for row in folds])
    assert called == pytest.approx(0.05, abs=0.012)
    assert naive > 0.1


def test_intervals_cover_the_true_difference_as_often_as_they_say():
    folds = correlated_folds(4000, 5, mean=0.7, ratio=0.25, seed=4)
    tests = [corrected_t(row, test_to_train=0.25, confidence=0.9) for row in folds]
    assert np.mean([t.low <= 0.7 <= t.high for t in tests]) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize(("num_folds", "ratio"), [(5, 0.25), (20, 0.25), (30, 1 / 9)])
def test_the_detectable_difference_is_found_four_times_in_five(num_folds: int, ratio: float):
    size = detectable_difference(1.0, num_folds, test_to_train=ratio)
    found = {}
    for share in (0.5, 1.0):
        folds = correlated_folds(3000, num_folds, mean=share * size, ratio=ratio, seed=5)
        tests = [corrected_t(row, test_to_train=ratio) for row in folds]
        found[share] = np.mean([t.p_value <= 0.05 and t.mean > 0 for t in tests])
    assert found[1.0] == pytest.approx(0.8, abs=0.025)
    assert found[0.5] < 0.5


def test_detectable_difference_is_finite_for_two_folds_and_grows_with_the_spread():
    small, large = (detectable_difference(s, 2, test_to_train=1.0) for s in (0.01, 0.02))
    assert 0 < small < math.inf
    assert large == pytest.approx(2 * small)
    assert detectable_difference(0.0, 5, test_to_train=0.25) == 0.0


@pytest.mark.parametrize("value", [0.0, 0.02, -0.02])
def test_identical_differences_give_no_basis_for_a_verdict(value: float):
    test = corrected_t([value] * 10, test_to_train=0.25)
    assert not test.has_basis
    assert test.p_value == 1.0
    assert (test.low, test.high) == (test.mean, test.mean) == pytest.approx((value, value))


def test_differences_that_vary_by_rounding_alone_are_identical():
    assert not corrected_t([0.3 - 0.1, 0.2, 0.1 + 0.1, 0.6 - 0.4], test_to_train=0.25).has_basis
    assert corrected_t([0.2, 0.2001, 0.1999], test_to_train=0.25).has_basis


def test_holm_equals_the_steps_worked_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.5.
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_never_reorders_and_never_lowers():
    values = np.random.default_rng(6).uniform(0, 1, 30)
    adjusted = np.array(holm(values))
    assert (adjusted >= values).all()
    assert (np.diff(adjusted[np.argsort(values)]) >= 0).all()
    assert (adjusted > values).any()


def test_holm_keeps_the_chance_of_any_false_call_at_alpha_and_unadjusted_p_values_do_not():
    draws = np.random.default_rng(7).uniform(0, 1, (3000, 15))
    any_false = np.mean([min(holm(row)) <= 0.05 for row in draws])
    assert any_false == pytest.approx(0.05, abs=0.013)
    assert np.mean(draws.min(1) <= 0.05) > 0.4


def test_rank_is_one_plus_the_number_significantly_better():
    is_better = np.zeros((4, 4), bool)
    is_better[0, 3] = is_better[1, 3] = is_better[0, 2] = True
    assert ranks(is_better) == [1, 1, 2, 3]


def test_rank_intervals_equal_the_counts_worked_by_hand():
    is_better = np.zeros((4, 4), bool)
    is_better[0, 3] = is_better[1, 3] = is_better[0, 2] = True
    assert rank_intervals(is_better) == [(1, 2), (1, 3), (2, 4), (3, 4)]
    assert rank_intervals(np.zeros((3, 3), bool)) == [(1, 3)] * 3
    assert rank_intervals(np.triu(np.ones((3, 3), bool), 1)) == [(1, 1), (2, 2), (3, 3)]


def test_rank_intervals_over_holm_hold_the_true_ranks_at_once_and_over_plain_p_values_do_not():
    # Methods 0 and 1 are truly equal, 2 to 5 are truly equal and clearly worse: true ranks 1, 1, 3, 3, 3, 3.
    draws = np.random.default_rng(8)
    truth, level = [1, 1, 3, 3, 3, 3], np.array([2.0, 2.0, 0, 0, 0, 0])
    missed = np.zeros(2)
    for _ in range(300):
        found = called_better(level[:, None] + draws.normal(0, 1, (6, 8)))
        missed += [not all_hold(truth, rank_intervals(is_better)) for is_better in found]
    assert missed[0] / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)
    assert missed[1] / 300 > 0.15


def all_hold(true_ranks: list[int], intervals: list[tuple[int, int]]) -> bool:
    return all(low <= t <= high for t, (low, high) in zip(true_ranks, intervals, strict=True))


def called_better(scores: np.ndarray) -> list[np.ndarray]:
    """[k, k] which of the independent scores [k, J] is better than which, by Holm and by each pair alone."""
    pairs = list(combinations(range(len(scores)), 2))
    tests = [corrected_t(scores[i] - scores[j], test_to_train=0.0) for i, j in pairs]
    p_values = [t.p_value for t in tests]
    found = np.zeros((2, len(scores), len(scores)), bool)
    for is_better, adjusted in zip(found, (holm(p_values), p_values), strict=True):
        for (i, j), test, p in zip(pairs, tests, adjusted, strict=True):
            is_better[(i, j) if test.mean > 0 else (j, i)] = p <= 0.05
    return list(found)


def test_the_factor_is_the_one_of_the_correlation_of_two_folds():
    # 150 rows, 50 of them tested: rho = 1/3, rho / (1 - rho) = 1/2 = n_test / n_train.
    rho = 50 / 150
    assert variance_factor(6, 50 / 100) == pytest.approx(1 / 6 + rho / (1 - rho))
    assert variance_factor(10**9, 0.5) == pytest.approx(0.5)


def test_the_posterior_equals_the_formula_worked_by_hand():
    # Mean 2, standard deviation 1, J = 3, factor 5/6; with two degrees of freedom the t distribution has the
    # closed form P(T <= t) = 1/2 + t / (2 sqrt(2 + t^2)).
    def up_to(end: float) -> float:
        t = (end - 2) / math.sqrt(5 / 6)
        return 1 / 2 + t / (2 * math.sqrt(2 + t**2))

    found = correlated_posterior([1.0, 2.0, 3.0], test_to_train=0.5, rope=0.5)
    assert found.has_basis
    assert found.below == pytest.approx(up_to(-0.5))
    assert found.inside == pytest.approx(up_to(0.5) - up_to(-0.5))
    assert found.above == pytest.approx(1 - up_to(0.5))


def test_the_posterior_is_the_t_distribution_of_scipy_and_its_masses_sum_to_one():
    values = np.random.default_rng(9).normal(0.3, 1, 12)
    found = correlated_posterior(values, test_to_train=0.25, rope=0.4)
    law = stats.t(11, loc=values.mean(), scale=values.std(ddof=1) * math.sqrt(1 / 12 + 0.25))
    assert (found.below, found.above) == pytest.approx((law.cdf(-0.4), law.sf(0.4)))
    assert found.below + found.inside + found.above == pytest.approx(1)
    assert min(found.below, found.inside, found.above) > 0.05


def test_swapping_the_two_methods_swaps_the_sides_of_the_posterior():
    values = np.random.default_rng(10).normal(0.3, 1, 8)
    one, other = (correlated_posterior(v, test_to_train=0.25, rope=0.2) for v in (values, -values))
    assert (one.below, one.inside, one.above) == pytest.approx((other.above, other.inside, other.below))
    assert one.above > one.below


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_the_posterior_is_that_of_the_test_so_it_confirms_nothing(confidence: float):
    values = np.random.default_rng(11).normal(0.0, 1, 9)
    test = corrected_t(values - values.mean(), test_to_train=0.25, confidence=confidence)
    inside = correlated_posterior(values - values.mean(), test_to_train=0.25, rope=test.high).inside
    assert inside == pytest.approx(confidence)
    apart = corrected_t(values, test_to_train=0.25)
    sides = correlated_posterior(values, test_to_train=0.25, rope=0.0)
    assert sides.inside == 0.0
    assert 2 * min(sides.below, sides.above) == pytest.approx(apart.p_value)


@pytest.mark.parametrize("value", [0.0, 0.02, -0.02])
def test_identical_differences_put_no_mass_anywhere(value: float):
    found = correlated_posterior([value] * 10, test_to_train=0.25, rope=0.1)
    assert not found.has_basis
    assert (found.below, found.inside, found.above) == (0.0, 0.0, 0.0)
    assert correlated_posterior([value, value + 0.001], test_to_train=0.25, rope=0.1).has_basis


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: corrected_t([0.1], test_to_train=0.25), "J >= 2"),
        (lambda: corrected_t([0.1, math.nan], test_to_train=0.25), "finite"),
        (lambda: corrected_t([0.1, 0.2], test_to_train=-1), "ratio"),
        (lambda: corrected_t([0.1, 0.2], test_to_train=math.nan), "ratio"),
        (lambda: corrected_t([0.1, 0.2], test_to_train=0.25, confidence=1.0), "confidence"),
        (lambda: correlated_posterior([0.1], test_to_train=0.25, rope=0.1), "J >= 2"),
        (lambda: correlated_posterior([0.1, 0.2], test_to_train=-1, rope=0.1), "ratio"),
        (lambda: correlated_posterior([0.1, 0.2], test_to_train=0.25, rope=-0.1), "rope"),
        (lambda: correlated_posterior([0.1, 0.2], test_to_train=0.25, rope=math.nan), "rope"),
        (lambda: correlated_posterior([0.1, 0.2], test_to_train=0.25, rope=math.inf), "rope"),
        (lambda: rank_intervals(np.zeros((2, 3), bool)), "is_better"),
        (lambda: rank_intervals(np.ones((2, 2), bool)), "is_better"),
        (lambda: holm([0.1, 1.2]), "[0, 1]"),
        (lambda: holm([math.nan]), "[0, 1]"),
        (lambda: detectable_difference(0.1, 1, test_to_train=0.25), "J >= 2"),
        (lambda: detectable_difference(0.1, 5, test_to_train=0.25, power=0.01), "power"),
    ],
)
def test_bad_numbers_are_refused_by_name(call, word: str):
    with pytest.raises(MarginsError) as refused:
        call()
    assert word in str(refused.value)
