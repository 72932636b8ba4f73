"""The estimators keep scikit-learn's contract, and rows count by their weight, whatever their order."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import margins
from margins import MarginsClassifier, MarginsEmbedder, MarginsRegressor
from margins.errors import MarginsError

SMALL = {"encoder": {"width": 16}}
FEW_STEPS = {"encoder": {"width": 16, "depth": 1}, "min_steps": 4}
QUICK = [
    MarginsClassifier(FEW_STEPS, learning_rate=0.05, max_epochs=6),
    MarginsRegressor(FEW_STEPS, learning_rate=0.05, max_epochs=8),
    MarginsEmbedder(FEW_STEPS, max_epochs=3, dim=4),
]
# Needs an environment variable that is read before any test; the estimators promise no other array library.
NOT_PROMISED = {"check_array_api_input"}
CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}-{number}")
    for quick in QUICK
    for number, (estimator, check) in enumerate(estimator_checks_generator(quick))
    if check.func.__name__ not in NOT_PROMISED
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learn_s_own_check_passes(estimator: Any, check: Any):
    check(estimator)


def test_the_checks_hold_those_of_weights_and_of_each_kind_of_estimator():
    names = {check.values[1].func.__name__ for check in CHECKS}
    assert {"check_sample_weight_equivalence_on_dense_data", "check_classifiers_train"} <= names
    assert {"check_regressors_train", "check_transformer_general", "check_estimators_pickle"} <= names
    assert len(CHECKS) > 130


def blobs(num: int = 120, seed: int = 0, *, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of four numbers, the classes in turn."""
    y = np.arange(num) % 3
    return np.eye(3, 4)[y] * 3 + np.random.default_rng(seed).normal(scale=spread, size=(num, 4)), y


def small(kind: type, **changes: Any) -> Any:
    return kind(SMALL, **{"max_epochs": 4, **changes})


def outcome(fitted: Any, X: Any) -> np.ndarray:
    for method in ("predict_proba", "transform", "predict"):
        if hasattr(fitted, method):
            return getattr(fitted, method)(X)
    raise AssertionError


KINDS = pytest.mark.parametrize("kind", [MarginsClassifier, MarginsRegressor, MarginsEmbedder])


@KINDS
def test_integer_weights_are_repeated_rows_to_the_bit_and_the_order_of_rows_is_none_of_its_business(
    kind: type,
):
    X, y = blobs()
    draws = np.random.default_rng(1)
    weight = draws.integers(0, 4, size=len(y))
    again = draws.permutation(np.repeat(np.arange(len(y)), weight))
    weighted = small(kind).fit(X, y, sample_weight=weight)
    repeated = small(kind).fit(X[again], y[again])
    np.testing.assert_array_equal(outcome(weighted, X), outcome(repeated, X))
    # Not vacuous: the rows that choose are there, and other weights train another model.
    assert "choose the epoch" in weighted.notes_[0]
    assert np.abs(outcome(small(kind).fit(X, y), X) - outcome(weighted, X)).max() > 1e-3


@KINDS
def test_only_the_ratios_of_weights_count_when_rows_fill_an_epoch(kind: type):
    X, y = blobs()
    weight = np.random.default_rng(1).uniform(0.5, 1, size=len(y))
    once, doubled = (small(kind).fit(X, y, sample_weight=factor * weight) for factor in (0.5, 1.0))
    np.testing.assert_array_equal(outcome(once, X), outcome(doubled, X))


def test_a_heavier_class_is_predicted_more_often():
    X, y = blobs(300, spread=3.0)
    shares = []
    for factor in (1, 10):
        fitted = small(MarginsClassifier).fit(X, y, sample_weight=np.where(y == 2, factor, 1))
        shares.append(float((fitted.predict(X) == 2).mean()))
    assert shares[1] > shares[0] + 0.2


def test_a_class_whose_rows_all_weigh_nothing_is_none():
    X, y = blobs()
    fitted = small(MarginsClassifier).fit(X, y, sample_weight=(y != 1).astype(float))
    assert fitted.classes_.tolist() == [0, 2]
    assert fitted.predict_proba(X).shape == (120, 2)


def test_many_copies_of_few_rows_train_for_as_many_steps_as_they_deserve():
    corners = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    X, y = np.tile(corners, (500, 1)), np.tile([0, 1, 1, 0], 500)
    fitted = small(MarginsClassifier, max_epochs=10).fit(X, y)
    assert fitted.predict(corners).tolist() == [0, 1, 1, 0]
    assert any("an epoch sees each 500 times" in note for note in fitted.notes_)


