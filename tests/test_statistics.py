"""Statistics of paired fold scores: by hand, and by simulation of what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from margins.errors import MarginsError
from margins.evaluation.statistics import corrected_t, detectable_difference, holm, ranks


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


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: corrected_t([0.1], test_to_train=0.25), "J >= 2"),
        (lambda: corrected_t([0.1, math.nan], test_to_train=0.25), "finite"),
        (lambda: corrected_t([0.1, 0.2], test_to_train=-1), "ratio"),
        (lambda: corrected_t([0.1, 0.2], test_to_train=0.25, confidence=1.0), "confidence"),
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
