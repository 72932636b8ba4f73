"""What a comparison makes of its rows: roles of columns, weights, copies, preparations, and refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest

from made_up_comparisons import blob_columns, blobs, design_of, outer_value, quick, texts
from margins.compare import Roles, Spoiling, TrialDone
from margins.compare.describe import copies_across_folds
from margins.compare.problem.inputs import InputsOf
from margins.compare.problem.rows import compared_rows
from margins.data import read_frame
from margins.encoders import HashedTextPreparation
from margins.errors import MarginsError


def test_defaults_follow_the_kind_of_input():
    numbers, words = (
        design_of(f, roles=r, training={}).training
        for f, r in ((blobs(), Roles(target="y")), (texts(), None))
    )
    assert numbers.max_epochs > words.max_epochs


def test_copies_across_folds_are_counted_and_copies_within_a_fold_are_not():
    columns = blob_columns(12)
    roles = Roles(target="y")
    design = design_of(read_frame(columns), roles=roles, num_folds=2)
    folds = [fold.test for fold in design.folds]
    labels = design.rows.targets.positives().columns.numpy()
    assert copies_across_folds(design) == []
    first, second = folds[0][:2]
    other = folds[1][np.flatnonzero(labels[folds[1]] != labels[first])[0]]

    def copied(place: int) -> list[str]:
        for name in "abc":
            columns[name][place] = columns[name][first]
        return copies_across_folds(design_of(read_frame(columns), roles=roles, num_folds=2))

    assert copied(second) == []
    (sentence,) = copied(other)
    agreeing = int(labels[second] == labels[other])
    assert sentence.startswith("3 of 12 rows (25.0%) were scored while an exact copy")
    assert f"({3 - 2 * agreeing} of them with other labels only)" in sentence


def test_preparations_are_fitted_on_the_training_rows_of_their_fold_alone():
    # Every row has a category of its own, so a vocabulary tells which rows were looked at.
    frame = blobs(30, name=[f"n{i}" for i in range(30)])
    roles = Roles(target="y", inputs=["name"], kinds={"name": "categorical"})
    design = design_of(frame, roles=roles)
    inputs_of = InputsOf(frame.only(["name"]))
    for fold in design.folds:
        problem = design.rows.problem(fold.division(with_test=True), inputs_of)
        fitted = design.training.encoder.prepare(
            problem.training_frame().only(["name"]), problem.columns.inputs
        )
        (known,) = fitted.vocabularies.values()
        assert sorted(known) == sorted(f"n{i}" for i in fold.train.tolist())
        ids = problem.prepared(fitted).inputs.categories[:, 0]
        assert (ids > 0).nonzero()[:, 0].tolist() == fold.train.tolist()


def test_texts_are_hashed_once_for_all_folds_repeats_and_recipes(monkeypatch: pytest.MonkeyPatch):
    hashed: list[int] = []
    real = HashedTextPreparation.inputs_of

    def counted(self: HashedTextPreparation, columns: list[list[str]]) -> object:
        hashed.append(len(columns[0]))
        return real(self, columns)

    monkeypatch.setattr(HashedTextPreparation, "inputs_of", counted)
    quick(texts(), num_repeats=2)
    assert [num for num in hashed if num] == [60]


def test_rows_of_weight_zero_do_not_count_in_the_score():
    columns, is_known = blob_columns(90), np.arange(90) % 9 >= 3
    wrong = [y if known else "vwu"["uvw".index(y)] for y, known in zip(columns["y"], is_known, strict=True)]
    roles = Roles(target="y", weight="w", inputs=["a", "b", "c"])
    # The same folds whatever the labels; training sees the known rows alone, so that only scores could tell.
    folds = [
        dataclasses.replace(
            fold, train=fold.train[is_known[fold.train]], select=fold.select[is_known[fold.select]]
        )
        for fold in design_of().folds
    ]
    scores: list[list[float]] = []
    for labels, weight in ((columns["y"], is_known), (wrong, is_known), (wrong, is_known | True)):
        frame = read_frame(columns | {"y": labels, "w": weight.astype(float)})
        design = dataclasses.replace(design_of(frame, roles=roles), folds=folds)
        scores.append([outer_value(design, place)["test"]["accuracy"] for place in range(3)])
    assert scores[0] == scores[1]
    assert np.mean(scores[1]) - np.mean(scores[2]) > 0.1


@pytest.mark.parametrize("positive", ["fruit", "tool"])
def test_the_positive_class_is_number_one_and_is_named(positive: str):
    rows = compared_rows(texts(), positive=positive)
    assert rows.names[1] == positive
    labels = rows.targets.positives().columns.tolist()
    assert [rows.names[i] for i in labels] == rows.frame.table["label"].to_list()
    result = quick(texts(), "average_precision", positive=positive, num_folds=2)
    assert result.description.protocol[-1] == f"The positive class is {positive!r}, as asked for."
    counts = list(result.description.class_counts.values())
    assert counts == sorted(counts, reverse=True)


def test_notes_of_the_data_are_warnings_and_decisions_are_in_the_protocol_and_both_are_told_first():
    told: list[str] = []
    done: list[int] = []

    def tell(sentence: str) -> None:
        assert not done
        told.append(sentence)

    frame = blobs(same=[1.5] * 90, split=["train", "train", "test"] * 30)
    result = quick(
        frame, roles=Roles(target="y"), tell=tell, on_trial_done=lambda trial: done.append(trial.done)
    )
    assert done
    assert any(s.endswith("tell nothing: same.") for s in result.warnings)
    assert result.description.protocol[0].startswith("Columns: split: column 'split', by its name; target:")
    assert result.description.num_report == 30
    assert any(s.startswith("30 rows are kept to report (by the column 'split')") for s in told)
    of_the_data = {w for w in result.warnings if "every outer fold" not in w}
    assert len(of_the_data) == 1
    assert of_the_data <= set(told)
    assert any(sentence.startswith("inputs:") for sentence in told)
    assert any(sentence.startswith("3 outer folds, 3 recipes: for differences") for sentence in told)


def test_classes_mixed_inputs_and_embeddings_are_compared_too():
    draws = np.random.default_rng(0)
    vectors = pl.Series("embedding", draws.normal(size=(90, 4)).astype(np.float32))
    frame = read_frame(pl.DataFrame(blob_columns()).with_columns(vectors))
    for names, encoder in ((["embedding"], "embeddings"), (["a", "embedding"], "combined")):
        result = quick(frame, roles=Roles(target="y", inputs=names), num_folds=2)
        assert result.description.inputs == names
        assert encoder in result.description.encoder


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"metric": "acuracy"}, ("metric", "'acuracy'", "did you mean accuracy")),
        ({"metric": "ndcg@10"}, ("a metric of classes", "ndcg@10")),
        ({"candidates": ["focl"]}, ("candidates", "did you mean focal")),
        ({"candidates": []}, ("candidates", "at least one to compare with cross_entropy")),
        ({"candidates": ["binary_focal"]}, ("a recipe for classes", "'binary_focal'")),
        ({"budget": "huge"}, ("budget", "TRIALS:PASSES", "'huge'")),
        ({"budget": "9:8"}, ("budget", "passes for 9 trials", "8")),
        ({"rope": -0.1}, ("rope", "not negative")),
        ({"spread": 0.0}, ("spread", "above 0")),
        ({"on": "procceses"}, ("on", "did you mean processes")),
        ({"num_folds": 1}, ("folds", "at least 2")),
        ({"num_folds": 31}, ("at least 31 rows in every class", "u (30), v (30), w (30)")),
        ({"num_seeds": 0}, ("seeds", "at least 1", "0")),
        ({"num_repeats": 0}, ("repeats", "at least 1")),
        ({"seed": -1}, ("seed", "not negative")),
        ({"confidence": 1.0}, ("confidence", "(0, 1)")),
        ({"positive": "u"}, ("positive", "two classes", "3 classes")),
        ({"training": {"objective": {"loss": "focal"}}}, ("training: objective", "candidates=")),
        ({"training": {"metric": "auroc"}}, ("training: metric", "metric=")),
        ({"training": {"seed": 3}}, ("training: seed", "seed=")),
        ({"training": {"plan": []}}, ("training: plan", "one phase")),
        ({"training": {"task": "matches"}}, ("a metric of rankings", "accuracy")),
        ({"training": {"max_epochs": 0}}, ("max_epochs", "greater than or equal to 1")),
        ({"training": {"max_epoch": 3}}, ("max_epoch", "did you mean max_epochs")),
        (
            {"training": {"draw": {"name": "class_balanced"}}, "candidates": ["logit_adjusted"]},
            (
                "recipe logit_adjusted: draw and objective.targets.logit_adjustment",
                "multiply",
                "times its share",
            ),
        ),
        ({"roles": Roles(target="z")}, ("target", "a column of data frame", "'z'")),
        ({"roles": Roles(target="a")}, ("a metric of values", "accuracy")),
        ({"roles": Roles(target="y", time="a")}, ("time", "the outer folds are drawn at random", "'a'")),
        ({"roles": Roles(target="y", split="a")}, ("split 'a'", "a role in every row")),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_any_training(asked: dict, words: tuple[str, ...]):
    assert_refused_before_training(words, **asked)


def assert_refused_before_training(words: tuple[str, ...], *given: Any, **asked: Any) -> None:
    told: list[TrialDone] = []
    with pytest.raises(MarginsError) as refused:
        quick(*given, **asked, on_trial_done=told.append)
    for word in words:
        assert word in str(refused.value)
    assert told == []


@pytest.mark.parametrize(
    ("more", "roles", "metric", "words"),
    [
        ({"g": [None] + ["x"] * 89}, {"group": "g"}, "accuracy", ("group 'g'", "an empty cell in row 1")),
        ({"g": ["p", "q"] * 45}, {"group": "g"}, "accuracy", ("at least 3 groups in every class", "u (2)")),
        ({"gap": [None] + [1.0] * 89}, {"inputs": ["gap"]}, "accuracy", ("'gap'", "none in row 1")),
        ({"w": [1.0] + [0.0] * 89}, {"weight": "w"}, "accuracy", ("outer fold", "accuracy can be measured")),
        ({"w": [-1.0] + [0.0] * 89}, {"weight": "w"}, "accuracy", ("weight 'w'", "-1 in row 1")),
    ],
)  # fmt: skip
def test_rows_that_some_fold_could_not_use_are_refused_before_any_training(more, roles, metric, words):
    named = Roles(**{"target": "y", "inputs": ["a", "b", "c"], **roles})
    assert_refused_before_training(words, blobs(**more), metric, roles=named)


def test_a_spoiling_that_reaches_into_the_test_fold_is_refused():
    reaching = Spoiling(lambda _rows, _labels, _draws: (np.arange(90), np.arange(90) % 3), "Reaches.")
    with pytest.raises(MarginsError, match="outside the outer test fold"):
        quick(spoiling=reaching)