LABELS = [
    ("text", np.array(["b", "a", "c"])),
    ("objects", np.array(["b", "a", "c"], dtype=object)),
    ("whole numbers", np.array([30, -5, 200])),
    ("floats", np.array([2.0, 1.0, 3.0])),
    ("a lone letter case", np.array(["A", "a", "B"])),
]


@pytest.mark.parametrize("labels", [pytest.param(labels, id=name) for name, labels in LABELS])
def test_labels_come_back_sorted_and_in_their_own_type(labels: np.ndarray):
    X, y = blobs(90, spread=0.3)
    fitted = small(MarginsClassifier, max_epochs=15).fit(X, labels[y])
    assert fitted.classes_.tolist() == sorted(labels.tolist())
    predicted = fitted.predict(X)
    assert predicted.dtype == labels.dtype
    assert (predicted == labels[y]).mean() > 0.9
    # The column of the likeliest label is the label's own.
    likeliest = fitted.classes_[fitted.predict_proba(X).argmax(1)]
    assert (likeliest == predicted).all()


def mixed(num: int = 120) -> tuple[dict[str, list[Any]], list[str]]:
    draws = np.random.default_rng(3)
    city = draws.choice(["Oslo", "Bonn", "Rome"], size=num).tolist()
    size = [None if k % 9 == 0 else float(v) for k, v in enumerate(draws.normal(size=num))]
    table = {"city": city, "size": size, "new": draws.choice([True, False], size=num).tolist()}
    return table, ["yes" if c == "Rome" else "no" for c in city]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_frames_with_mixed_columns_and_gaps_are_read_by_name(make: Any):
    table, y = mixed()
    X = make(table)
    fitted = small(MarginsClassifier, max_epochs=20).fit(X, y)
    assert fitted.feature_names_in_.tolist() == ["city", "size", "new"]
    assert fitted.model_.columns.inputs == {"city": "categorical", "size": "numeric", "new": "categorical"}
    assert fitted.score(X, y) == 1.0
    assert fitted.predict(make({"city": ["Rome"], "size": [None], "new": [True]})).tolist() == ["yes"]
    with pytest.raises(ValueError, match="order"):
        fitted.predict(X[["size", "city", "new"]])


def test_the_same_frame_in_pandas_with_any_index_and_in_polars_trains_the_same_model():
    table, y = mixed()
    found = [
        small(MarginsClassifier).fit(X, y).predict_proba(X)
        for X in (pl.DataFrame(table), pd.DataFrame(table, index=range(500, 620)))
    ]
    np.testing.assert_array_equal(*found)


def test_kinds_say_what_types_do_not():
    table, y = mixed()
    fitted = small(MarginsClassifier, kinds={"city": "text"}, max_epochs=1).set_params(recipe=None)
    assert fitted.fit(pl.DataFrame(table), y).model_.columns.inputs["city"] == "text"
    X, y = blobs()
    vectors = MarginsClassifier(kinds="embedding", learning_rate=0.1, max_epochs=20).fit(X, y)
    assert vectors.model_.recipe.encoder.name == "embeddings"
    assert vectors.score(X, y) > 0.8


def test_texts_are_one_column_whatever_holds_them():
    y = np.arange(80) % 2
    texts = [f"{'good fine' if label else 'bad poor'} thing {k}" for k, label in enumerate(y)]
    found = []
    for X in (texts, np.array(texts), np.array(texts, dtype=object), pd.Series(texts)):
        fitted = MarginsClassifier(learning_rate=0.02, max_epochs=10).fit(X, y)
        assert fitted.predict(["good fine thing", "bad poor thing"]).tolist() == [1, 0]
        found.append(fitted.predict_proba(X))
    assert all((probabilities == found[0]).all() for probabilities in found)
    assert fitted.model_.recipe.encoder.name == "hashed_text"
    assert not any("categories" in note for note in fitted.notes_)


def test_they_work_in_pipelines_grids_and_cross_validation():
    X, y = blobs(90, spread=0.5)
    pipeline = make_pipeline(StandardScaler(), small(MarginsClassifier, max_epochs=15))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.9
    grid = GridSearchCV(small(MarginsClassifier), {"learning_rate": [1e-6, 1e-2], "loss": ["focal"]}, cv=2)
    assert grid.fit(X, y).best_params_ == {"learning_rate": 1e-2, "loss": "focal"}
    assert grid.best_estimator_.model_.recipe.objective.loss == "focal"
    embedded = make_pipeline(small(MarginsEmbedder, dim=8), KNeighborsClassifier())
    assert cross_val_score(embedded, X, y, cv=3).mean() > 0.9


