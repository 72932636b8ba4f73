"""A tuned cut of classes: the best by brute force, no worse than the largest, fitted on select rows alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import margins
from margins.data.reading import read_frame
from margins.data.roles import SelectRows
from margins.errors import MarginsError
from margins.estimators import MarginsClassifier
from margins.evaluation import find_metric
from margins.evaluation.class_cuts import OddsCut, PriorCut, class_cut_from, fit_class_cut
from margins.evaluation.select_role import SelectPredictions
from margins.targets import Targets
from margins.training.fit import train
from margins.training.onnx_export import _metadata

METRICS = [
    "macro_f1",
    "f2",
    "micro_f1",
    "weighted_f1",
    "accuracy",
    "balanced_accuracy",
    "g_mean",
    "mcc",
    "top_1",
]
PRIOR = np.array([0.85, 0.15])


def made_up(seed: int, *, num: int = 60, shares: Any = (0.85, 0.15), steps: int = 12) -> SelectPredictions:
    """Logits with ties, of which the true class has more."""
    draws = np.random.default_rng(seed)
    labels = draws.choice(len(shares), num, p=shares)
    labels[: len(shares)] = range(len(shares))
    logits = draws.integers(0, steps, (num, len(shares))) / 4 + np.eye(len(shares))[labels]
    return SelectPredictions(logits + np.log(shares), labels)


def value_of(name: str, decided: np.ndarray, select: SelectPredictions, weight: Any = None) -> float:
    one_hot = np.eye(select.numbers().shape[1])[decided]
    return find_metric(name).measure(one_hot, select.class_ids(), weight=weight).value


def largest(select: SelectPredictions) -> np.ndarray:
    return select.numbers().argmax(1)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("weighted", [False, True])
def test_no_cut_of_two_classes_is_better(name: str, weighted: bool):
    moved = 0
    for seed in range(15):
        select = made_up(seed)
        weight = np.random.default_rng(seed).integers(0, 4, 60).astype(float) + 0.5 if weighted else None
        odds = np.diff(select.numbers(), axis=1)[:, 0]
        cuts = [-np.inf, *np.unique(odds)]
        best = max(value_of(name, (odds > cut).astype(int), select, weight) for cut in cuts)
        found = fit_class_cut(select, find_metric(name), prior=PRIOR, weight=weight)
        value = value_of(name, found.decide(select.logits), select, weight)
        assert value == pytest.approx(best, abs=1e-12)
        assert value >= value_of(name, largest(select), select, weight)
        moved += found.log_odds != 0
    assert moved > 3 or name == "accuracy"


@pytest.mark.parametrize("name", METRICS)
def test_no_tau_of_several_classes_is_better_and_of_equal_ones_the_smallest_is_taken(name: str):
    moved = 0
    for seed in range(10):
        shares = np.array([0.7, 0.2, 0.1])
        select = made_up(seed, shares=shares)
        values = [
            value_of(name, (select.numbers() - tau * np.log(shares)).argmax(1), select)
            for tau in np.arange(41) * 0.05
        ]
        found = fit_class_cut(select, find_metric(name), prior=shares)
        value = value_of(name, found.decide(select.logits), select)
        assert value == pytest.approx(max(values), abs=1e-12)
        assert found.tau == pytest.approx(0.05 * int(np.argmax(np.round(values, 12))))
        assert value >= value_of(name, largest(select), select)
        moved += found.tau > 0
    assert moved > 3 or name == "accuracy"


def test_of_balanced_classes_and_where_nothing_is_better_the_largest_stays():
    even = made_up(0, shares=[1 / 3] * 3)
    assert fit_class_cut(even, find_metric("macro_f1"), prior=np.full(3, 1 / 3)).tau == 0
    labels = np.arange(20) % 2
    right = SelectPredictions(np.eye(2)[labels] * 3, labels)
    assert fit_class_cut(right, find_metric("macro_f1"), prior=PRIOR) == OddsCut(
        log_odds=0.0, metric="macro_f1"
    )
    one = SelectPredictions(np.eye(2)[labels] * 3, np.ones(20, int))
    assert fit_class_cut(one, find_metric("macro_f1"), prior=PRIOR).log_odds == 0


def test_equal_scores_are_never_divided_and_neighbours_in_float64_are():
    tied = SelectPredictions(np.zeros((4, 2)), np.array([1, 0, 0, 1]))
    decided = fit_class_cut(tied, find_metric("f2"), prior=PRIOR).decide(np.zeros((2, 2)))
    assert len(set(decided)) == 1
    one = np.nextafter(1.0, 2)
    near = SelectPredictions(np.array([[0.0, one], [0.0, 1.0]]), np.array([1, 0]))
    assert fit_class_cut(near, find_metric("macro_f1"), prior=PRIOR).decide(near.logits).tolist() == [1, 0]


def test_shares_have_their_largest_where_the_decision_is_even_at_the_cut():
    cut = OddsCut(log_odds=0.3, metric="macro_f1")
    odds = np.array([0.3, np.nextafter(0.3, 1), -800.0, 800.0, 0.2])
    shares = cut.shares(np.stack([np.zeros(5), odds], axis=1))
    assert shares.argmax(1).tolist() == [0, 1, 0, 1, 0]
    assert shares[:, ::-1].argmax(1).tolist() == [1, 0, 1, 0, 1]  # no tie that an order would decide
    assert shares.sum(1) == pytest.approx(np.ones(5))


@pytest.mark.parametrize(
    "cut",
    [OddsCut(log_odds=-0.1234567891234, metric="mcc"),
     PriorCut(tau=0.35, log_prior=np.log([0.7, 0.2, 0.1]), metric="f2")],
)  # fmt: skip
def test_a_cut_comes_back_from_json_as_it_was(cut: Any):
    back = class_cut_from(json.loads(json.dumps(cut.to_data())))
    assert type(back) is type(cut)
    assert back.to_data() == cut.to_data()
    logits = np.random.default_rng(0).normal(size=(50, 2 if isinstance(cut, OddsCut) else 3))
    assert (back.shares(logits) == cut.shares(logits)).all()


class _Inputs:
    def __len__(self) -> int:
        return 2

    def take(self, rows: torch.Tensor) -> _Inputs:
        return self


@pytest.mark.parametrize(
    "other",
    [(np.eye(2), np.array([0, 1])), SelectRows(_Inputs(), Targets.of_classes(torch.tensor([0, 1]), 2)), None],
)
def test_only_predictions_of_the_select_role_are_fitted_on(other: Any):
    with pytest.raises(MarginsError, match="SelectPredictions"):
        fit_class_cut(other, find_metric("macro_f1"), prior=PRIOR)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: fit_class_cut(made_up(0), find_metric("log_loss"), prior=PRIOR), "expected a metric of dec"),
        (lambda: fit_class_cut(made_up(0), find_metric("mcc"), prior=PRIOR[:1]), r"prior: expected \[2\]"),
        (lambda: fit_class_cut(made_up(0), find_metric("macro_f1"), prior=np.array([1.0, 0])), "shares > 0"),
        (lambda: class_cut_from({"kind": "priour"}), "did you mean prior"),
        (lambda: class_cut_from({"kind": "prior"}), "what the cut prior saved"),
        (lambda: OddsCut(log_odds=0.0, metric="f2").decide(np.zeros((2, 3))), "two classes"),
        (lambda: PriorCut(tau=1.0, log_prior=np.zeros(3), metric="f2").decide(np.zeros((2, 2))), r"\[N, 3\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(use: Any, words: str):
    with pytest.raises(MarginsError, match=words):
        use()


# In a training


def table(num: int = 1500, *, num_classes: int = 2, seed: int = 0) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    shares = [0.9, 0.1] if num_classes == 2 else [0.8, 0.12, 0.08]
    labels = draws.choice(num_classes, num, p=shares)
    x = draws.normal(size=(num, num_classes)) + 1.3 * np.eye(num_classes)[labels]
    return {**{f"x{k}": x[:, k] for k in range(num_classes)}, "label": [f"c{k}" for k in labels]}


def changes(cut: str, **more: Any) -> dict[str, Any]:
    return {
        "max_epochs": 10,
        "metric": "balanced_accuracy",
        **more,
        "decisions": {"cut": cut, **more.get("decisions", {})},
    }


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("calibration", ["temperature", "vector", "isotonic", None])
def test_a_tuned_cut_is_no_worse_on_select_rows_and_leaves_probabilities(
    num_classes: int, calibration: Any, tmp_path: Any
):
    decisions = {"decisions": {"calibration": calibration}}
    plain, tuned = (
        train(table(num_classes=num_classes), recipe=changes(cut, **decisions))
        for cut in ("largest", "tuned")
    )
    assert plain.model.cut is None
    assert type(tuned.model.cut) is (OddsCut if num_classes == 2 else PriorCut)
    assert tuned.scores["select"]["balanced_accuracy"] > plain.scores["select"]["balanced_accuracy"]
    assert tuned.scores["report"]["balanced_accuracy"] > plain.scores["report"]["balanced_accuracy"]
    fresh = table(400, num_classes=num_classes, seed=1)
    assert np.array_equal(tuned.model.predict_proba(fresh), plain.model.predict_proba(fresh))
    assert (tuned.model.predict(fresh) != plain.model.predict(fresh)).mean() > 0.02
    loaded = margins.load(tuned.model.save(tmp_path / "m"))
    assert loaded.cut is not None
    assert loaded.cut.to_data() == tuned.model.cut.to_data()
    assert loaded.predict(fresh).tolist() == tuned.model.predict(fresh).tolist()


def test_the_cut_follows_select_rows_and_no_others():
    rows = {**table(), "split": (["train"] * 8 + ["select"] * 4 + ["test"] * 3) * 100}
    found = {}
    for role in ("none", "test", "select"):
        label = [
            ("c1" if k % 2 else "c0") if split == role else y
            for k, (y, split) in enumerate(zip(rows["label"], rows["split"], strict=True))
        ]
        recipe = changes("tuned", patience=None, decisions={"calibration": None}, max_epochs=1)
        found[role] = train({**rows, "label": label}, target="label", recipe=recipe).model.cut.log_odds
    assert found["none"] == found["test"] != found["select"]


def test_weights_of_rows_count_for_the_cut():
    rows = table(600)
    rows["w"] = np.where(np.array(rows["label"]) == "c1", 9.0, 1.0)
    found = {}
    for weight in ("w", None):
        inputs = {"inputs": ["x0", "x1"], "weight": weight}
        run = train(rows, target="label", **inputs, recipe=changes("tuned", metric="accuracy", max_epochs=3))
        plain = train(
            rows, target="label", **inputs, recipe=changes("largest", metric="accuracy", max_epochs=3)
        )
        assert run.scores["select"]["accuracy"] >= plain.scores["select"]["accuracy"]
        found[weight] = np.mean(run.model.predict(rows) == "c1")
    assert found["w"] > found[None] + 0.1


def test_a_model_saved_before_there_were_cuts_decides_for_the_largest(tmp_path):
    run = train(table(300), recipe=changes("largest", max_epochs=1), out=tmp_path / "r")
    described = tmp_path / "r" / "model" / "model.json"
    old = json.loads(described.read_text())
    assert old["format"] == 1
    del old["cut"]
    described.write_text(json.dumps(old))
    assert margins.load(tmp_path / "r").cut is None
    old["cut"] = {"kind": "prior", "tau": 1.0, "log_prior": [0.0, 0.0, 0.0], "metric": "macro_f1"}
    described.write_text(json.dumps(old))
    with pytest.raises(MarginsError, match=r"\[N, 3\]"):
        margins.load(tmp_path / "r")
    assert run.model.cut is None


def test_the_cut_reaches_estimators_and_the_metadata_of_onnx_files():
    rows = table()
    X, y = np.stack([rows["x0"], rows["x1"]], axis=1), np.array(rows["label"])
    recipe = {"decisions": {"cut": "tuned"}, "metric": "balanced_accuracy"}
    fitted = MarginsClassifier(recipe, max_epochs=10).fit(X, y)
    model = fitted.model_
    assert fitted.predict(X).tolist() == model.predict(X).tolist()
    likeliest = fitted.classes_[fitted.predict_proba(X).argmax(1)]
    assert (fitted.predict(X) != likeliest).mean() > 0.02
    # Decisions follow from scores and metadata alone.
    told = {key: json.loads(value) for key, value in _metadata(model).items()}
    scores = model.scores(read_frame(rows)) if "x0" in model.columns.inputs else model.scores(X)
    log_p = log_softmax(scores.double().numpy() / told["margins.calibration"]["temperature"], axis=1)
    by_hand = (np.diff(log_p, axis=1)[:, 0] > told["margins.cut"]["log_odds"]).astype(int)
    assert [told["margins.outputs"][k] for k in by_hand] == model.predict(X).tolist()
