"""Verdicts, ranks and the answer in words, from made-up scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from made_up_results import made_up_result
from margins.compare import ComparisonResult
from margins.compare.answer import answer_of
from margins.compare.judge import judge
from margins.evaluation import find_metric

LEVEL = np.linspace(0.6, 0.7, 10)
NOISE = np.random.default_rng(0).normal(0, 0.004, (4, 10))


def judged(scores: dict[str, np.ndarray], metric: str = "accuracy", **more):
    return judge(scores, metric=find_metric(metric), test_to_train=1 / 9, **more)


def verdicts(judgement) -> dict[tuple[str, str], str]:
    return {(d.first, d.second): d.verdict for d in judgement.differences}


def test_a_clear_difference_is_called_and_a_small_one_is_not():
    found = judged({"a": LEVEL + NOISE[0], "b": LEVEL + NOISE[1] + 0.1, "c": LEVEL + NOISE[2] + 0.001})
    assert found.order[0] == "b"
    assert {k: v for k, v in verdicts(found).items() if "b" in k} == {
        ("b", x): "better" for x in found.order[1:]
    }
    assert "undecided" in verdicts(found).values()
    assert found.ranks == {"b": (1, 1), "a": (2, 3), "c": (2, 3)}


def test_a_lower_log_loss_is_better_and_comes_first():
    found = judged({"a": LEVEL + NOISE[0] + 0.1, "b": LEVEL + NOISE[1]}, "log_loss")
    assert found.order == ["b", "a"]
    assert found.differences[0].mean < 0
    assert found.differences[0].verdict == "better"
    assert found.ranks == {"b": (1, 1), "a": (2, 2)}


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_without_spread_there_is_no_verdict_and_it_is_said(shift: float):
    found = judged({"a": LEVEL, "b": LEVEL + shift, "c": LEVEL + NOISE[0] - 0.2})
    pair = next(d for d in found.differences if {d.first, d.second} == {"a", "b"})
    assert pair.verdict == "undecided"
    assert pair.p_holm == 1.0
    assert found.ranks["a"] == found.ranks["b"] == (1, 2)
    how = "scored exactly alike" if shift == 0 else "differed by exactly the same amount"
    assert [w for w in found.warnings if how in w and "no basis" in w]
    assert found.ranks["c"] == (3, 3)


def test_the_same_objective_under_two_names_is_called_different_in_at_most_five_of_a_hundred():
    draws = np.random.default_rng(1)
    called = 0
    for _ in range(400):
        # The covariance that the correction assumes, for a difference: shared part ratio, own part one.
        shared = draws.normal(0, np.sqrt(1 / 9 / 2), (3, 1))
        scores = LEVEL + 0.01 * (shared + draws.normal(0, np.sqrt(1 / 2), (3, 10)))
        called += "better" in verdicts(judged(dict(zip("abc", scores, strict=True)))).values()
    assert called / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def made_up(scores: dict[str, np.ndarray], metric: str = "accuracy", **asked) -> ComparisonResult:
    """A made-up result with these scores and what follows from them."""
    more = {key: value for key, value in asked.items() if key in ("rope", "looked")}
    found = judged(scores, metric, **more)
    template = dataclasses.replace(made_up_result(), left=None, **asked)
    recipes = [
        dataclasses.replace(
            template.recipes[0], name=n, title=n.title(), mean=float(scores[n].mean()),
            fold_scores=scores[n].tolist(), rank=found.ranks[n][0], rank_low=found.ranks[n][1],
        )
        for n in found.order
    ]  # fmt: skip
    return dataclasses.replace(
        template, recipes=recipes, differences=found.differences, baseline="plain",
        detectable_difference=found.detectable_difference,
    )  # fmt: skip


def said(scores: dict[str, np.ndarray], metric: str = "accuracy", **asked) -> str:
    return answer_of(made_up(scores, metric, **asked), find_metric(metric))


def test_the_answer_names_winner_size_interval_and_who_else_cannot_be_told_apart():
    text = said(
        {
            "plain": LEVEL + NOISE[0],
            "good": LEVEL + NOISE[1] + 0.1,
            "alike": LEVEL + NOISE[2] + 0.099,
            "poor": LEVEL + NOISE[3] - 0.1,
        }
    )
    assert text.split(" beat Plain")[0] in ("Good", "Alike")
    assert "95 % interval of this pair alone +0.0" in text
    assert "So did" in text
    assert "do not tell it apart from" in text
    assert "Poor" not in text


def test_that_nothing_beat_the_baseline_is_a_full_answer():
    text = said({"plain": LEVEL + NOISE[0], "same": LEVEL + NOISE[1] + 0.004, "poor": LEVEL + NOISE[3] - 0.1})
    assert text.startswith("Nothing was shown to beat Plain (accuracy 0.65")
    assert "the highest mean is that of Same" in text
    assert "It beat Poor." in text
    assert "four times in five" in text


def test_a_leading_baseline_is_told_with_the_next_and_lower_is_better_where_it_is():
    text = said({"plain": LEVEL + NOISE[0] + 0.003, "same": LEVEL + NOISE[1] - 0.002})
    assert "the next is Same, a difference of \u2212" in text
    text = said({"plain": LEVEL + NOISE[0], "low": LEVEL + NOISE[1] - 0.1}, "log_loss")
    assert text.startswith("Low beat Plain (log loss")
    text = said({"plain": LEVEL + NOISE[0], "low": LEVEL + NOISE[1] - 0.002}, "log_loss")
    assert "the lowest mean is that of Low" in text


SMALL = {"plain": LEVEL + NOISE[0] / 10, "same": LEVEL + NOISE[1] / 10 + 0.002}


def test_differences_that_were_said_not_to_matter_are_practically_the_same_however_certain():
    (sure,) = judged(SMALL).differences
    assert sure.verdict == "better"
    assert sure.same is None
    (same,) = judged(SMALL, rope=0.01).differences
    assert same.verdict == "practically the same"
    assert same.same > 0.95
    assert judged(SMALL, rope=0.01).ranks == {"same": (1, 2), "plain": (1, 2)}
    assert "Practically the same, within 0.01: Same." in said(SMALL, rope=0.01)


def test_evidence_that_was_added_after_looking_withdraws_better_and_the_answer_says_so():
    scores = {"plain": LEVEL + NOISE[0], "good": LEVEL + NOISE[1] + 0.1}
    assert said(scores).startswith("Good beat Plain")
    (withdrawn,) = judged(scores, looked=True).differences
    assert withdrawn.verdict == "undecided"
    text = said(scores, looked=True)
    assert text.startswith("Nothing was shown to beat Plain")
    assert text.endswith("after results had been seen, so no recipe is called better.")


def test_the_answer_ends_with_what_the_report_rows_say_where_they_were_asked():
    scores = {"plain": LEVEL + NOISE[0], "good": LEVEL + NOISE[1] + 0.1}
    left = made_up_result().left
    text = answer_of(dataclasses.replace(made_up(scores), left=left), find_metric("accuracy"))
    assert "On the rows kept to report, opened once, the difference to the baseline is +0.0297" in text