@KINDS
def test_clones_are_unfitted_and_pickles_predict_the_same(kind: type):
    X, y = blobs()
    fitted = small(kind).fit(X, y)
    expected = outcome(fitted, X)  # a model that has predicted holds its machine
    np.testing.assert_array_equal(outcome(pickle.loads(pickle.dumps(fitted)), X), expected)  # noqa: S301
    with pytest.raises(NotFittedError):
        outcome(clone(fitted), X)


def test_the_model_is_saved_and_loaded_by_the_house(tmp_path: Any):
    X, y = blobs()
    fitted = small(MarginsClassifier).fit(X, y)
    model = margins.load(fitted.model_.save(tmp_path / "model"))
    assert [int(name) for name in model.predict(X)] == fitted.predict(X).tolist()


@KINDS
def test_what_is_said_of_a_row_does_not_depend_on_the_rows_beside_it(kind: type):
    X, y = blobs(100)
    fitted = small(kind).fit(X, y)
    together = outcome(fitted, X)
    alone = np.concatenate([outcome(fitted, X[k : k + 1]) for k in range(0, 100, 3)])
    assert np.abs(together[::3] - alone).max() < 1e-9


@KINDS
def test_random_state_fixes_the_model_and_no_global_state_is_touched(kind: type):
    X, y = blobs()
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the state that must stay untouched
    states = (0, 0, 1, None, None, np.random.RandomState(0))
    found = [outcome(small(kind, random_state=state, max_epochs=1).fit(X, y), X) for state in states]
    np.testing.assert_array_equal(found[0], found[1])
    for one, other in ((0, 2), (3, 4), (0, 5)):
        assert np.abs(found[one] - found[other]).max() > 1e-5
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_training_stops_early_by_the_rows_that_choose():
    X, y = blobs(300)
    fitted = MarginsClassifier(learning_rate=0.02, max_epochs=100, recipe={"patience": 3}).fit(X, y)
    assert 4 <= fitted.n_iter_ < 100
    assert fitted.model_.calibration is not None
    assert fitted.model_.about["scores"]["select"]["macro_f1"] > 0.8


@pytest.mark.parametrize(
    ("num", "share"), [(6, 0.15), (60, 0.15), (300, 0.0)], ids=["few", "not enough", "asked for"]
)
@KINDS
def test_without_rows_to_choose_all_rows_train_for_all_epochs_and_it_is_told(
    kind: type, num: int, share: float
):
    X, y = blobs(num)
    fitted = kind({**SMALL, "patience": 1}, select_share=share, max_epochs=7).fit(X, y)
    assert fitted.n_iter_ == 7
    assert "without early stopping" in fitted.notes_[0]
    assert fitted.model_.calibration is None
    assert "select" not in fitted.model_.about["scores"]


def test_rows_with_the_only_gap_of_a_column_train_so_that_the_gap_is_known():
    y = np.arange(400) % 3
    X = np.random.default_rng(0).normal(size=(400, 40))
    X[np.arange(40) * 10, np.arange(40)] = np.nan
    fitted = small(MarginsClassifier, max_epochs=1).fit(X, y)
    assert fitted.model_.preparation.with_gaps == [f"x{k}" for k in range(40)]
    # Not vacuous: others choose, and some of these rows would have.
    assert re.search(r"(3[45]\d) different rows train, (4\d|5\d) choose", fitted.notes_[0])


def test_a_constant_target_is_predicted_as_it_is():
    X, _ = blobs(100)
    fitted = small(MarginsRegressor, max_epochs=30).fit(X, np.full(100, 7.0))
    assert np.abs(fitted.predict(X) - 7).max() < 0.5
    assert any("same number" in note for note in fitted.notes_)


def test_values_far_from_zero_lose_nothing():
    X, _ = blobs(300)
    y = 1e6 + X[:, 0] + X[:, 1]
    fitted = small(MarginsRegressor, learning_rate=0.01, max_epochs=25).fit(X, y)
    assert fitted.score(X, y) > 0.95


