"""Training against the class prior: what moves it is told, and probabilities keep the shares of the data."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import margins
from made_up_training import recipe, train_rows, trainer
from margins.cli.main import run
from margins.data.reading import read_frame
from margins.errors import MarginsError
from margins.estimators import MarginsClassifier
from margins.evaluation.calibration import Temperature
from margins.evaluation.select_role import SelectPredictions
from margins.targets import Targets
from margins.training.finishing import judged_by
from margins.training.fit import train
from margins.training.model import Model
from margins.training.objective import Objective, StepTargets
from margins.training.objective_settings import ObjectiveSettings
from margins.training.predicting import metric_of
from margins.training.prior import prior_ledger, prior_shift
from margins.training.trainer import Trainer

COUNTS = torch.tensor([80, 15, 5])
PRIOR = COUNTS.double() / 100
NAMES = ["usual", "seldom", "rare"]
BALANCED: dict[str, Any] = {"draw": {"name": "class_balanced"}}
WEIGHTED: dict[str, Any] = {"objective": {"targets": {"class_weight": "balanced"}}}


def adjusted(tau: float, loss: str = "cross_entropy") -> dict[str, Any]:
    return {"objective": {"loss": loss, "targets": {"logit_adjustment": tau}}}


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        (BALANCED, torch.full((3,), 1 / 3)),
        (WEIGHTED, torch.full((3,), 1 / 3)),
        (adjusted(1.0), torch.full((3,), 1 / 3)),
        (adjusted(0.5), PRIOR**0.5),
    ],
)
def test_the_shift_leads_from_the_prior_that_training_saw_to_that_of_the_data(
    changes: dict, seen: torch.Tensor
):
    shift = prior_shift(recipe(**changes), COUNTS)
    assert shift is not None
    # A model that knows nothing of a row answers with the prior it saw; shifted, with that of the data.
    answer = (torch.log(seen.double()) + shift).softmax(0)
    assert torch.allclose(answer, PRIOR, atol=1e-6)


def test_training_with_the_prior_as_it_is_needs_no_shift():
    for changes in (
        {},
        {"objective": {"loss": "focal", "targets": {"smooth": 0.1}}},
        {"mix": {"name": "feature_mixup"}},
    ):
        assert prior_shift(recipe(**changes), COUNTS) is None


# The ledger


def test_the_ledger_multiplies_draw_and_weights_by_hand():
    ledger = prior_ledger(recipe(**BALANCED, **WEIGHTED), COUNTS, NAMES)
    assert [m.name for m in ledger.mechanisms] == ["draw class_balanced", "class_weight balanced"]
    for mechanism in ledger.mechanisms:
        assert mechanism.factor == pytest.approx((1, 80 / 15, 16))
    assert ledger.population == pytest.approx((0.8, 0.15, 0.05))
    by_hand = np.array([80.0, 15 * (80 / 15) ** 2, 5 * 16**2])
    assert ledger.effective == pytest.approx(tuple(by_hand / by_hand.sum()))


def test_the_ledger_takes_the_prior_to_the_power_of_tau_and_other_weights_by_their_formula():
    ledger = prior_ledger(recipe(**adjusted(0.5)), COUNTS, NAMES)
    assert ledger.mechanisms[0].name == "logit_adjustment 0.5"
    assert ledger.mechanisms[0].factor == pytest.approx((1, math.sqrt(80 / 15), 4))
    assert ledger.effective == pytest.approx(tuple((PRIOR**0.5 / (PRIOR**0.5).sum()).tolist()))
    counts = torch.tensor([8000, 1500, 500])
    rule = {"objective": {"targets": {"class_weight": "effective_number"}}}
    effective = 1 / (1 - 0.999 ** counts.double())
    found = prior_ledger(recipe(**rule), counts, NAMES).mechanisms[0].factor
    assert found == pytest.approx((effective / effective[0]).tolist(), rel=1e-5)
    assert found[2] > 2


def test_mixing_stands_in_the_ledger_and_moves_nothing():
    ledger = prior_ledger(recipe(mix={"name": "feature_mixup"}), COUNTS, NAMES)
    assert [(m.name, m.factor) for m in ledger.mechanisms] == [("mix feature_mixup", (1.0, 1.0, 1.0))]
    assert ledger.effective == pytest.approx(ledger.population)
    assert ledger.sentences() == []
    assert prior_ledger(recipe(), COUNTS, NAMES).mechanisms == ()


def test_the_last_phase_of_a_plan_decides():
    plan = [{"changes": BALANCED}, {"changes": {"max_epochs": 1}}]
    assert prior_ledger(recipe(plan=plan[:1]), COUNTS, NAMES).effective == pytest.approx((1 / 3,) * 3)
    assert prior_ledger(recipe(plan=plan), COUNTS, NAMES).mechanisms == ()
    assert prior_shift(recipe(plan=plan[:1]), COUNTS) is not None


def test_the_ledger_is_told_in_shares_of_few_or_of_the_extreme_classes():
    two = prior_ledger(recipe(**BALANCED), torch.tensor([90, 10]), ["a", "b"]).sentences()
    assert two[0] == (
        "Class prior of the data: 'a' 90 %, 'b' 10 %; as training sees it (draw class_balanced): "
        "'a' 50 %, 'b' 50 %."
    )
    assert len(two) == 2
    counts, names = torch.tensor([10, 30, 40, 15, 5]), list("abcde")
    many = prior_ledger(recipe(**adjusted(1)), counts, names).sentences()[0]
    assert (
        "data: 'c' 40 % ... 'e' 5 %; as training sees it (logit_adjustment 1): 'c' 20 % ... 'e' 20 %." in many
    )


def test_the_ledger_is_plain_data():
    ledger = prior_ledger(recipe(**BALANCED), COUNTS, NAMES)
    data = json.loads(json.dumps(ledger.to_data()))
    assert data["names"] == NAMES
    assert data["mechanisms"][0]["name"] == "draw class_balanced"
    assert data["effective"] == pytest.approx([1 / 3] * 3)


# Two corrections


def rows(num: int, seed: int) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    rare = draws.random(num) < 0.1
    return {"x": draws.normal(size=num) + 1.5 * rare, "label": np.where(rare, "rare", "usual").tolist()}


def exact(num: int = 200) -> dict[str, Any]:
    """Rows of which each role has nine usual ones for a rare one."""
    label = ["rare" if k % 10 == 0 else "usual" for k in range(num)]
    split = [("train", "train", "select", "test")[k // 10 % 4] for k in range(num)]
    return {"x": np.random.default_rng(0).normal(size=num), "label": label, "split": split}


def never(*_: Any) -> None:
    raise AssertionError("a step was taken")


def test_two_corrections_stop_a_training_before_its_first_step_and_show_the_product(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "advance", never)
    with pytest.raises(MarginsError) as refused:
        train(exact(), target="label", recipe={**BALANCED, **WEIGHTED}, out=tmp_path / "r")
    assert str(refused.value) == (
        "draw and objective.targets.class_weight: expected one part that makes rare classes count more, got "
        "two, whose effects multiply: beside 'usual', 'rare' counts 81.0 times its share (9.0 by draw "
        "class_balanced x 9.0 by class_weight balanced); take all but one out, or set "
        "accept_double_correction: true"
    )
    assert not (tmp_path / "r").exists()
    with pytest.raises(AssertionError, match="a step was taken"):  # the guard stands where steps are taken
        train(exact(), target="label", recipe=BALANCED)


def test_two_corrections_of_a_later_phase_stop_the_first_one(monkeypatch):
    monkeypatch.setattr(Trainer, "advance", never)
    plan = {**WEIGHTED, "plan": [{"changes": BALANCED}]}
    with pytest.raises(
        MarginsError, match=r"plan\.0\.changes: draw and objective\.targets\.class_weight.*81\.0"
    ):
        train(exact(), target="label", recipe=plan)


def test_two_corrections_train_when_they_are_accepted():
    both = {**BALANCED, **WEIGHTED, "accept_double_correction": True, "max_epochs": 1}
    run = train(exact(), target="label", recipe=both)
    assert run.prior is not None
    assert run.prior.effective == pytest.approx((0.1, 0.9))
    assert "'rare' 90 %" in " ".join(run.told)


def test_three_corrections_are_told_as_three_and_trainers_and_estimators_refuse_them_too():
    three = {**BALANCED, "objective": {"targets": {"class_weight": "balanced", "logit_adjustment": 1}}}
    with pytest.raises(MarginsError, match=r"draw and .*class_weight and .*logit_adjustment.*got three"):
        trainer(train=train_rows(120), **three)
    X, y = np.arange(60.0)[:, None], np.arange(60) % 3 // 2
    with pytest.raises(MarginsError, match=r"effects multiply: beside '0', '1' counts 8\.\d times"):
        MarginsClassifier(three).fit(X, y)


def test_two_corrections_are_one_line_of_the_command_and_leave_no_folder(tmp_path, monkeypatch, capsys):
    read_frame(exact()).table.write_csv(tmp_path / "t.csv")
    monkeypatch.chdir(tmp_path)
    asked = ["train", "t.csv", "--target", "label", "--out", "r", "--set", "draw=class_balanced", "--set",
             "objective.targets.logit_adjustment=1"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["margins", *asked])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("margins:")]
    assert len(told) == 1
    assert "81.0 times its share (9.0 by draw class_balanced x 9.0 by logit_adjustment 1)" in told[0]
    assert not (tmp_path / "r").exists()


# Decisions and probabilities


@pytest.mark.parametrize(
    "changes", [BALANCED, WEIGHTED, adjusted(1.0)], ids=["draw", "weights", "adjustment"]
)
def test_decisions_are_for_the_rare_class_and_probabilities_for_the_data(changes: dict, tmp_path):
    recipe_changes = {"max_epochs": 15, "decisions": {"calibration": None}, "metric": "balanced_accuracy"}
    plain, against = (train(rows(3000, 0), recipe={**recipe_changes, **c}) for c in ({}, changes))
    fresh = {"x": rows(3000, 1)["x"]}
    share = {run: np.mean(np.array(run.model.predict(fresh)) == "rare") for run in (plain, against)}
    assert share[against] > share[plain] + 0.1
    p = {run: run.model.predict_proba(fresh)[:, run.model.classes.index("rare")] for run in (plain, against)}
    assert p[against].mean() == pytest.approx(0.1, abs=0.03)
    assert np.abs(p[against] - p[plain]).mean() < 0.04
    assert against.scores["report"]["balanced_accuracy"] > plain.scores["report"]["balanced_accuracy"]
    assert any("as training sees it" in sentence and "'rare' 50 %" in sentence for sentence in against.told)
    loaded = margins.load(against.model.save(tmp_path / "m"))
    assert np.array_equal(loaded.predict_proba(fresh), against.model.predict_proba(fresh))
    assert list(loaded.predict(fresh)) == list(against.model.predict(fresh))


def test_an_estimator_decides_as_its_model_does():
    table = rows(1500, 0)
    X, y = table["x"][:, None], np.array(table["label"])
    fitted = MarginsClassifier(BALANCED, max_epochs=10).fit(X, y)
    assert fitted.predict(X).tolist() == fitted.model_.predict(X).tolist()
    assert (fitted.predict(X) == "rare").mean() > 0.2 > (fitted.predict_proba(X).argmax(1) == 0).mean()


# A calibration and the shift


def sure_rows(num: int, seed: int) -> dict[str, Any]:
    """Few rows of many columns with rare classes: a training of them is far too sure."""
    draws = np.random.default_rng(seed)
    labels = draws.choice(3, num, p=[0.9, 0.07, 0.03])
    x = draws.normal(size=(num, 20)) + 0.9 * np.eye(3, 20)[labels]
    return {f"x{k}": x[:, k] for k in range(20)} | {"label": [NAMES[c] for c in labels]}


SURE = {"max_epochs": 40, "patience": None, "encoder": {"name": "tabular", "dropout": 0.0}}


def truth_of(model: Model, table: dict[str, Any]) -> np.ndarray:
    return np.array([model.classes.index(name) for name in table["label"]])


@pytest.mark.parametrize("kind", ["temperature", "vector", "isotonic"])
def test_a_calibration_has_the_shift_as_its_offset_and_is_loaded_as_it_was(kind: str, tmp_path):
    changes = {**adjusted(1.0), "max_epochs": 3, "decisions": {"calibration": kind}}
    model = train(sure_rows(600, 0), target="label", recipe=changes).model
    assert model.calibration is not None
    assert model.calibration.offset == model.prior_shift
    fresh = sure_rows(300, 1)
    scores, p = model.scores(fresh), model.predict_proba(fresh)
    if isinstance(model.calibration, Temperature):
        z = scores.double() / model.calibration.temperature + torch.tensor(
            model.prior_shift, dtype=torch.float64
        )
        assert p == pytest.approx(z.softmax(1).numpy(), abs=1e-12)
        assert model.calibration.temperature != 1
    loaded = margins.load(model.save(tmp_path / "m"))
    assert np.array_equal(loaded.predict_proba(fresh), p)
    # Decisions are those of raw scores, whatever the calibration.
    assert list(loaded.predict(fresh)) == [model.classes[c] for c in scores.argmax(1)]


def test_a_temperature_of_the_score_alone_is_better_than_one_of_the_corrected_score():
    run = train(sure_rows(1000, 0), target="label", recipe={**SURE, **adjusted(1.0)})
    model, found = run.model, run.model.calibration
    assert isinstance(found, Temperature)
    assert found.temperature > 1.2  # too sure indeed
    select = {name: np.array(cells)[run.division.select] for name, cells in sure_rows(1000, 0).items()}
    corrected = SelectPredictions(model.with_prior(model.scores(select)), truth_of(model, select))
    # As files of before say it: without an offset, fitted on corrected scores.
    other = replace(model, calibration=Temperature.fit(corrected))
    log_loss, fresh = metric_of("classes", "log_loss"), sure_rows(4000, 1)
    here, there, bare = (
        log_loss(m.predict_proba(fresh), truth_of(model, fresh))
        for m in (model, other, replace(model, calibration=None))
    )
    assert here < min(there, bare) - 0.01
    assert run.calibration["report"]["after"]["log_loss"] == run.scores["report"]["log_loss"]
    assert list(other.predict(fresh)) == list(model.predict(fresh))


def test_a_file_without_an_offset_gives_the_probabilities_that_it_gave(tmp_path):
    model = train(sure_rows(600, 0), target="label", recipe={**adjusted(1.0), "max_epochs": 3}).model
    folder = model.save(tmp_path / "m")
    described = json.loads((folder / "model.json").read_text())
    described["calibration"] = {"method": "temperature", "temperature": 0.6, "at_bound": False}
    (folder / "model.json").write_text(json.dumps(described))
    fresh = sure_rows(100, 1)
    corrected = model.scores(fresh).double() + torch.tensor(model.prior_shift, dtype=torch.float64)
    p = margins.load(folder).predict_proba(fresh)
    assert p == pytest.approx((corrected / 0.6).softmax(1).numpy(), abs=1e-12)
    assert np.abs(p - model.predict_proba(fresh)).max() > 0.01


def test_without_a_shift_the_temperature_is_that_of_the_scores():
    run = train(sure_rows(600, 0), target="label", recipe={"max_epochs": 3})
    model, found = run.model, run.model.calibration
    assert isinstance(found, Temperature)
    assert found.offset is None
    select = {name: np.array(cells)[run.division.select] for name, cells in sure_rows(600, 0).items()}
    by_hand = Temperature.fit(SelectPredictions(model.scores(select), truth_of(model, select)))
    assert found.temperature == pytest.approx(by_hand.temperature, rel=1e-12)
    p = (model.scores(select).double() / found.temperature).softmax(1).numpy()
    assert model.predict_proba(select) == pytest.approx(p, abs=1e-12)


# Calibration before and after


def test_probabilities_of_a_balanced_draw_are_worse_before_the_correction_than_after(tmp_path):
    run = train(rows(3000, 0), recipe={**BALANCED, "max_epochs": 10}, out=tmp_path / "r")
    assert run.calibration is not None
    assert set(run.calibration) == {"select", "report"}
    for changed in run.calibration.values():
        assert changed["after"]["log_loss"] < changed["before"]["log_loss"] - 0.05
        assert changed["after"]["ece"] < changed["before"]["ece"]
    report = run.division.report
    raw = run.model.scores({"x": rows(3000, 0)["x"][report]}).double().softmax(1).numpy()
    truth = np.array([run.model.classes.index(rows(3000, 0)["label"][k]) for k in report])
    for name in ("log_loss", "ece"):
        assert run.calibration["report"]["before"][name] == metric_of("classes", name)(raw, truth)
        assert run.calibration["report"]["after"][name] == run.scores["report"][name]
    results = json.loads((tmp_path / "r" / "results.json").read_text())
    assert results["calibration"] == run.calibration == run.model.about["calibration"]
    assert results["prior"] == json.loads(json.dumps(run.prior.to_data()))


def test_a_temperature_is_told_and_a_model_without_either_has_nothing_to_tell():
    plain, warm = (
        train(rows(300, 0), report_share=share, recipe={"max_epochs": 2, "decisions": {"calibration": kind}})
        for share, kind in ((0.2, None), (0.0, "temperature"))
    )
    assert plain.calibration is None
    assert plain.prior is not None
    assert plain.prior.mechanisms == ()
    assert not any("Class prior" in sentence for sentence in plain.told)
    assert set(warm.calibration) == {"select"}
    assert warm.calibration["select"]["after"]["log_loss"] <= warm.calibration["select"]["before"]["log_loss"]


# Label sets

SETS_OF = ([0, 1], [0], [0], [])
SETS = Targets.of_label_sets([list(row) for row in SETS_OF], 3)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "binary_focal"])
def test_training_adds_tau_times_the_log_odds_of_each_label(loss: str):
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    step = StepTargets(SETS, SETS, 0, torch.arange(4))
    counts = torch.tensor([3, 1, 0])

    def value(tau: float, given: torch.Tensor) -> float:
        settings = ObjectiveSettings.model_validate(adjusted(tau, loss)["objective"])
        share = Objective(settings, counts, num_rows=4)(given, given, step)
        return (share.total / share.denominator).item()

    # Shares 3/4 and 1/4; a label without rows has half a row of four.
    log_odds = torch.tensor([math.log(3), -math.log(3), math.log(0.125 / 0.875)])
    assert value(0.7, scores) == pytest.approx(value(0.0, scores + 0.7 * log_odds), rel=1e-5)
    assert value(0.7, scores) != pytest.approx(value(0.0, scores - 0.7 * log_odds), rel=1e-2)


def test_the_ledger_of_label_sets_has_a_share_for_each_label():
    changes = {"task": "label_sets", "metric": "macro_f1", **adjusted(1.0, "binary_cross_entropy")}
    ledger = prior_ledger(recipe(**changes), torch.tensor([30, 5, 0]), NAMES, num_rows=100)
    assert ledger.population == pytest.approx((0.3, 0.05, 0.005))
    assert ledger.mechanisms[0].factor == pytest.approx((7 / 3, 19, 199))
    assert ledger.effective == pytest.approx((0.5, 0.5, 0.5))
    assert ledger.shift().tolist() == pytest.approx([math.log(3 / 7), -math.log(19), -math.log(199)])
    assert "labels in the data: 'usual' 30 %" in ledger.sentences()[0]
    with pytest.raises(MarginsError, match="num_rows"):
        prior_ledger(recipe(**changes), torch.tensor([30, 5, 0]), NAMES)


def tagged(num: int, seed: int) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    given = draws.random((num, 2)) < [0.4, 0.08]
    x = draws.normal(size=(num, 2)) + 1.2 * given
    sets = ["|".join(name for name, on in zip(("often", "rare"), row, strict=True) if on) for row in given]
    return {"x": x[:, 0], "z": x[:, 1], "tags": sets}


def test_adjusted_labels_decide_for_rare_ones_and_their_probabilities_keep_the_shares(tmp_path):
    base = {"max_epochs": 15, "metric": "log_loss", "decisions": {"thresholds": None}}
    roles = {"target": "tags", "target_kind": "label_set", "inputs": ["x", "z"]}
    plain, against = (
        train(tagged(3000, 0), **roles, recipe={**base, **changes})
        for changes in ({}, adjusted(1.0, "binary_cross_entropy"))
    )
    fresh = {key: value for key, value in tagged(3000, 1).items() if key != "tags"}
    rare = against.model.classes.index("rare")
    p = {run: run.model.predict_proba(fresh)[:, rare] for run in (plain, against)}
    assert p[against].mean() == pytest.approx(0.08, abs=0.02)
    assert np.abs(p[against] - p[plain]).mean() < 0.02
    given = {run: np.mean(["rare" in row for row in run.model.predict(fresh)]) for run in (plain, against)}
    assert given[against] > given[plain] + 0.15
    assert set(against.calibration["report"]["after"]) == {"log_loss"}
    changed = against.calibration["report"]
    assert changed["after"]["log_loss"] < changed["before"]["log_loss"] - 0.05
    assert against.scores["report"]["log_loss"] == pytest.approx(changed["after"]["log_loss"])
    assert plain.calibration is None
    loaded = margins.load(against.model.save(tmp_path / "m"))
    assert np.array_equal(loaded.predict_proba(fresh)[:, rare], p[against])


def test_thresholds_of_adjusted_labels_are_of_raw_scores():
    roles = {"target": "tags", "target_kind": "label_set", "inputs": ["x", "z"]}
    changes = {"max_epochs": 6, "metric": "macro_f1", **adjusted(1.0, "binary_cross_entropy")}
    run = train(tagged(1500, 0), **roles, recipe=changes)
    model, table = run.model, tagged(1500, 2)
    frame = read_frame(table)
    scores = model.scores(frame)
    assert model.thresholds is not None
    by_hand = scores.double().numpy() >= model.thresholds.values
    assert model.predict(frame) == [
        [n for n, on in zip(model.classes, r, strict=True) if on] for r in by_hand
    ]
    truth = model.coding.targets(frame.table["tags"])
    metric = metric_of("label_sets", "macro_f1")
    predicted, _ = judged_by(metric, model, scores, truth)
    value = metric(predicted >= 0.5, truth)
    # Had they been fitted on corrected scores, it would be the other way round.
    assert value > metric(model.with_prior(scores) >= torch.from_numpy(model.thresholds.values), truth) + 0.05
    elsewhere = model.thresholds.values - np.array(model.prior_shift)
    assert value > metric(scores.double() >= torch.from_numpy(elsewhere), truth) + 0.05
