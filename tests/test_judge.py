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


def judged(scores: dict[str, np.ndarray], metric: str = "accuracy"):
    return judge(scores, metric=find_metric(metric), test_to_train=1 / 9)


def verdicts(judgement) -> dict[tuple[str, str], str]:
    return {(d.first, d.second): d.verdict for d in judgement.differences}


def test_a_clear_difference_is_called_and_a_small_one_is_not():
    found = judged({"a": LEVEL + NOISE[0], "b": LEVEL + NOISE[1] + 0.1, "c": LEVEL + NOISE[2] + 0.001})
    assert found.order[0] == "b"
    assert {k: v for k, v in verdicts(found).items() if "b" in k} == {
        ("b", x): "better" for x in found.order[1:]
    }
    assert "undecided" in verdicts(found).values()
    assert found.ranks == {"b": 1, "a": 2, "c": 2}


def test_a_lower_log_loss_is_better_and_comes_first():
    found = judged({"a": LEVEL + NOISE[0] + 0.1, "b": LEVEL + NOISE[1]}, "log_loss")
    assert found.order == ["b", "a"]
    assert found.differences[0].mean < 0
    assert found.differences[0].verdict == "better"
    assert found.ranks == {"b": 1, "a": 2}


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_without_spread_there_is_no_verdict_and_it_is_said(shift: float):
    found = judged({"a": LEVEL, "b": LEVEL + shift, "c": LEVEL + NOISE[0] - 0.2})
    pair = next(d for d in found.differences if {d.first, d.second} == {"a", "b"})
    assert pair.verdict == "undecided"
    assert pair.p_holm == 1.0
    assert found.ranks["a"] == found.ranks["b"] == 1
    how = "scored exactly alike" if shift == 0 else "differed by exactly the same amount"
    assert [w for w in found.warnings if how in w and "no basis" in w]
    assert found.ranks["c"] == 3


def test_the_same_objective_under_two_names_is_called_different_in_at_most_five_of_a_hundred():
    draws = np.random.default_rng(1)
    called = 0
    for _ in range(400):
        # The covariance that the correction assumes, for a difference: shared part ratio, own part one.
        shared = draws.normal(0, np.sqrt(1 / 9 / 2), (3, 1))
        scores = LEVEL + 0.01 * (shared + draws.normal(0, np.sqrt(1 / 2), (3, 10)))
        called += "better" in verdicts(judged(dict(zip("abc", scores, strict=True)))).values()
    assert called / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def made_up(scores: dict[str, np.ndarray], metric: str = "accuracy") -> ComparisonResult:
    """A made-up result with these scores and what follows from them."""
    found = judged(scores, metric)
    template = made_up_result()
    recipes = [
        dataclasses.replace(
            template.recipes[0], name=n, title=n.title(), mean=float(scores[n].mean()),
            fold_scores=scores[n].tolist(), rank=found.ranks[n],
        )
        for n in found.order
    ]  # fmt: skip
    return dataclasses.replace(
        template, recipes=recipes, differences=found.differences, baseline="plain",
        detectable_difference=found.detectable_difference,
    )  # fmt: skip


def said(scores: dict[str, np.ndarray], metric: str = "accuracy") -> str:
    return answer_of(made_up(scores, metric), find_metric(metric))


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