@pytest.mark.parametrize(("load", "kind", "least"), [
    (load_breast_cancer, MarginsClassifier, 0.94), (load_diabetes, MarginsRegressor, 0.35),
])  # fmt: skip
def test_defaults_do_well_on_a_bundled_set(load: Any, kind: type, least: float):
    X, y = load(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
    assert kind(max_epochs=25).fit(X_train, y_train).score(X_test, y_test) > least


def test_embeddings_have_length_one_and_bring_classes_together():
    X, y = blobs(240, spread=0.7)
    noise = 3 * np.random.default_rng(5).normal(size=(240, 12))
    X = np.hstack([X, noise])
    raw = KNeighborsClassifier(1).fit(X[:160], y[:160]).score(X[160:], y[160:])
    fitted = MarginsEmbedder(max_epochs=15, dim=8).fit(X[:160], y[:160])
    near = KNeighborsClassifier(1).fit(fitted.transform(X[:160]), y[:160])
    assert np.abs(np.linalg.norm(fitted.transform(X), axis=1) - 1).max() < 1e-5
    assert near.score(fitted.transform(X[160:]), y[160:]) > raw + 0.1
    assert fitted.get_feature_names_out().tolist() == [f"marginsembedder{k}" for k in range(8)]


X4, Y4 = blobs(24)
DAYS = pd.date_range("2024-01-01", periods=24)
REFUSED = [
    ("one class", MarginsClassifier(), X4, np.zeros(24), "y|two classes|1 class"),
    ("no target", MarginsClassifier(), X4, None, "requires y to be passed"),
    ("no pairs", MarginsEmbedder(), X4[:9], np.arange(9), "9 classes of one row each"),
    ("texts as numbers to predict", MarginsRegressor(), X4, np.array(["a"] * 24), "y|numbers"),
    ("task", MarginsClassifier({"task": "values"}), X4, Y4, "recipe: task|another estimator"),
    ("seed", MarginsClassifier({"seed": 3}), X4, Y4, "recipe: seed|random_state"),
    ("twice", MarginsClassifier({"max_epochs": 3}, max_epochs=4), X4, Y4, "recipe: max_epochs|once|3|4"),
    ("twice inside", MarginsRegressor({"optimizer": {"learning_rate": 1.0}}, learning_rate=0.1), X4, Y4,
     "recipe: optimizer.learning_rate"),
    ("unknown key", MarginsClassifier({"max_epoch": 3}), X4, Y4, "max_epoch|did you mean max_epochs"),
    ("unknown loss", MarginsClassifier(loss="cros_entropy"), X4, Y4, "cross_entropy"),
    ("share", MarginsClassifier(select_share=1.0), X4, Y4, "select_share|[0, 1)"),
    ("random state", MarginsClassifier(random_state=-1), X4, Y4, "random_state|-1"),
    ("kinds of no column", MarginsClassifier(kinds={"x9": "text"}), X4, Y4, "kinds|x9|x0"),
    ("dates", MarginsClassifier(), pd.DataFrame({"day": DAYS}), Y4, "'day'"),
    ("names twice", MarginsClassifier(), pd.DataFrame(X4, columns=list("aabc")), Y4, "'a' twice"),
    ("a text that is none", MarginsClassifier(), ["a"] * 20 + [None] * 4, Y4, "a text in every row|rows 21"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("estimator", "X", "y", "words"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED]
)
def test_what_cannot_be_used_is_named_with_its_cure(estimator: Any, X: Any, y: Any, words: str):
    with pytest.raises(MarginsError) as caught:
        estimator.fit(X, y)
    for word in words.split("|"):
        assert word in str(caught.value)


def test_nothing_of_the_caller_s_is_written_into():
    X, y = blobs(60)
    weight, recipe = np.ones(60), {"encoder": {"width": 16}}
    copies = X.copy(), y.copy(), weight.copy()
    MarginsClassifier(recipe, loss="focal", max_epochs=1).fit(X, y, sample_weight=weight).predict(X)
    for array, copy in zip((X, y, weight), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert recipe == {"encoder": {"width": 16}}


def test_a_column_of_many_different_texts_taken_as_categories_is_told():
    names = pd.DataFrame({"name": [f"n{k}" for k in range(30)], "x": np.arange(30.0)})
    fitted = small(MarginsClassifier, max_epochs=1).fit(names, np.arange(30) % 2)
    assert any("kinds={'name': 'text'}" in note for note in fitted.notes_)
