"""The rule from paired scores to verdicts, each branch of it, and the judgement of all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from margins.errors import MarginsError
from margins.evaluation.statistics import PairedTest, Posterior, corrected_t, correlated_posterior, holm
from margins.evaluation.verdicts import judge_pairs, verdict_of

LEVEL = np.linspace(0.6, 0.7, 10)
NOISE = np.random.default_rng(0).normal(0, 0.004, (4, 10))
APART = {"a": LEVEL + NOISE[0], "b": LEVEL + NOISE[1] + 0.1, "c": LEVEL + NOISE[2] + 0.001}


def made_up_test(mean: float, *, has_basis: bool = True) -> PairedTest:
    return PairedTest(
        mean=mean, low=mean - 1, high=mean + 1, p_value=0.01, spread=0.1, has_basis=has_basis
    )  # fmt: skip


def made_up_posterior(inside: float) -> Posterior:
    return Posterior(below=0.0, inside=inside, above=1 - inside, has_basis=True)


@pytest.mark.parametrize(
    ("mean", "inside", "p_holm", "higher_is_better", "verdict"),
    [
        (0.2, None, 0.05, True, "better"),
        (-0.2, None, 0.05, True, "worse"),
        (0.2, None, 0.05, False, "worse"),
        (-0.2, None, 0.05, False, "better"),
        (0.2, None, 0.051, True, "undecided"),
        (0.2, 0.949, 0.05, True, "better"),
        (0.2, 0.95, 0.05, True, "practically the same"),
        (0.2, 0.95, 0.9, False, "practically the same"),
        (0.2, 0.5, 0.9, True, "undecided"),
    ],
)
def test_the_verdict_follows_from_direction_level_and_mass(mean, inside, p_holm, higher_is_better, verdict):
    posterior = None if inside is None else made_up_posterior(inside)
    found = verdict_of(made_up_test(mean), posterior, p_holm, alpha=0.05, higher_is_better=higher_is_better)
    assert found == verdict


def test_without_basis_nothing_is_said_whatever_the_numbers():
    test = made_up_test(0.2, has_basis=False)
    assert verdict_of(test, made_up_posterior(1.0), 0.0, alpha=0.05, higher_is_better=True) == "undecided"


@pytest.mark.parametrize("mean", [0.2, -0.2])
def test_after_looking_better_and_worse_are_withdrawn_and_the_same_stays(mean: float):
    def after(posterior: Posterior | None) -> str:
        return verdict_of(
            made_up_test(mean), posterior, 0.001, alpha=0.05, higher_is_better=True, looked=True
        )

    assert after(None) == after(made_up_posterior(0.5)) == "undecided"
    assert after(made_up_posterior(0.99)) == "practically the same"


def test_a_significant_difference_of_a_size_that_does_not_matter_is_practically_the_same():
    scores = {"a": LEVEL + 0.003, "b": LEVEL + NOISE[0] / 10}
    verdicts = {
        rope: judge_pairs(scores, test_to_train=1 / 9, rope=rope)[0].verdict for rope in (None, 0.0, 0.01)
    }
    assert verdicts == {None: "better", 0.0: "better", 0.01: "practically the same"}


def test_all_pairs_are_judged_with_holm_over_all_of_them_better_mean_first():
    found = judge_pairs(APART, test_to_train=1 / 9, rope=0.05)
    assert [p.first + p.second for p in found] == ["bc", "ba", "ca"]
    adjusted = holm([p.test.p_value for p in found])
    for pair, p_holm in zip(found, adjusted, strict=True):
        differences = APART[pair.first] - APART[pair.second]
        assert pair.test == corrected_t(differences, test_to_train=1 / 9)
        assert pair.posterior == correlated_posterior(differences, test_to_train=1 / 9, rope=0.05)
        assert pair.p_holm == p_holm
        assert pair.test.mean > 0
    assert [p.verdict for p in found] == ["better", "better", "practically the same"]
    assert adjusted != [p.test.p_value for p in found]


def test_holm_can_take_back_what_one_pair_alone_would_call():
    # A p value of 0.048 for one pair: enough alone, not as one of six.
    steps = np.array([0.8, 1.2, 0.5, 1.9, 1.4, -0.1])
    alone = judge_pairs({"a": LEVEL[:6] + 0.01 * steps, "b": LEVEL[:6]}, test_to_train=0.1, rope=None)
    assert alone[0].verdict == "better"
    noise = np.random.default_rng(3).normal(0, 0.05, (2, 6))
    four = {
        "a": LEVEL[:6] + 0.01 * steps,
        "b": LEVEL[:6],
        "c": LEVEL[:6] + noise[0],
        "d": LEVEL[:6] + noise[1],
    }
    judged = judge_pairs(four, test_to_train=0.1, rope=None)
    pair = next(p for p in judged if {p.first, p.second} == {"a", "b"})
    assert pair.test == alone[0].test
    assert pair.verdict == "undecided"


def test_lower_is_better_turns_the_order_and_not_the_verdict():
    found = judge_pairs(
        {"a": LEVEL + NOISE[0] + 0.1, "b": LEVEL + NOISE[1]}, test_to_train=1 / 9, rope=None,
        higher_is_better=False,
    )  # fmt: skip
    assert (found[0].first, found[0].second, found[0].verdict) == ("b", "a", "better")
    assert found[0].test.mean < 0
    assert found[0].posterior is None


def test_equal_means_keep_their_order_and_the_same_scores_are_undecided():
    for names in ("abc", "cab"):
        found = judge_pairs(dict.fromkeys(names, LEVEL), test_to_train=1 / 9, rope=0.1)
        assert [p.first + p.second for p in found] == [names[:2], names[::2], names[1:]]
        assert [p.verdict for p in found] == ["undecided"] * 3
        assert [p.p_holm for p in found] == [1.0] * 3


def test_a_stricter_confidence_widens_the_interval_and_needs_a_smaller_p_value():
    scores = {"a": LEVEL + np.tile([0.001, 0.004], 5), "b": LEVEL}
    lax, strict = (
        judge_pairs(scores, test_to_train=1 / 9, rope=None, confidence=c)[0] for c in (0.95, 0.999)
    )
    assert (lax.verdict, strict.verdict) == ("better", "undecided")
    assert strict.test.low < lax.test.low
    assert strict.p_holm == lax.p_holm


def test_looking_withdraws_every_direction():
    plain = judge_pairs(APART, test_to_train=1 / 9, rope=None)
    looked = judge_pairs(APART, test_to_train=1 / 9, rope=None, looked=True)
    assert "better" in [p.verdict for p in plain]
    assert [p.verdict for p in looked] == ["undecided"] * 3
    assert [p.test for p in looked] == [p.test for p in plain]


@pytest.mark.parametrize(
    ("scores", "settings", "word"),
    [
        ({"a": LEVEL}, {}, "at least two recipes"),
        ({"a": LEVEL, "b": LEVEL[:9]}, {}, "scores['b']"),
        ({"a": LEVEL, "b": LEVEL[:, None]}, {}, "scores['b']"),
        ({"a": LEVEL, "b": np.where(LEVEL > 0.65, np.nan, LEVEL)}, {}, "scores['b']"),
        ({"a": LEVEL[:1], "b": LEVEL[:1]}, {}, "scores['a']"),
        (APART, {"rope": -0.1}, "rope"),
        (APART, {"rope": math.nan}, "rope"),
        (APART, {"test_to_train": -1}, "test_to_train"),
        (APART, {"confidence": 0.0}, "confidence"),
    ],
)
def test_bad_scores_and_settings_are_refused_by_name(scores: dict, settings: dict, word: str):
    with pytest.raises(MarginsError) as refused:
        judge_pairs(scores, **{"test_to_train": 1 / 9, "rope": None, **settings})
    assert word in str(refused.value)


@pytest.mark.parametrize(("alpha", "p_holm"), [(0.0, 0.5), (1.0, 0.5), (0.05, 1.1), (0.05, math.nan)])
def test_a_level_or_p_value_out_of_range_is_refused(alpha: float, p_holm: float):
    with pytest.raises(MarginsError, match="alpha, p_holm"):
        verdict_of(made_up_test(0.1), None, p_holm, alpha=alpha, higher_is_better=True)
