"""Candidates do what their titles say, the shortlist follows the data, a search stays in its space."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from made_up_comparisons import quick
from made_up_training import select_rows, trainer
from margins.compare import Candidate, Roles, all_candidates, find_candidate, read_candidates
from margins.compare.candidates.catalogue import BASELINES
from margins.compare.candidates.shortlist import Findings, findings_of, shortlist
from margins.compare.candidates.spaces import Choice, Span, laid_over, suggestion_of
from margins.compare.planning import shared_recipe
from margins.compare.problem.rows import compared_rows
from margins.compare.trials.budget import Budget
from margins.data import read_frame
from margins.data.columns import Columns
from margins.errors import MarginsError
from margins.evaluation import find_metric
from margins.targets import Targets
from margins.training import Objective, Recipe
from margins.training.objective import StepTargets
from margins.training.predicting import outputs_of, score_of

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2]])
LABELS = torch.tensor([0, 2])
COUNTS = torch.tensor([16, 4, 0])
FOUND = Findings(
    task="classes", num_rows=1000, num_classes=5, imbalance=1.2, rows_a_class=2000.0, num_copies=0,
    contradicted=0.0, labels_a_row=1.0,
)  # fmt: skip
KINDS = {"classes": "label", "label_sets": "label_set", "values": "value", "matches": "label"}
WORDS = {"name": "transformer_text"}
METRICS = {"classes": "accuracy", "label_sets": "macro_f1", "values": "rmse", "matches": "map@r"}


def shared(task: str, **changes) -> Recipe:
    kind = "text" if changes.get("encoder") == WORDS else "numeric"
    columns = Columns(inputs={"a": kind}, target="y", target_kind=KINDS[task])
    return shared_recipe(columns, METRICS[task], {"task": task, **changes})


def listed(metric: str = "macro_f1", **found) -> list[str]:
    return [c.name for c in shortlist(dataclasses.replace(FOUND, **found), find_metric(metric)).candidates]


@pytest.mark.parametrize("task", list(BASELINES))
def test_the_ladder_starts_plain_then_with_a_tuned_cut_then_adjusted(task: str):
    first = all_candidates(task)[0]
    assert first.name == BASELINES[task]
    if task == "classes":
        assert first.changes == {}
        assert listed()[:3] == ["cross_entropy", "cross_entropy_tuned", "logit_adjusted"]
    if task == "label_sets":
        assert first.recipe(shared(task)).decisions.thresholds is None
        names = ["binary_cross_entropy", "binary_cross_entropy_tuned", "labels_adjusted"]
        assert listed(task="label_sets")[:3] == names


def test_what_is_in_the_data_decides_who_takes_part_and_why():
    plain = listed()
    assert "class_margins" not in plain
    assert "generalized_cross_entropy" not in plain
    assert "class_margins" in listed(imbalance=40.0)
    assert "generalized_cross_entropy" in listed(num_copies=100, contradicted=0.3)
    assert "label_smoothing" in listed(num_classes=77)
    assert ("mann_whitney" in listed("auroc"), "mann_whitney" in plain) == (True, False)
    assert ("any_f1" in plain, "any_f1" in listed("accuracy")) == (True, False)
    assert ("nested_levels" in listed(has_order=True), "nested_levels" in plain) == (True, False)
    assert "ens_loss" in listed("auroc", num_classes=2)
    assert "z_loss" in listed("auroc", num_classes=6000)
    assert "labels_dice" in listed(task="label_sets")
    assert "labels_margins" in listed(task="label_sets", imbalance=40.0)
    assert listed("map@r", task="matches")[-1] == "disposable_head"
    found = shortlist(dataclasses.replace(FOUND, imbalance=40.0), find_metric("macro_f1"))
    margins = next(c for c in found.candidates if c.name == "class_margins")
    assert margins.why.endswith("Here: the largest class has 40 times the rows of the smallest.")
    assert found.left_out["mixup"] == "nothing in these data speaks for it: few classes, with many rows each"
    taking_part = {c.name for c in found.candidates}
    assert taking_part | set(found.left_out) == {c.name for c in all_candidates("classes")}
    assert not taking_part & set(found.left_out)


def test_a_tuned_cut_takes_no_part_where_the_metric_judges_no_decisions():
    assert "cross_entropy_tuned" not in listed("auroc")
    assert "cross_entropy_tuned" in listed("balanced_accuracy")


def test_findings_are_those_of_the_rows():
    frame = read_frame(
        {
            "text": ["one"] * 4 + [f"text {i}" for i in range(26)],
            "y": ["a", "a", "b", "a"] + ["a"] * 20 + ["b"] * 6,
        }
    )
    found = findings_of(compared_rows(frame, Roles(target="y"), report_share=0), shared("classes"))
    assert (found.num_rows, found.num_classes, found.num_copies) == (30, 2, 3)
    assert found.imbalance == pytest.approx(23 / 7)
    assert found.contradicted == pytest.approx(1 / 3)
    assert found.rows_a_class == 15
    assert (found.has_tokens, found.is_fixed) == (False, False)


@pytest.mark.parametrize(
    ("encoder", "has_tokens", "is_fixed"),
    [
        (WORDS, True, False),
        ({**WORDS, "pooling": "cls"}, False, False),
        ({"name": "embeddings"}, False, True),
        ({"name": "embeddings", "depth": 1}, False, False),
    ],
)
def test_what_the_encoder_gives_decides_which_heads_take_part(encoder, has_tokens, is_fixed):
    rows = compared_rows(
        read_frame({"y": ["a", "b"] * 20, "x": [f"text {i}" for i in range(40)]}), Roles(target="y")
    )
    found = findings_of(rows, Recipe(task="classes", encoder=encoder, metric="accuracy"))
    assert (found.has_tokens, found.is_fixed) == (has_tokens, is_fixed)
    labels = shortlist(dataclasses.replace(found, task="label_sets"), find_metric("macro_f1"))
    assert ("label_attention" in [c.name for c in labels.candidates]) == has_tokens
    classes = shortlist(dataclasses.replace(found, rows_a_class=20.0), find_metric("auroc"))
    assert ("naive_bayes_start" in [c.name for c in classes.candidates]) == is_fixed
    many = shortlist(dataclasses.replace(found, rows_a_class=21.0), find_metric("auroc"))
    assert "naive_bayes_start" in many.left_out


def test_rows_kept_to_report_decide_nothing_of_who_takes_part():
    columns = {"x": [float(i) for i in range(60)], "y": ["a", "b"] * 20 + ["a"] * 20}
    frame = read_frame({**columns, "split": ["train"] * 40 + ["test"] * 20})
    rows = compared_rows(frame, Roles(target="y", inputs=["x"], split="split"))
    found = findings_of(rows, shared("classes"))
    assert (found.num_rows, found.imbalance) == (40, 1.0)


def test_named_candidates_take_part_once_after_the_baseline():
    metric = find_metric("accuracy")
    found = shortlist(FOUND, metric, ["focal", "cross_entropy", "focal"])
    assert [c.name for c in found.candidates] == ["cross_entropy", "focal"]
    with pytest.raises(MarginsError, match="did you mean focal"):
        shortlist(FOUND, metric, ["focl"])
    for names in ([], ["cross_entropy"]):
        with pytest.raises(MarginsError, match="at least one to compare"):
            shortlist(FOUND, metric, names)
    own = Candidate(name="focal", title="Mine", changes={"optimizer": {"weight_decay": 0.1}})
    with pytest.raises(MarginsError, match="'focal' twice"):
        shortlist(FOUND, metric, [own, "focal"])


def test_a_file_of_candidates_is_read_and_compared_and_a_wrong_entry_is_told(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "wide:\n  title: A wide one\n  changes: {encoder: {width: 9}}\n"
        "  space:\n    encoder.dropout: {kind: span, low: 0.0, high: 0.5}\n"
    )
    (wide,) = read_candidates(path)
    assert (wide.title, wide.settings) == ("A wide one", {"encoder.width": 9})
    result = quick(candidates=[wide], budget="2")
    (found,) = [r for r in result.recipes if r.name == "wide"]
    assert set(found.space) == {"encoder.dropout", "optimizer.learning_rate", "optimizer.weight_decay"}
    for text, words in (
        ("wide: 3", "title, changes and space"), ("wide: {chnges: {}}", "did you mean changes"),
        ("wide: {changes: {encoder: {wdth: 9}}}", "did you mean width"),
        ("wide: {space: {encoder.dropout: {kind: span, low: 1, high: 0.5}}}", "low < high"),
        ("wide: {space: {encoder.dropot: {kind: span, low: 0.1, high: 0.5}}}", "'encoder.dropot'"),
        ("wide: {space: {encoder.dropout: {kind: span, low: 0.1, high: 5}}}", "encoder.tabular.dropout"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(MarginsError) as refused:
            quick(candidates=read_candidates(path))
        assert words in str(refused.value)


@pytest.mark.parametrize("candidate", all_candidates(), ids=lambda c: c.name)
def test_every_candidate_makes_a_recipe_at_both_ends_of_its_space(candidate: Candidate):
    for task in candidate.tasks:
        recipe = shared(task, **({"encoder": WORDS} if candidate.name == "label_attention" else {}))
        if candidate.metrics and find_metric(METRICS[task]).kind not in candidate.metrics:
            kinds = {"ranking": "auroc", "f1": "macro_f1", "candidates": "ndcg@10"}
            recipe = recipe.changed(metric=kinds[candidate.metrics[0]])
        assert candidate.recipe(recipe).task == task
        for path, dimension in candidate.whole_space.items():
            ends = dimension.options if isinstance(dimension, Choice) else (dimension.low, dimension.high)
            made = [candidate.recipe(recipe, {path: value}) for value in ends]
            assert made[0] != made[1]
    assert candidate.title
    assert candidate.why.endswith(".")


def test_titles_are_all_different():
    assert len({c.title for c in all_candidates()}) == len(all_candidates()) >= 20


def test_a_suggestion_depends_on_recipe_place_number_and_seed_alone():
    space = {
        "a": Span(low=0.01, high=100, log=True),
        "b": Choice(options=(1, None, "x")),
        "c": Span(low=0, high=1),
    }

    def drawn(recipe: str = "focal", place: str = "outer fold 1", number: int = 1, seed: int = 0):
        return suggestion_of(space, recipe, place, number, seed)

    torch.manual_seed(1)
    first = drawn()
    torch.manual_seed(2)
    drawn(number=7)
    assert drawn() == first
    others = [drawn("other"), drawn(place="outer fold 2"), drawn(number=2), drawn(seed=1)]
    assert all(other != first for other in others)
    many = [drawn(number=n) for n in range(1, 200)]
    assert {m["b"] for m in many} == {1, None, "x"}
    # Ratios count alike: as many below 1 as above.
    assert 70 < sum(m["a"] < 1 for m in many) < 130
    assert all(0.01 <= m["a"] <= 100 and 0 <= m["c"] <= 1 for m in many)
    assert drawn(number=0) == {}


def test_values_of_a_search_are_laid_over_the_recipe_and_no_other_key_moves():
    recipe = shared("classes").model_dump()
    space = {"optimizer.learning_rate": Span(low=0.5, high=2, times_default=True)}
    laid = laid_over(recipe, space, {"optimizer.learning_rate": 2.0})
    assert laid["optimizer"]["learning_rate"] == 2 * recipe["optimizer"]["learning_rate"]
    laid["optimizer"]["learning_rate"] = recipe["optimizer"]["learning_rate"]
    assert laid == recipe
    with pytest.raises(MarginsError, match=r"a key of the recipe, got 'optimizer\.rate'"):
        laid_over(recipe, {"optimizer.rate": Span(low=0, high=1)}, {"optimizer.rate": 0.5})


@pytest.mark.parametrize("text", ["2", "3", "standard", "thorough", "8:40", "24:300", "5:11"])
def test_a_budget_keeps_to_its_trials_and_passes_and_is_the_same_for_all(text: str):
    budget = Budget.read(text)
    for epochs in (1, 3, 30, 100):
        rungs = budget.rungs(epochs)
        assert rungs[0][0] == budget.trials
        assert all(1 <= each <= epochs for _, each in rungs)
        if budget.passes is not None:
            assert budget.most_passes(epochs) <= budget.passes
        assert rungs == sorted(rungs, key=lambda rung: -rung[0])
    assert Budget.read("quick").rungs(30) == []


def cross_entropy_by_hand(shift: list[list[float]]) -> float:
    scores = (LOGITS + torch.tensor(shift)).double()
    rows = [
        math.log(sum(map(math.exp, s))) - s[y] for s, y in zip(scores.tolist(), LABELS.tolist(), strict=True)
    ]
    return sum(rows) / 2


def value_of(name: str, logits: torch.Tensor = LOGITS) -> float:
    targets = Targets.of_classes(LABELS, 3)
    step = StepTargets(targets, targets, 0, torch.arange(2))
    share = Objective(find_candidate(name, "classes").recipe(shared("classes")).objective, COUNTS)(
        logits, logits, step
    )
    return (share.total / share.denominator).item()


def test_the_baseline_is_plain_cross_entropy():
    assert value_of("cross_entropy") == pytest.approx(cross_entropy_by_hand([[0.0] * 3] * 2))


def test_logit_adjustment_adds_the_log_prior_and_an_empty_class_counts_as_one_row():
    prior = [math.log(n / 21) for n in (16, 4, 1)]
    assert value_of("logit_adjusted") == pytest.approx(cross_entropy_by_hand([prior] * 2))


def test_class_margins_fall_with_the_fourth_root_of_the_count_and_meet_the_own_class_alone():
    # Fourth roots of 16, 4, 1 are 2, 1.414, 1; the rarest class has the largest margin, 1.
    shift = [[-0.5, 0.0, 0.0], [0.0, 0.0, -1.0]]
    assert value_of("class_margins") == pytest.approx(cross_entropy_by_hand(shift))


def test_label_smoothing_moves_a_tenth_of_the_label_to_all_classes():
    expected = nn.functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1).item()
    assert value_of("label_smoothing") == pytest.approx(expected)


def test_focal_and_generalised_cross_entropy_equal_their_formulas():
    p = LOGITS.softmax(1)[torch.arange(2), LABELS].tolist()
    focal = sum(-((1 - q) ** 2) * math.log(q) for q in p) / 2
    assert value_of("focal") == pytest.approx(focal)
    assert value_of("generalized_cross_entropy") == pytest.approx(sum((1 - q**0.7) / 0.7 for q in p) / 2)


def test_mann_whitney_is_blind_to_a_shift_of_a_rows_logits_as_softmax_is():
    shifted = LOGITS + torch.tensor([[3.0], [-1.0]])
    assert value_of("mann_whitney") == pytest.approx(value_of("mann_whitney", shifted))
    assert value_of("mann_whitney") != pytest.approx(value_of("mann_whitney", LOGITS * 2))


@pytest.mark.parametrize("candidate", all_candidates("classes"), ids=lambda c: c.name)
def test_every_candidate_of_classes_learns_separable_ones(candidate: Candidate):
    recipe, accuracy = candidate.recipe(shared("classes")), find_metric("accuracy")
    trained = trainer(
        objective=recipe.objective.model_dump(), draw=recipe.draw.model_dump(), mix=recipe.mix.model_dump(),
        max_epochs=20, patience=20, optimizer={"name": "adamw", "learning_rate": 2e-2},
    )  # fmt: skip
    fabric, fresh = trained.engine.fabric, select_rows(300, 3)
    before = score_of(fabric, trained.network, fresh, accuracy, "classes")
    result = trained.run()
    assert score_of(fabric, trained.network, fresh, accuracy, "classes") > 0.8 > 0.7 > before
    assert len(result.select_scores) == 20
    assert outputs_of(fabric, trained.network, fresh.inputs)[0].shape == (300, 3)
