"""Roles hold: fitting sees training rows, deciding sees select rows, and judging opens its rows once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from margins.data.choosing import choose_columns
from margins.data.reading import read_frame
from margins.targets import Targets
from margins.training.defaults import default_recipe
from margins.training.finishing import judged_by
from margins.training.fit import train
from margins.training.job import Job
from margins.training.predicting import metric_of
from margins.training.problem import pose

WORDS = ["refund", "login", "parcel"]


def table(num: int = 200) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    x = draws.normal(size=num)
    split = ["train"] * (num // 2) + ["select"] * (num // 4) + ["test"] * (num // 4)
    city = [f"{role}-{draws.integers(3)}" for role in split]
    return {"x": x, "city": city, "label": np.where(x > 0, "p", "n").tolist(), "split": split}


def tags(num: int = 300) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    sets = [
        [w for w, p in zip(WORDS, (0.5, 0.3, 0.1), strict=True) if draws.random() < p] for _ in range(num)
    ]
    texts = [" ".join([*s, *draws.choice(WORDS, 1)]) + f" {i}" for i, s in enumerate(sets)]
    return {"text": texts, "tags": ["|".join(s) for s in sets]}


def test_preparations_and_counts_are_fitted_on_training_rows_alone():
    frame = read_frame(table())
    columns, _ = choose_columns(frame, target="label")
    problem, told = pose(frame, columns)
    job = Job(problem, default_recipe(columns))
    vocabulary = job.prepared.problem.columns.inputs
    assert vocabulary == {"x": "numeric", "city": "categorical"}
    assert job._preparation.vocabularies == {"city": ["train-0", "train-1", "train-2"]}
    assert any("By the column 'split'" in sentence for sentence in told)
    # Categories of the other roles are unknown to the model, and so all alike.
    assert job.prepared.select.inputs.categories.unique().tolist() == [0]
    assert job.prepared.train.inputs.categories.min() > 0


@pytest.mark.parametrize(("role", "changes_model"), [("test", False), ("select", True)])
def test_labels_of_report_rows_change_nothing_in_the_model(role: str, changes_model: bool):
    plain, other = table(), table()
    turned = {"p": "n", "n": "p"}
    other["label"] = [
        turned[y] if s == role and i % 3 else y
        for i, (y, s) in enumerate(zip(plain["label"], plain["split"], strict=True))
    ]
    found = [
        train(t, target="label", recipe={"max_epochs": 12, "patience": None, "metric": "log_loss"})
        for t in (plain, other)
    ]
    states = [run.model.network.state_dict() for run in found]
    same = all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    same = same and found[0].model.calibration == found[1].model.calibration
    assert same is not changes_model
    assert (
        found[0].scores["report" if role == "test" else "select"]
        != found[1].scores["report" if role == "test" else "select"]
    )


def test_thresholds_of_labels_decide_predictions_and_scores_alike():
    run = train(
        tags(), target="tags", target_kind="label_set", recipe={"max_epochs": 3, "metric": "macro_f1"}
    )
    model = run.model
    assert model.thresholds is not None
    assert np.abs(model.thresholds.values).max() > 0.05
    fresh = tags(120)
    frame = read_frame({"text": fresh["text"]})
    scores = model.scores(frame)
    by_hand = [
        [name for name, s, cut in zip(model.classes, row, model.thresholds.values, strict=True) if s >= cut]
        for row in scores.double().tolist()
    ]
    assert model.predict(frame) == by_hand
    plain = [[n for n, s in zip(model.classes, row, strict=True) if s >= 0] for row in scores.tolist()]
    assert plain != by_hand
    truth = model.coding.targets(read_frame(fresh).table["tags"])
    predicted, _ = judged_by(metric_of("label_sets", "macro_f1"), model, scores, truth)
    assert ((predicted >= 0.5).tolist()) == [[n in row for n in model.classes] for row in by_hand]


def test_report_rows_are_opened_once():
    from margins.training import finishing
    from margins.training.problem import Prepared

    opened = []
    real = finishing.scores_of

    def counted(fabric: Any, model: Any, prepared: Prepared) -> Any:
        found = real(fabric, model, prepared)
        opened.append(prepared.report.openings)
        return found

    from margins.training import fit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "scores_of", counted)
        train(table(), target="label", recipe={"max_epochs": 2})
    assert opened == [1]


def test_weights_of_rows_reach_the_loss_and_the_metric():
    rows = table()
    rows["w"] = [0.0 if y == "n" else 1.0 for y in rows["label"]]
    run = train(rows, target="label", weight="w", recipe={"max_epochs": 20, "metric": "accuracy"})
    assert run.scores["report"]["accuracy"] == 1
    assert set(run.model.predict({"x": [-2.0, 2.0], "city": ["train-0"] * 2})) == {"p"}
    assert isinstance(run.model.coding.targets(read_frame(rows).table["label"]), Targets)


def test_without_a_report_role_all_other_rows_train_and_choose():
    rows = {k: v for k, v in table().items() if k != "split"}
    run = train(rows, target="label", report_share=0.0, recipe={"max_epochs": 2})
    assert set(run.scores) == {"select"}
    assert len(run.division.report) == 0
    assert len(run.division.train) + len(run.division.select) == 200


def test_values_are_judged_in_their_own_unit_at_every_epoch():
    rows = {"x": table()["x"], "price": 1000 + 50 * table()["x"]}
    run = train(rows, target="price", target_kind="value", recipe={"max_epochs": 3, "metric": "rmse"})
    last = run.fitted[0].select_scores[run.fitted[0].epoch - 1]
    assert last == pytest.approx(run.scores["select"]["rmse"], rel=1e-5)
    assert last > 2  # standardised values would be off by less than one
