"""What a user meets on the command line: exit codes, one line an error, nothing left behind."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import margins.compare
import margins.compare.demo
from made_up_results import made_up_result
from margins.cards import Card, LossCard
from margins.cli import comparison, methods
from margins.cli.main import run
from margins.cli.progress import PLAIN_LINES, TrialProgress
from margins.compare import Candidate, TrialDone, leaving
from margins.compare.kept.folder import STORE
from margins.compare.kept.store import RunStore
from margins.compare.results import ComparisonResult
from margins.compare.trials import bench
from margins.evidence import EffectRecord, Method, StudyRecord
from margins.training.request import Roles

ROWS = "text,topic,size\n" + "".join(f"word{i} again,{'ab'[i % 2]},{i}\n" for i in range(20))
ASKED = ("--input", "text", "--target", "topic", "--metric", "macro_f1")
# A comparison that takes a second: one step a training, no pilot, nothing kept to report.
SMALL = ("--folds", "2", "--epochs", "1", "--spread", "0.1", "--report-share", "0")
RARE = "text,topic\n" + "".join(f"word{i} again,{'ba'[i % 5 > 0]}\n" for i in range(40))
DOUBLE = (
    "both:\n  changes:\n    draw: {name: class_balanced}\n    objective: {targets: {logit_adjustment: 1}}\n"
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def margins_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run `margins` in a folder of its own that holds data.csv."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "data.csv").write_text(ROWS)

    def command(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["margins", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run()
        captured = capsys.readouterr()
        return Ended(int(stopped.value.code or 0), captured.out, captured.err)

    return command


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put a made-up result in place of the training; give what `compare` was called with."""
    calls: list[dict[str, Any]] = []

    def compare(
        frame: object, metric: str, *, out: Path, on_trial_done: TrialProgress, tell: Any, **options: Any
    ) -> ComparisonResult:
        calls.append({"frame": frame, "metric": metric, **options})
        out.mkdir(parents=True, exist_ok=True)
        tell("target: column 'topic' (2 classes)")
        for done in range(1, 41):
            on_trial_done(trial(done, 40))
        return made_up_result()

    monkeypatch.setattr(margins.compare, "compare", compare, raising=False)
    return calls


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The loss of every training that ran, in their order."""
    losses: list[str] = []

    def watched(where: Any) -> None:
        train_problem = where.train_problem

        def train(problem: Any, recipe: Any, **options: Any) -> Any:
            losses.append(recipe.objective.loss)
            return train_problem(problem, recipe, **options)

        monkeypatch.setattr(where, "train_problem", train)

    for where in (bench, leaving):
        watched(where)
    return losses


def trial(done: int, total: int) -> TrialDone:
    return TrialDone(done=done, total=total, from_store=0, recipe="focal", place="outer fold 1", seconds=1.0)


def result_in(folder: Path) -> ComparisonResult:
    return ComparisonResult.load(folder / "results.json")


def scores_in(folder: Path) -> dict[str, list[float]]:
    return {recipe.name: recipe.fold_scores for recipe in result_in(folder).recipes}


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def assert_one_line(ended: Ended, *, code: int) -> None:
    assert ended.code == code, ended
    assert ended.out == ""
    assert re.fullmatch(r"margins: [^\n]+\n", ended.err), ended.err


def test_a_comparison_ends_with_both_files_the_answer_and_the_path(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path
) -> None:
    ended = margins_command("compare", "data.csv", *ASKED, "--out", "here/run")
    assert ended.code == 0
    assert names_below(tmp_path / "here") == ["run", "run/report.html", "run/results.json"]
    assert ComparisonResult.load(tmp_path / "here/run/results.json") == made_up_result()
    assert (tmp_path / "here/run/report.html").read_text().startswith("<!doctype html>")
    assert made_up_result().answer in ended.out
    last = f"report: {Path('here/run/report.html')}\nmodel: {Path('here/run/model')} ("
    assert last in ended.out
    assert ended.out[ended.out.index(last) + len(last) :].count("\n") == 1
    assert "\x1b" not in ended.out + ended.err
    assert (tmp_path / "data.csv").read_text() == ROWS
    places = [ended.out.index(f" {recipe.title} ") for recipe in made_up_result().recipes]
    assert places == sorted(places)


def test_options_reach_the_comparison(margins_command: Command, made_up: list[dict[str, Any]]) -> None:
    ended = margins_command(
        "compare", "data.csv", "--input", "size", "--target", "topic", "--metric", "accuracy",
        "--kind", "size=numeric", "--weight", "w", "--group", "g", "--target-kind", "label",
        "--separator", "/", "--split", "part", "--folds", "4", "--repeats", "3", "--seeds", "2",
        "--candidates", "focal, gce", "--epochs", "7", "--encoder", "tabular",
        "--set", "optimizer.learning_rate=0.01", "--set", "batch_size=32", "--positive", "b", "--seed", "11",
        "--budget", "12:200", "--rope", "0.02", "--spread", "0.03", "--report-share", "0.2",
        "--on", "processes:3", "--device", "auto", "--force", "--accept-double-correction",
    )  # fmt: skip
    assert ended.code == 0, ended
    (call,) = made_up
    frame = call.pop("frame")
    assert (frame.names, len(frame), frame.source) == (["text", "topic", "size"], 20, "data.csv")
    roles = Roles(
        inputs=["size"], target="topic", kinds={"size": "numeric"}, weight="w", group="g",
        target_kind="label", separator="/", split="part",
    )  # fmt: skip
    assert call == {
        "metric": "accuracy", "num_folds": 4, "num_repeats": 3, "num_seeds": 2,
        "candidates": ["focal", "gce"], "roles": roles, "positive": "b", "seed": 11, "budget": "12:200",
        "rope": 0.02, "spread": 0.03, "report_share": 0.2, "on": "processes:3", "device": "auto",
        "force": True,
        "training": {
            "encoder": {"name": "tabular"}, "max_epochs": 7, "optimizer": {"learning_rate": 0.01},
            "batch_size": 32, "accept_double_correction": True,
        },
    }  # fmt: skip


def test_what_is_not_said_is_left_to_the_comparison_and_what_it_decides_is_told(
    margins_command: Command, made_up: list[dict[str, Any]]
) -> None:
    ended = margins_command("compare", "data.csv", "--metric", "accuracy")
    assert ended.code == 0, ended
    (call,) = made_up
    call.pop("frame")
    assert call == {
        "metric": "accuracy", "roles": Roles(), "training": {}, "positive": None, "candidates": None,
        "num_folds": 5, "num_repeats": 1, "num_seeds": 1, "seed": 0, "budget": "quick", "rope": "auto",
        "spread": None, "report_share": 0.15, "on": "local", "device": "cpu", "force": False,
    }  # fmt: skip
    assert "target: column 'topic' (2 classes)" in ended.err


@pytest.mark.parametrize(("text", "rope"), [("auto", "auto"), ("none", None), ("0.02", 0.02), ("0", 0.0)])
def test_a_rope_is_a_number_or_one_of_two_words(
    margins_command: Command, made_up: list[dict[str, Any]], text: str, rope: object
) -> None:
    assert margins_command("compare", "data.csv", *ASKED, "--rope", text).code == 0
    assert made_up[0]["rope"] == rope


def test_names_and_files_of_candidates_come_together(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path
) -> None:
    text = "sharp:\n  title: Sharp focal loss\n  changes: {objective: {loss: focal, settings: {gamma: 4}}}\n"
    (tmp_path / "own.yaml").write_text(text)
    assert margins_command("compare", "data.csv", *ASKED, "--candidates", "mixup, own.yaml").code == 0
    name, own = made_up[0]["candidates"]
    assert name == "mixup"
    assert isinstance(own, Candidate)
    assert (own.name, own.title, own.settings) == (
        "sharp", "Sharp focal loss", {"objective.loss": "focal", "objective.settings.gamma": 4},
    )  # fmt: skip


def test_embeddings_are_joined_to_the_rows(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path
) -> None:
    np.save(tmp_path / "vectors.npy", np.zeros((20, 3), np.float32))
    ended = margins_command("compare", "data.csv", *ASKED, "--embeddings", "vectors.npy")
    assert ended.code == 0, ended
    assert made_up[0]["frame"].names == ["text", "topic", "size", "embedding"]


@pytest.mark.parametrize("positive", ["a", "b"])
def test_the_positive_class_is_named_in_what_is_written(
    margins_command: Command, tmp_path: Path, positive: str
) -> None:
    options = ("--candidates", "focal", *SMALL, "--positive", positive, "--out", "run")
    ended = margins_command("compare", "data.csv", *ASKED[:4], "--metric", "average_precision", *options)
    assert ended.code == 0, ended
    description = result_in(tmp_path / "run").description
    assert description.protocol[-1] == f"The positive class is {positive!r}, as asked for."
    assert list(description.class_counts.values()) == sorted(description.class_counts.values(), reverse=True)


@pytest.mark.parametrize("inputs", [("--input", "u,v"), ("--input", "u", "--input", "v"), ("-i", " u , v ")])
def test_inputs_come_with_commas_or_repeated(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path, inputs: tuple[str, ...]
) -> None:
    (tmp_path / "pairs.csv").write_text("u,v,y\n" + "".join(f"{i},{-i},{'ab'[i % 2]}\n" for i in range(12)))
    assert margins_command("compare", "pairs.csv", *inputs, "--target", "y", "--metric", "accuracy").code == 0
    assert made_up[0]["roles"].inputs == ["u", "v"]


def test_the_folder_is_named_by_the_question(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path
) -> None:
    def folders(*more: str) -> set[str]:
        assert margins_command("compare", "data.csv", *ASKED, *more).code == 0
        return {path.name for path in (tmp_path / "runs").iterdir()}

    (first,) = folders()
    assert re.fullmatch(r"data-[0-9a-f]{8}", first)
    assert names_below(tmp_path / "runs" / first) == ["report.html", "results.json"]
    same = ("--repeats", "3", "--folds", "2", "--candidates", "focal", "--budget", "standard", "--seed", "1")
    assert folders() == folders(*same) == {first}
    for num, more in enumerate((("--metric", "accuracy"), ("--input", "size"), ("--group", "size")), 2):
        assert len(folders(*more)) == num
    (tmp_path / "data.csv").write_text(ROWS + "one more,a,20\n")
    assert len(folders()) == 5


def test_json_is_all_that_stands_on_standard_output(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path
) -> None:
    ended = margins_command("compare", "data.csv", *ASKED, "--json", "--out", "run")
    assert json.loads(ended.out) == dataclasses.asdict(made_up_result())
    assert ended.out == (tmp_path / "run/results.json").read_text()
    assert "40 of 40 trainings" in ended.err
    assert str(Path("run/report.html")) in ended.err


def test_the_demo_writes_a_run_too(
    margins_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes: list[dict[str, int]] = []

    def run_demo(*, out: Path, on_trial_done: TrialProgress, tell: Any, **size: int) -> ComparisonResult:
        sizes.append(size)
        out.mkdir(parents=True, exist_ok=True)
        on_trial_done(trial(1, 1))
        tell("270 rows are kept to report")
        return made_up_result()

    monkeypatch.setattr(margins.compare.demo, "run_demo", run_demo)
    assert f"report: {Path('runs/demo/report.html')}\n" in margins_command("demo").out
    assert margins_command("demo", "--quick").code == 0
    ended = margins_command("demo", "--quick", "--out", "run")
    assert made_up_result().answer in ended.out
    assert "270 rows are kept to report" in ended.err
    assert names_below(tmp_path / "run") == ["report.html", "results.json"]
    assert sizes == [{}, {"num_repeats": 1}, {"num_repeats": 1}]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["demo", "demo-quick"]


def test_a_true_small_comparison_runs_through_and_leaves_a_model_that_predicts(
    margins_command: Command, tmp_path: Path
) -> None:
    options = ("--candidates", "focal", "--folds", "2", "--epochs", "1", "--out", "run")
    ended = margins_command("compare", "data.csv", *ASKED, *options)
    assert ended.code == 0, ended
    result = result_in(tmp_path / "run")
    assert {recipe.name for recipe in result.recipes} == {"cross_entropy", "focal"}
    assert result.answer in ended.out
    assert "would be found four times in five" in ended.err
    assert "A pilot of Cross-entropy: 2 folds, 2 seeds" in ended.err
    assert (tmp_path / "data.csv").read_text() == ROWS

    left = result.left
    assert left is not None
    assert (left.recipe, left.num_openings, result.description.num_report) == ("cross_entropy", 1, 3)
    assert left.scores.keys() == {"cross_entropy"}
    model = margins.load(tmp_path / "run")
    assert model.classes == ["a", "b"]
    assert set(model.predict(["word1 again", "never seen"])) <= {"a", "b"}
    assert margins_command("predict", "run", "data.csv").out.count("\n") == 21


def test_the_same_command_again_trains_nothing_and_says_so(
    margins_command: Command, trained: list[str], tmp_path: Path
) -> None:
    command = ("compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal")
    first = margins_command(*command)
    assert first.code == 0, first
    assert trained == [*["cross_entropy", "focal"] * 2, "cross_entropy"]
    trained.clear()
    again = margins_command(*command)
    assert trained == []
    assert "These results were here already; nothing was trained again." in again.err
    assert again.out == first.out
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_comparison_that_is_shown_again_has_its_own_model_beside_it(
    margins_command: Command, tmp_path: Path
) -> None:
    command = ("compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal", "--out", "run", "--seed")

    def left(seed: str) -> bytes:
        assert margins_command(*command, seed).code == 0
        return (tmp_path / "run/model/model.safetensors").read_bytes()

    first = left("0")
    assert left("1") != first, "vacuous: the same model"
    assert left("0") == first


def test_ctrl_c_loses_no_training_and_the_same_command_goes_on(
    margins_command: Command, trained: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ("compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal", "--out")
    assert margins_command(*command, "undisturbed").code == 0
    whole = len(trained)
    trained.clear()
    told = TrialProgress.__call__

    def interrupted(progress: TrialProgress, one: TrialDone) -> None:
        told(progress, one)
        if one.done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TrialProgress, "__call__", interrupted)
        ended = margins_command(*command, "run")
    assert ended.code == 130
    assert ended.err.endswith("stopped after 3 of 4 trainings; the same command goes on from there (run)\n")
    assert ended.out == ""
    assert len(trained) == 3
    assert margins_command(*command, "run").code == 0
    assert len(trained) == whole
    assert scores_in(tmp_path / "run") == scores_in(tmp_path / "undisturbed")


def test_more_repeats_train_the_rest_alone_and_call_nothing_better(
    margins_command: Command, trained: list[str], tmp_path: Path
) -> None:
    command = ("compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal", "--out", "run")
    assert margins_command(*command).code == 0
    trained.clear()
    ended = margins_command(*command, "--repeats", "2")
    assert ended.code == 0, ended
    assert trained == ["cross_entropy", "focal"] * 2
    assert "changed after results had been seen, so no recipe is called better" in ended.out
    assert result_in(tmp_path / "run").looked
    (kept,) = (tmp_path / "run").glob("results-*.json")
    earlier = ComparisonResult.load(kept)
    assert (earlier.description.num_repeats, earlier.looked) == (1, False)


def test_two_folders_merged_leave_the_rest_alone_to_train(
    margins_command: Command, trained: list[str], tmp_path: Path
) -> None:
    asked = ("compare", "data.csv", *ASKED, *SMALL, "--candidates")
    assert margins_command(*asked, "focal", "--out", "here").code == 0
    assert margins_command(*asked, "generalized_cross_entropy", "--out", "there").code == 0
    before = names_below(tmp_path / "there")
    ended = margins_command("merge", "here", "there")
    assert (ended.code, ended.out) == (0, "there: 2 trials taken over, 2 known\n"), ended
    assert names_below(tmp_path / "there") == before
    assert margins_command("merge", "here", "there").out == "there: 0 trials taken over, 4 known\n"

    trained.clear()
    all_of_them = "focal,generalized_cross_entropy,any_f1"
    assert margins_command(*asked, all_of_them, "--out", "here").code == 0
    assert trained == ["any_loss"] * 2
    assert margins_command(*asked, all_of_them, "--out", "alone").code == 0
    assert len(trained) > 8, "vacuous: nothing was saved"
    assert scores_in(tmp_path / "here") == scores_in(tmp_path / "alone")


@pytest.mark.parametrize("other", ["of other data", "without trials", "that is not there"])
def test_a_folder_that_cannot_be_merged_is_refused_and_changes_nothing(
    margins_command: Command, tmp_path: Path, other: str
) -> None:
    asked = ("compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal", "--out")
    assert margins_command(*asked, "here").code == 0
    if other == "of other data":
        (tmp_path / "data.csv").write_text(ROWS + "one more,a,20\n")
        assert margins_command(*asked, "there").code == 0
    elif other == "without trials":
        (tmp_path / "there").mkdir()
    before = (tmp_path / "here" / STORE).read_bytes()
    assert_one_line(margins_command("merge", "here", "there"), code=2)
    assert (tmp_path / "here" / STORE).read_bytes() == before
    assert_one_line(margins_command("merge", "nowhere", "here"), code=2)
    assert not (tmp_path / "nowhere").exists()


def test_trials_of_other_data_are_refused_and_put_aside_with_force(
    margins_command: Command, tmp_path: Path
) -> None:
    command = ("compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal", "--out", "run")
    assert margins_command(*command).code == 0
    folder = tmp_path / "run"
    before, names = (folder / "results.json").read_bytes(), names_below(folder)
    (tmp_path / "data.csv").write_text(ROWS + "one more,a,20\n")
    refused = margins_command(*command)
    assert refused.code == 2
    assert refused.err.endswith("or --force to put the old store aside and begin anew\n")
    assert (names_below(folder), (folder / "results.json").read_bytes()) == (names, before)

    assert margins_command(*command, "--force").code == 0
    with RunStore.read(folder / f"{STORE}.1.old") as old, RunStore.read(folder / STORE) as new:
        assert old.num_trials == new.num_trials == 4
    (kept,) = folder.glob("results-*.json")
    assert kept.read_bytes() == before
    assert kept.with_name(kept.name.replace("results", "report")).with_suffix(".html").is_file()
    assert result_in(folder).description.num_rows == 21


def test_label_sets_are_compared(margins_command: Command, tmp_path: Path) -> None:
    tags = [("sun" if i % 2 else "rain") + (";hot" if i % 3 else "") for i in range(24)]
    (tmp_path / "tags.csv").write_text(
        "text,tags\n" + "".join(f"word{i} {t.replace(';', ' ')},{t}\n" for i, t in enumerate(tags))
    )
    options = ("--target-kind", "label_set", "--separator", ";", "--metric", "micro_f1", *SMALL)
    ended = margins_command(
        "compare", "tags.csv", *options, "--candidates", "binary_focal", "--out", "run"
    )  # fmt: skip
    assert ended.code == 0, ended
    result = result_in(tmp_path / "run")
    assert {r.name for r in result.recipes} == {"binary_cross_entropy", "binary_focal"}
    assert (result.description.task, result.description.num_classes) == ("label_sets", 3)
    assert len(margins.load(tmp_path / "run").predict(["word1 sun hot"])) == 1


def test_numbers_are_compared_with_a_candidate_of_a_file(margins_command: Command, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("wide: {changes: {encoder: {width: 32}}}\n")
    ended = margins_command(
        "compare", "data.csv", "-i", "text", "-t", "size", "--target-kind", "value", "-m", "mae", *SMALL,
        "--candidates", "own.yaml", "--out", "run",
    )  # fmt: skip
    assert ended.code == 0, ended
    result = result_in(tmp_path / "run")
    assert {r.name for r in result.recipes} == {"squared_error", "wide"}
    assert (result.description.task, result.description.num_classes) == ("values", 0)
    assert "NaN" not in (tmp_path / "run/report.html").read_text().split("<script>")[0]
    assert margins.load(tmp_path / "run").predict(["word1 again"]).shape == (1,)


def test_the_same_demo_again_is_told_alike(
    margins_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = functools.partial(
        margins.compare.demo.compare, training={"max_epochs": 1}, report_share=0, spread=0.1
    )
    monkeypatch.setattr(margins.compare.demo, "compare", small)
    monkeypatch.setattr(margins.compare.demo, "CANDIDATES", ("focal",))
    run_demo = functools.partial(margins.compare.demo.run_demo, num_folds=2)
    monkeypatch.setattr(margins.compare.demo, "run_demo", run_demo)
    ended = [margins_command("demo", "--quick", "--out", "run") for _ in range(2)]
    assert ended[0].code == 0, ended
    assert ended[0].out == ended[1].out
    told = result_in(tmp_path / "run").description.protocol[0]
    assert told == "Columns: target: column 'digit' (10 classes); inputs: 64 pixels."


def test_candidates_of_a_file_are_searched_in_their_own_space(
    margins_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(
        "sharp:\n  title: Sharp focal loss\n  changes: {objective: {loss: focal, settings: {gamma: 4}}}\n"
        "  space: {objective.settings.gamma: {kind: span, low: 3, high: 6}}\n"
    )
    ended = margins_command(
        "compare", "data.csv", *ASKED, *SMALL, "--candidates", "own.yaml", "--budget", "2", "--out", "run"
    )  # fmt: skip
    assert ended.code == 0, ended
    recipes = {recipe.name: recipe for recipe in result_in(tmp_path / "run").recipes}
    everyones = {"optimizer.learning_rate", "optimizer.weight_decay"}
    assert recipes["cross_entropy"].space.keys() == everyones
    assert recipes["sharp"].space.keys() == {*everyones, "objective.settings.gamma"}
    assert recipes["sharp"].row_visits == recipes["cross_entropy"].row_visits > 0
    found = [values for recipe in recipes.values() for values in recipe.found]
    assert len(found) == 4
    assert all(not values or 3 <= values.get("objective.settings.gamma", 4) <= 6 for values in found)


BAD = {
    "missing file": (ROWS, ("other.csv", *ASKED), "other.csv"),
    "wrong input": (ROWS, ("data.csv", "--input", "txt", *ASKED[2:]), "'txt'"),
    "wrong target": (ROWS, ("data.csv", *ASKED[:2], "--target", "topics", *ASKED[4:]), "'topics'"),
    "empty file": ("", ("data.csv", *ASKED), "empty file"),
    "empty table": ("text,topic\n", ("data.csv", *ASKED), "only the header"),
    "one class": ("text,topic\n" + "w,a\n" * 20, ("data.csv", *ASKED), "class"),
    "small class": (ROWS + "w,rare,3\n" * 4, ("data.csv", *ASKED), "rare"),
    "infinite number": (ROWS + "w,a,inf\n", ("data.csv", "--input", "size", *ASKED[2:]), "'size'"),
    "missing number": (ROWS + "w,a,\n", ("data.csv", "--input", "size", *ASKED[2:]), "'size'"),
    "unknown metric": (ROWS, ("data.csv", *ASKED[:4], "--metric", "makro_f1"), "macro_f1"),
    "metric of another task": (ROWS, ("data.csv", *ASKED[:4], "--metric", "rmse"), "rmse, of values"),
    "unknown candidate": (ROWS, ("data.csv", *ASKED, "--candidates", "focale"), "did you mean focal"),
    "candidate of another task": (ROWS, ("data.csv", *ASKED, "--candidates", "sup_con"), "sup_con"),
    "baseline alone": (ROWS, ("data.csv", *ASKED, "--candidates", "cross_entropy"), "at least one"),
    "no candidate": (ROWS, ("data.csv", *ASKED, "--candidates", ","), "at least one"),
    "no file of candidates": (ROWS, ("data.csv", *ASKED, "--candidates", "none.yaml"), "none.yaml"),
    "unknown budget": (ROWS, ("data.csv", *ASKED, "--budget", "fast"), "'fast'"),
    "few passes": (ROWS, ("data.csv", *ASKED, "--budget", "8:3"), "at least 13 passes"),
    "rope that is no number": (ROWS, ("data.csv", *ASKED, "--rope", "small"), "'small'"),
    "negative rope": (ROWS, ("data.csv", *ASKED, "--rope", "-1"), "rope"),
    "no spread": (ROWS, ("data.csv", *ASKED, "--spread", "0"), "spread"),
    "share above one": (ROWS, ("data.csv", *ASKED, "--report-share", "2"), "report_share"),
    "unknown split": (ROWS, ("data.csv", *ASKED, "--split", "part"), "'part'"),
    "few rows for the folds": (
        ROWS,
        ("data.csv", *ASKED, "--folds", "30"),
        "at least 30 rows in every class",
    ),
    "few rows but for those to report": (
        ROWS,
        ("data.csv", *ASKED, "--folds", "10"),
        "fewer in a (9), b (8)",
    ),
    "double correction": (
        RARE,
        ("data.csv", *ASKED, "--candidates", "logit_adjusted", "--set", "draw.name=class_balanced"),
        "13.4 times its share (3.7 by draw class_balanced x 3.7 by logit_adjustment 1)",
    ),
    "one fold": (ROWS, ("data.csv", *ASKED, "--folds", "1"), "folds"),
    "no seed": (ROWS, ("data.csv", *ASKED, "--seeds", "0"), "seeds"),
    "no epoch": (ROWS, ("data.csv", *ASKED, "--epochs", "0"), "epochs"),
    "unknown positive": (ROWS, ("data.csv", *ASKED, "--positive", "zzz"), "zzz"),
    "positive of three": (ROWS + "w,c,1\n" * 5, ("data.csv", *ASKED, "--positive", "a"), "3 classes"),
    "unknown encoder": (ROWS, ("data.csv", *ASKED, "--encoder", "tabula"), "encoder"),
    "encoder of other inputs": (ROWS, ("data.csv", *ASKED, "--encoder", "tabular"), "text (text)"),
    "unknown key": (ROWS, ("data.csv", *ASKED, "--set", "batchsize=3"), "did you mean batch_size"),
    "key without value": (ROWS, ("data.csv", *ASKED, "--set", "batch_size"), "KEY=VALUE"),
    "key of one recipe": (ROWS, ("data.csv", *ASKED, "--set", "objective.loss=focal"), "candidates="),
    "broken kind": (ROWS, ("data.csv", *ASKED, "--kind", "text"), "COLUMN=KIND"),
    "unknown weight": (ROWS, ("data.csv", *ASKED, "--weight", "wait"), "'wait'"),
    "unknown group": (ROWS, ("data.csv", *ASKED, "--group", "grp"), "'grp'"),
    "no embeddings": (ROWS, ("data.csv", *ASKED, "--embeddings", "none.npy"), "none.npy"),
    "metric of classes for numbers": (
        ROWS,
        ("data.csv", "-i", "text", "-t", "size", "-m", "accuracy", "--target-kind", "value"),
        "a metric of values",
    ),
    "numbers, which have one candidate": (
        ROWS,
        ("data.csv", "-i", "text", "-t", "size", "-m", "mae", "--target-kind", "value"),
        "at least one recipe to compare with squared_error",
    ),
    "broken column name": (ROWS, ("data.csv", "--input", "te\nxt", *ASKED[2:]), "input"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    margins_command: Command, tmp_path: Path, case: str
) -> None:
    content, arguments, named = BAD[case]
    (tmp_path / "data.csv").write_text(content)
    ended = margins_command("compare", *arguments)
    assert_one_line(ended, code=2)
    assert named in ended.err
    assert names_below(tmp_path) == ["data.csv"]
    assert (tmp_path / "data.csv").read_text() == content


BAD_FILES = {
    "no YAML": ("mine: [1,\n", "plain YAML"),
    "no entry": ("mine: focal\n", "mine: expected title, changes and space"),
    "unknown field": ("mine: {titel: x}\n", "did you mean title"),
    "unknown key": ("mine: {changes: {objective: {lss: focal}}}\n", "did you mean loss"),
    "unknown loss": ("mine: {changes: {objective: {loss: focel}}}\n", "did you mean focal"),
    "falling span": (
        "mine: {space: {optimizer.learning_rate: {kind: span, low: 3, high: 1}}}\n", "low < high",
    ),
    "path that is none": (
        "mine: {space: {optimiser.rate: {kind: span, low: 1, high: 3}}}\n", "'optimiser.rate'",
    ),
    "double correction": (DOUBLE, "18.8 times its share (4.3 by draw"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_of_candidates_with_a_mistake_ends_in_one_line_and_leaves_nothing(
    margins_command: Command, tmp_path: Path, case: str
) -> None:
    content, named = BAD_FILES[case]
    (tmp_path / "data.csv").write_text(RARE)
    (tmp_path / "own.yaml").write_text(content)
    ended = margins_command("compare", "data.csv", *ASKED, *SMALL, "--candidates", "own.yaml")
    assert_one_line(ended, code=2)
    assert named in ended.err
    assert names_below(tmp_path) == ["data.csv", "own.yaml"]


def test_a_double_correction_is_compared_where_it_is_accepted_and_told(
    margins_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text(RARE)
    (tmp_path / "own.yaml").write_text(DOUBLE)
    options = ("--candidates", "own.yaml", "--accept-double-correction", "--out", "run")
    ended = margins_command("compare", "data.csv", *ASKED, *SMALL, *options)
    assert ended.code == 0, ended
    assert "as training sees it (draw class_balanced, logit_adjustment 1)" in ended.err
    told = {recipe.name: recipe.prior for recipe in result_in(tmp_path / "run").recipes}
    assert told["cross_entropy"] == []
    assert "as training sees it" in told["both"][0]


@pytest.mark.parametrize(
    ("on", "named"), [("procs", "did you mean processes"), ("ray:127.0.0.1:1", "no answer")]
)
def test_a_place_where_trials_cannot_run_ends_in_one_line_before_any_training(
    margins_command: Command, trained: list[str], tmp_path: Path, on: str, named: str
) -> None:
    if on.startswith("ray"):
        pytest.importorskip("ray", reason="ray, of the extra ray, is not installed")
    ended = margins_command(
        "compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal", "--on", on, "--out", "run"
    )  # fmt: skip
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(r"margins: [^\n]+", ended.err.splitlines()[-1])
    assert named in ended.err.splitlines()[-1]
    assert trained == []
    assert not {"run/results.json", "run/report.html"} & set(names_below(tmp_path))


def test_a_folder_in_use_is_refused_before_anything_is_read(margins_command: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    ended = margins_command("compare", "missing.csv", *ASKED, "--out", "run")
    assert_one_line(ended, code=2)
    assert "which holds files already" in ended.err
    assert names_below(tmp_path) == ["data.csv", "run", "run/notes.txt"]


def test_a_file_is_refused_as_the_folder_or_above_it(margins_command: Command, tmp_path: Path) -> None:
    for folder in ("data.csv", "data.csv/run"):
        assert_one_line(margins_command("compare", "data.csv", *ASKED, "--out", folder), code=2)
    assert names_below(tmp_path) == ["data.csv"]


def test_an_empty_folder_is_filled(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    assert margins_command("compare", "data.csv", *ASKED, "--out", "run").code == 0
    assert names_below(tmp_path / "run") == ["report.html", "results.json"]


def test_ctrl_c_ends_in_one_line_that_names_the_folder(
    margins_command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compare(*_: object, on_trial_done: TrialProgress, **options: Any) -> ComparisonResult:
        on_trial_done(trial(1, 40))
        raise KeyboardInterrupt

    monkeypatch.setattr(margins.compare, "compare", compare, raising=False)
    ended = margins_command("compare", "data.csv", *ASKED, "--out", "run")
    assert_one_line(ended, code=130)
    assert "after 1 of 40 trainings" in ended.err
    assert ended.err.endswith("the same command goes on from there (run)\n")
    assert names_below(tmp_path) == ["data.csv"]


def test_ctrl_c_before_the_training_ends_in_one_line(
    margins_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "compare_file", interrupted)
    assert_one_line(margins_command("compare", "data.csv", *ASKED), code=130)


def test_results_outlive_a_report_that_cannot_be_written(
    margins_command: Command, made_up: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(result: ComparisonResult, path: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(comparison, "write_report", fails)
    monkeypatch.setattr(sys, "argv", ["margins", "compare", "data.csv", *ASKED, "--out", "run"])
    with pytest.raises(OSError, match="no space left"):
        run()
    assert names_below(tmp_path / "run") == ["results.json"]


def test_results_that_cannot_be_written_leave_the_trials(
    margins_command: Command, trained: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(result: ComparisonResult, path: Path) -> None:
        raise OSError("no space left")

    command = ("compare", "data.csv", *ASKED, *SMALL, "--candidates", "focal", "--out", "a/b/run")
    with monkeypatch.context() as patched:
        patched.setattr(ComparisonResult, "save", fails)
        patched.setattr(sys, "argv", ["margins", *command])
        with pytest.raises(OSError, match="no space left"):
            run()
    assert not (tmp_path / "a/b/run/results.json").exists()
    assert len(trained) == 5
    assert margins_command(*command).code == 0
    assert len(trained) == 5
    assert result_in(tmp_path / "a/b/run").baseline == "cross_entropy"


def test_an_error_that_is_not_the_users_is_not_hidden(
    margins_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(comparison, "compare_file", broken)
    monkeypatch.setattr(sys, "argv", ["margins", "compare", "data.csv", *ASKED])
    with pytest.raises(ValueError, match="a mistake of ours"):
        run()


@pytest.mark.parametrize("package", ["typer", "rich", "plotly", "jinja2"])
def test_a_missing_package_is_told_with_what_to_install(
    margins_command: Command, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in list(sys.modules):
        if name.startswith(("margins.cli.", "margins.report", f"{package}.")) and name != "margins.cli.main":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    ended = margins_command("compare", "data.csv", *ASKED)
    assert_one_line(ended, code=2)
    assert 'pip install "margins[tool]"' in ended.err
    assert package in ended.err


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    source = str(Path(margins.cards.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )


def test_a_true_process_ends_with_code_2_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(ROWS)
    ended = python("-m", "margins", "compare", "data.csv", "--input", "txt", *ASKED[2:], folder=tmp_path)
    assert_one_line(Ended(ended.returncode, ended.stdout, ended.stderr), code=2)
    assert names_below(tmp_path) == ["data.csv"]


def test_help_shows_commands_and_examples_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from margins.cli.main import run\n"
        "try: run()\n"
        "finally: sys.stderr.write(' '.join(sys.modules))"
    )
    general = python("-c", code, "--help", folder=tmp_path)
    assert general.returncode == 0
    assert all(f" {command} " in general.stdout for command in ("compare", "methods", "demo"))
    loaded = set(general.stderr.split())
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "polars", "plotly", "jinja2", "sklearn"}
    special = python("-m", "margins", "compare", "--help", folder=tmp_path)
    assert "margins compare tickets.csv --input text --target topic --metric macro_f1" in special.stdout


def test_version_is_printed(margins_command: Command) -> None:
    ended = margins_command("--version")
    assert (ended.code, ended.out) == (0, f"margins {margins.__version__}\n")


@pytest.fixture
def two_methods(monkeypatch: pytest.MonkeyPatch) -> list[Method]:
    """Two made-up methods in place of the registry, one of them with a study that has a result."""
    first = LossCard(
        name="Alpha [bold]loss[/bold]", summary="When classes are rare.", paper="A, 2001", entry=7,
        targets=("classes",), form="statistics", component="margins.losses.Alpha", study="alpha",
        distributed="independent", comparable=True, collapse="log C",
    )  # fmt: skip
    second = Card(
        name="Beta head", summary="When pairs are known.", paper="B, 2002", targets=("pairs", "matches"),
        kind="head", stations=("score",), component="margins.heads.Beta",
    )  # fmt: skip
    found = [Method(cards=(first,)), Method(cards=(second,))]
    effect = EffectRecord(
        name="gain", above=0.0, reaches=None, values=[1.0] * 5, mean=1.0, low=0.5, high=1.5, outcome="shown"
    )
    record = StudyRecord(
        study="alpha", outcome="shown", effects=[effect], settings={}, figures={}, num_seeds=5, seconds=1.0,
        commit="abc", versions={}, code={},
    )  # fmt: skip
    monkeypatch.setattr(methods, "all_methods", lambda: list(found))
    monkeypatch.setattr(methods, "known_results", lambda: {"alpha": record})
    return found


def test_methods_lists_every_method(margins_command: Command, two_methods: list[Method]) -> None:
    ended = margins_command("methods")
    assert ended.code == 0
    for method in two_methods:
        for text in (method.name, method.cards[0].summary, method.papers[0], method.kinds[0]):
            assert text in ended.out
    assert "form statistics" in ended.out
    assert "shown" in ended.out
    assert "2 methods" in ended.out


@pytest.mark.parametrize(
    ("options", "left"),
    [((), ["Alpha", "Beta"]), (("--form", "statistics"), ["Alpha"]), (("--target", "classes"), ["Alpha"]),
     (("--form", "statistics", "--target", "pairs"), []), (("--kind", "head"), ["Beta"]),
     (("--station", "score"), ["Beta"]), (("--paper", "a, 20"), ["Alpha"]), (("--paper", "beta"), ["Beta"])],
)  # fmt: skip
def test_methods_are_chosen_by_every_filter(
    margins_command: Command, two_methods: list[Method], options: tuple[str, ...], left: list[str]
) -> None:
    found = json.loads(margins_command("methods", "--json", *options).out)
    assert [method["name"].split()[0] for method in found] == left


def test_methods_as_json_hold_cards_and_evidence(margins_command: Command, two_methods: list[Method]) -> None:
    alpha, beta = json.loads(margins_command("methods", "--json").out)
    assert (alpha["entry"], alpha["forms"], alpha["studies"]) == (7, ["statistics"], ["alpha"])
    assert alpha["evidence"] == [
        {"study": "alpha", "outcome": "shown", "commit": "abc",
         "effects": [{"name": "gain", "mean": 1.0, "low": 0.5, "high": 1.5, "outcome": "shown"}]}
    ]  # fmt: skip
    assert beta["components"][0]["component"] == "margins.heads.Beta"
    assert beta["evidence"] == []


@pytest.mark.parametrize(
    "options", [("--form", "oval"), ("--target", "moon"), ("--kind", "x"), ("--station", "x")]
)
def test_an_unknown_filter_is_refused_with_what_there_is(
    margins_command: Command, two_methods: list[Method], options: tuple[str, str]
) -> None:
    ended = margins_command("methods", *options)
    assert_one_line(ended, code=2)
    assert "expected one of" in ended.err


def test_plain_progress_is_a_few_lines_that_end_at_the_end() -> None:
    written = io.StringIO()
    progress = TrialProgress(Console(file=written, width=200), None)
    for done in range(1, 1001):
        progress(trial(done, 1000))
    lines = written.getvalue().splitlines()
    assert len(lines) == PLAIN_LINES
    assert "left" in lines[-2]
    assert lines[-1] == "1000 of 1000 trainings done"
