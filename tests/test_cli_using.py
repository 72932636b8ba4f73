"""`train`, `evaluate`, `predict`, `embed` and `profile` as a user meets them on the command line."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import margins
from margins.cli.main import run
from margins.data import streaming

ROWS = "text,topic\n" + "".join(
    f"{['money back please', 'password is locked', 'parcel came late'][i % 3]} {i},{'abc'[i % 3]}\n"
    for i in range(90)
)


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(ROWS)

    def called(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["margins", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run()
        captured = capfdbinary.readouterr()
        return Ended(int(stopped.value.code or 0), captured.out.decode(), captured.err.decode())

    return called


@pytest.fixture
def trained(command: Any) -> Any:
    assert command("train", "t.csv", "--target", "topic", "--epochs", "3", "--out", "r").code == 0
    return command


def test_train_tells_decisions_epochs_scores_and_how_to_go_on(command: Any, tmp_path: Path):
    ended = command("train", "t.csv", "--epochs", "2", "--out", "r", "--target", "topic")
    assert ended.code == 0
    assert "target: column 'topic' (3 classes)" in ended.err
    assert "epoch 2: loss" in ended.err
    assert "macro F1" in ended.out
    assert "margins predict r FILE" in ended.out
    assert {p.name for p in (tmp_path / "r").iterdir()} == {
        "run.json", "recipe.yaml", "log.jsonl", "checkpoint.safetensors", "results.json", "model",
    }  # fmt: skip


def test_json_is_all_that_stands_on_standard_output(command: Any):
    found = json.loads(command("train", "t.csv", "--epochs", "1", "--out", "r", "--json", "-t", "topic").out)
    assert set(found) == {"folder", "scores", "told", "fitted"}
    scores = json.loads(command("evaluate", "r", "t.csv", "--json").out)
    assert scores["rows"] == 90
    assert set(scores["metrics"]["macro_f1"]) == {"value", "low", "high"}
    profile = json.loads(command("profile", "t.csv", "-t", "topic", "--json").out)
    assert profile["class_counts"] == {"a": 30, "b": 30, "c": 30}


def test_without_out_the_run_goes_to_a_folder_of_its_own(command: Any, tmp_path: Path):
    assert command("train", "t.csv", "-t", "topic", "--epochs", "1").code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("t-")


def test_a_recipe_file_options_and_set_are_laid_over_each_other(command: Any, tmp_path: Path):
    (tmp_path / "r.yaml").write_text("max_epochs: 1\nbatch_size: 7\noptimizer: {weight_decay: 0.5}\n")
    ended = command(
        "train", "t.csv", "-t", "topic", "--out", "r", "--recipe", "r.yaml", "--batch-size", "9",
        "--learning-rate", "0.01", "--set", "optimizer.weight_decay=0.25", "--set", "patience=null",
        "--loss", "focal", "--set", "objective.settings.gamma=1",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    recipe = margins.load("r").recipe
    assert (recipe.max_epochs, recipe.batch_size, recipe.patience) == (1, 9, None)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (0.01, 0.25)
    assert (recipe.objective.loss, recipe.objective.settings) == ("focal", {"gamma": 1})


def test_predictions_are_rows_of_the_file_in_their_order(trained: Any, tmp_path: Path):
    rows = list(csv.DictReader(io.StringIO(trained("predict", "r", "t.csv", "--proba").out)))
    assert [row["prediction"] for row in rows] == ["abc"[i % 3] for i in range(90)]
    assert sum(float(rows[0][f"p({name})"]) for name in "abc") == pytest.approx(1)
    lines = trained("predict", "r", "t.csv", "--json").out.splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [row["prediction"] for row in rows]
    assert "90 predictions: p.csv" in trained("predict", "r", "t.csv", "--out", "p.csv").out
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "prediction"


def test_predictions_of_a_stream_are_those_of_the_whole(trained: Any, monkeypatch: pytest.MonkeyPatch):
    whole = trained("predict", "r", "t.csv", "--proba").out
    pieces = []
    real = streaming.stream_frames

    def small(path: Path) -> Any:
        for frame in real(path, rows=17):
            pieces.append(len(frame))
            yield frame

    monkeypatch.setattr(streaming, "stream_frames", small)
    streamed = trained("predict", "r", "t.csv", "--proba").out
    assert len(pieces) == 6
    ours, theirs = (list(csv.reader(io.StringIO(text))) for text in (streamed, whole))
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    assert np.allclose(
        [[float(c) for c in r[1:]] for r in ours[1:]], [[float(c) for c in r[1:]] for r in theirs[1:]]
    )


def test_a_stream_that_breaks_leaves_no_file(trained: Any, tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n' * 5 + "{oh\n")
    ended = trained("predict", "r", "bad.jsonl", "--out", "p.csv")
    assert ended.code == 2
    assert "line 6" in ended.err
    assert not list(tmp_path.glob("p.csv*"))


def test_embeddings_are_a_matrix(trained: Any, tmp_path: Path):
    assert "90 vectors of width 128: v.npy" in trained("embed", "r", "t.csv", "--out", "v.npy").out
    assert np.load(tmp_path / "v.npy").shape == (90, 128)


def test_evaluate_says_so_when_the_rows_are_those_of_training(trained: Any, tmp_path: Path):
    assert "trained from" in trained("evaluate", "r", "t.csv").out
    (tmp_path / "new.csv").write_text("\n".join(ROWS.splitlines()[:40]) + "\n")
    ended = trained("evaluate", "r", "new.csv", "--metric", "accuracy,macro_f1")
    assert "trained from" not in ended.out
    assert "95% interval" in ended.out


def test_profile_tells_roles_classes_and_copies(command: Any, tmp_path: Path):
    (tmp_path / "t.csv").write_text(ROWS + "money back please 0,b\n" * 2)
    told = command("profile", "t.csv", "--target", "topic").out
    assert "input (text)" in told
    assert "3 classes" in told
    assert "2 of 92 rows (2.2%) copy the inputs of an earlier row, 2 of them with another target" in told


def test_curves_go_to_the_loggers_asked_for(command: Any, tmp_path: Path):
    assert (
        command("train", "t.csv", "-t", "topic", "--epochs", "2", "--out", "a", "--logger", "csv").code == 0
    )
    (metrics,) = (tmp_path / "a" / "csv").rglob("metrics.csv")
    assert "select_score" in metrics.read_text().splitlines()[0]
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert (
        command(
            "train", "t.csv", "-t", "topic", "--epochs", "2", "--out", "b", "--logger", "tensorboard"
        ).code
        == 0
    )
    assert list((tmp_path / "b" / "tensorboard").rglob("events.out.*"))


def test_mlflow_gets_the_numbers_of_every_epoch(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ended = command("train", "t.csv", "-t", "topic", "--epochs", "2", "--out", "a", "--logger", "mlflow")
    assert ended.code == 2
    assert "MLFLOW_TRACKING_URI" in ended.err
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert (
        command("train", "t.csv", "-t", "topic", "--epochs", "2", "--out", "b", "--logger", "mlflow").code
        == 0
    )
    client = mlflow.MlflowClient(tracking_uri=store)
    (logged,) = client.search_runs([client.get_experiment_by_name("margins").experiment_id])
    assert len(client.get_metric_history(logged.info.run_id, "select_score")) == 2
    assert logged.info.run_name == "b"


@pytest.mark.parametrize(
    "name",
    ["train", "evaluate", "predict", "embed", "compare", "profile", "inductive-bias", "methods",
     "explain-nan", "demo"],
)  # fmt: skip
def test_every_command_explains_itself(name: str, command: Any):
    ended = command(name, "--help")
    assert ended.code == 0
    assert f"margins {name}" in ended.out
    assert len(ended.out.splitlines()) > 8


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands(shell: str):
    shown = subprocess.run(
        [sys.executable, "-m", "margins"], capture_output=True, text=True, check=False,
        env={**os.environ, "_MARGINS_COMPLETE": f"source_{shell}"},
    )  # fmt: skip
    assert "_MARGINS_COMPLETE" in shown.stdout
    assert "margins" in shown.stdout
