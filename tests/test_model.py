"""From data to a saved model: the same predictions in a fresh process, and every mistake told by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import margins
from margins.data.reading import read_frame
from margins.errors import MarginsError
from margins.training.evaluating import evaluate
from margins.training.fit import resume, train
from margins.training.nonfinite import read_bundle

NAMES = ["refund", "login", "parcel"]
WORDS = {
    "refund": "money back charge paid",
    "login": "password account locked enter",
    "parcel": "late box courier lost",
}


def tickets(num: int = 240, seed: int = 0) -> dict[str, list[Any]]:
    draws = np.random.default_rng(seed)
    topics = [NAMES[i] for i in draws.choice(3, num, p=[0.6, 0.3, 0.1])]
    texts = [
        " ".join(
            draws.choice(WORDS[t].split(), 2).tolist() + draws.choice(["please", "today", "why"], 1).tolist()
        )
        + f" {draws.integers(1000)}"
        for t in topics
    ]
    return {"text": texts, "topic": topics}


def numbers(num: int = 240, seed: int = 0) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(num, 3))
    return {
        "a": x[:, 0], "b": x[:, 1], "colour": [["red", "blue"][int(v > 0)] for v in x[:, 2]],
        "price": 100 + 10 * x[:, 0] + 5 * (x[:, 2] > 0), "label": (x[:, 0] + x[:, 1] > 0).astype(int),
    }  # fmt: skip


def tagged(num: int = 240, seed: int = 0) -> dict[str, list[Any]]:
    draws = np.random.default_rng(seed)
    sets = [[n for n in NAMES if draws.random() < 0.4] for _ in range(num)]
    texts = [
        " ".join(w for n in s for w in draws.choice(WORDS[n].split(), 2)) + f" {i}"
        for i, s in enumerate(sets)
    ]
    return {"text": texts, "tags": ["|".join(s) for s in sets]}


def vectors(num: int = 240, seed: int = 0) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    labels = draws.integers(3, size=num)
    x = 3 * np.eye(3, 8)[labels] + draws.normal(size=(num, 8))
    return {"embedding": x.astype(np.float32), "label": [NAMES[i] for i in labels]}


QUICK = {"max_epochs": 4}
TASKS: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "text": (tickets, {"target": "topic"}, QUICK, "accuracy"),
    "table": (numbers, {"target": "label", "inputs": ["a", "b", "colour"]}, QUICK, "accuracy"),
    "values": (numbers, {"target": "price", "inputs": ["a", "b", "colour"]}, {"max_epochs": 30}, "r2"),
    "label sets": (tagged, {"target": "tags", "target_kind": "label_set"}, QUICK, "micro_f1"),
    "embeddings": (vectors, {}, QUICK, "accuracy"),
    "matches": (vectors, {}, {**QUICK, "task": "matches", "batch_size": 32}, "map@r"),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: train(make(), recipe=recipe, out=folder / name, **roles)
        for name, (make, roles, recipe, _) in TASKS.items()
    }


@pytest.mark.parametrize("name", TASKS)
def test_every_task_learns_from_defaults_and_scores_rows_it_did_not_see(name: str, runs: dict[str, Any]):
    metric = TASKS[name][3]
    scores = runs[name].scores
    assert set(scores) == {"select", "report"}
    assert 0.65 < scores["report"][metric] <= 1
    assert runs[name].told


@pytest.mark.parametrize("name", TASKS)
def test_a_loaded_model_says_in_a_fresh_process_what_it_said_in_this_one(
    name: str, runs: dict[str, Any], tmp_path: Path
):
    make, _, recipe, _ = TASKS[name]
    run = runs[name]
    rows = {key: value[:50] for key, value in make(seed=5).items() if key in run.model.columns.inputs}
    frame = read_frame(rows)
    frame.table.write_parquet(tmp_path / "rows.parquet")
    verb = "embed" if recipe.get("task") == "matches" else "scores"
    code = (
        "import sys, numpy, margins\n"
        f"model = margins.load({str(run.folder)!r})\n"
        f"found = model.{verb}({str(tmp_path / 'rows.parquet')!r})\n"
        f"numpy.save({str(tmp_path / 'o.npy')!r}, numpy.asarray(found))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120
    )
    here = np.asarray(getattr(run.model, verb)(frame))
    assert np.array_equal(np.load(tmp_path / "o.npy"), here)
    assert len(here) == 50
    again = margins.load(run.folder)
    if verb == "scores":
        assert list(map(str, again.predict(frame))) == list(map(str, run.model.predict(frame)))
    assert again.about["fingerprint"] == run.model.about["fingerprint"]


def test_predictions_are_names_probabilities_and_units_of_the_target(runs: dict[str, Any]):
    text = runs["text"].model
    assert text.predict(["money back please", "password locked"]).tolist() == ["refund", "login"]
    shares = text.predict_proba(["money back please"])
    assert shares.shape == (1, 3)
    assert shares.sum() == pytest.approx(1)
    assert text.classes == ["refund", "login", "parcel"]
    price = runs["values"].model.predict({"a": [1.0, -1.0], "b": [0.0, 0.0], "colour": ["red", "red"]})
    assert price[0] - price[1] == pytest.approx(20, abs=8)
    tags = runs["label sets"].model.predict(["money charge password locked", "nothing here"])
    assert set(tags[0]) == {"refund", "login"}
    assert runs["embeddings"].model.predict(np.eye(3, 8, dtype=np.float32) * 3).tolist() == NAMES
    assert runs["matches"].model.embed(np.zeros((2, 8), np.float32)).shape == (2, 128)


def test_a_category_that_training_never_saw_is_no_reason_to_stop(runs: dict[str, Any]):
    model = runs["table"].model
    assert len(model.predict({"a": [0.0], "b": [1.0], "colour": ["green"]})) == 1


def test_evaluating_gives_intervals_and_knows_its_own_training_data(runs: dict[str, Any]):
    model = runs["text"].model
    found = evaluate(model, read_frame(tickets(seed=9)))
    values = found["metrics"]["accuracy"]
    assert values["low"] <= values["value"] <= values["high"]
    assert found["seen"] is None
    assert "trained from" in evaluate(model, read_frame(tickets()))["seen"]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda r: r["text"].model.predict({"txt": ["a"]}), "the column 'text', which the model reads.*txt"),
        (lambda r: r["values"].model.predict_proba(numbers(1)), "model of classes"),
        (lambda r: r["matches"].model.predict(np.zeros((1, 8), np.float32)), "use embed"),
        (lambda r: r["embeddings"].model.predict(np.zeros((1, 5), np.float32)), "8"),
        (lambda r: r["table"].model.predict({"a": [float("nan")], "b": [1.0], "colour": ["red"]}), "'a'"),
        (lambda r: evaluate(r["text"].model, read_frame({"text": ["x"], "topc": ["a"]})), "did you mean"),
        (lambda r: evaluate(r["text"].model, read_frame({"text": ["x"], "topic": ["other"]})), "'other'"),
        (lambda r: evaluate(r["text"].model, read_frame(tickets(20, 3)), metrics=["rmse"]), "rmse|classes"),
    ],
)  # fmt: skip
def test_a_wrong_use_of_a_model_is_told(use: Any, words: str, runs: dict[str, Any]):
    with pytest.raises(MarginsError, match=words):
        use(runs)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: (m / "model.json").unlink(), "model.json"),
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors"),
        (lambda m: (m / "model.json").write_text("{"), "whole description"),
        (lambda m: (m / "model.json").write_text("{}"), "format"),
        (lambda m: _cut(m / "model.safetensors"), "copy"),
        (lambda m: _edit(m, "recipe", "task", "clases"), "recipe: task"),
        (lambda m: _edit(m, "preparation", "numeric", 3), "preparation"),
        (lambda m: _edit(m, "coding", "kind", "none"), "none"),
    ],
)  # fmt: skip
def test_a_damaged_model_is_refused_by_name(damage: Any, words: str, runs: dict[str, Any], tmp_path: Path):
    folder = runs["table"].model.save(tmp_path / "m")
    margins.load(folder)
    damage(folder)
    with pytest.raises(MarginsError, match=words):
        margins.load(folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def _edit(folder: Path, part: str, key: str, value: Any) -> None:
    described = json.loads((folder / "model.json").read_text())
    described[part][key] = value
    (folder / "model.json").write_text(json.dumps(described))


def test_a_run_killed_at_any_time_ends_like_one_that_was_not(tmp_path: Path):
    read_frame(tickets(400)).table.write_csv(tmp_path / "t.csv")
    command = [sys.executable, "-m", "margins", "train", str(tmp_path / "t.csv"), "--target", "topic",
               "--epochs", "25", "--set", "patience=null", "--json"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def done(more: list[str]) -> dict[str, Any]:
        out = subprocess.run(
            [*command[:4], *more], check=True, capture_output=True, env=environment, timeout=240
        )
        return json.loads(out.stdout)

    whole = done([*command[4:], "--out", str(tmp_path / "a")])
    kills = 0
    killed = subprocess.Popen(
        [*command, "--out", str(tmp_path / "b"), "--checkpoint-every", "0.2"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = tmp_path / "b" / "log.jsonl"
    while killed.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= 5:
            killed.send_signal(signal.SIGKILL)
            kills += 1
            break
        time.sleep(0.005)
    killed.wait()
    assert kills == 1
    assert not (tmp_path / "b" / "results.json").exists()
    resumed = done(["--resume", str(tmp_path / "b"), "--json"])
    assert resumed["scores"] == whole["scores"]
    assert [without_seconds(f) for f in resumed["fitted"]] == [without_seconds(f) for f in whole["fitted"]]
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]
    assert not list((tmp_path / "b").rglob("*.partial"))


def without_seconds(fitted: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in fitted["history"]]


def test_a_plan_hands_the_network_over_and_is_gone_on_with_in_its_second_phase(tmp_path: Path):
    plan = {
        "max_epochs": 3, "patience": None,
        "plan": [
            {
                "changes": {"draw": {"name": "class_balanced"}, "max_epochs": 4}, "frozen": ["encoder"],
                "fresh_head": True,
            }
        ],
    }  # fmt: skip
    whole = train(tickets(), target="topic", recipe=plan, out=tmp_path / "a")
    assert [len(f.history) for f in whole.fitted] == [3, 4]

    class StopInSecondPhase:
        epochs = 0

        def step_done(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
            if self.epochs == 5 and step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def epoch_done(self, record: Any) -> None:
            self.epochs += 1

    with pytest.raises(KeyboardInterrupt):
        train(tickets(), target="topic", recipe=plan, out=tmp_path / "b", watcher=StopInSecondPhase())
    resumed = resume(tmp_path / "b", tickets())
    assert [f.select_scores for f in resumed.fitted] == [f.select_scores for f in whole.fitted]
    assert resumed.scores == whole.scores
    lines = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [(row["phase"], row["epoch"]) for row in lines] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
    ]


def test_a_run_is_not_gone_on_with_other_data(tmp_path: Path):
    train(tickets(), target="topic", recipe={"max_epochs": 1}, out=tmp_path / "a")
    with pytest.raises(MarginsError, match="with other content"):
        resume(tmp_path / "a", tickets(seed=1))
    with pytest.raises(MarginsError, match="data frame that the run began with"):
        resume(tmp_path / "a")
    with pytest.raises(MarginsError, match=r"run\.json"):
        resume(tmp_path / "b")


def test_bad_columns_leave_no_folder_behind(tmp_path: Path):
    with pytest.raises(MarginsError):
        train(tickets(), target="topc", out=tmp_path / "a")
    with pytest.raises(MarginsError, match="a role of a column"):
        train(tickets(), tagret="topic", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("where", ["input", "rate"])
def test_the_first_number_that_is_not_finite_stops_the_run_and_is_explained(where: str, tmp_path: Path):
    table = numbers(120)
    recipe: dict[str, Any] = {"max_epochs": 5, "optimizer": {"name": "sgd"}}
    if where == "rate":
        recipe["optimizer"] |= {"learning_rate": 1e30}
    else:
        table["a"] = table["a"].copy()
        table["a"][7] = 1e300
        table["b"] = table["b"] * 1e200
        recipe["encoder"] = {"name": "tabular", "dropout": 0.0}
    roles = {"target": "label", "inputs": ["a", "b", "colour"]}
    with pytest.raises(MarginsError, match="explain-nan") as told:
        train(table, recipe=recipe, out=tmp_path / "r", **roles)
    found = read_bundle(tmp_path / "r")
    assert found.tensor in str(told.value)
    assert found.row_ids
    assert max(found.row_ids) < 120
    assert found.cure in str(told.value)
    with pytest.raises(MarginsError, match="no nonfinite"):
        read_bundle(tmp_path)


def test_images_in_memory_and_on_disk_train_alike(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    draws = np.random.default_rng(0)
    for label in ("dark", "light"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for k in range(40):
            pixels = draws.integers(0, 120, (8, 8), dtype=np.uint8) + (120 if label == "light" else 0)
            image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / label / f"{k}.png")
    trained = train(tmp_path / "photos", recipe={"max_epochs": 2, "batch_size": 16}, threads=1)
    assert trained.scores["report"]["accuracy"] > 0.8
    some = next((tmp_path / "photos" / "dark").iterdir())
    assert torch.is_tensor(trained.model.scores({"image": [str(some)]}))
