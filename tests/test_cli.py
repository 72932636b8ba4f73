"""What a user meets on the command line: exit codes, one line an error, nothing left behind."""

from __future__ import annotations

import dataclasses
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
from margins.cards import Card
from margins.cli import comparison, methods
from margins.cli.main import run
from margins.cli.progress import PLAIN_LINES, TrialProgress
from margins.compare.results import ComparisonResult
from margins.training.request import Roles

ROWS = "text,topic,size\n" + "".join(f"word{i} again,{'ab'[i % 2]},{i}\n" for i in range(20))
ASKED = ("--input", "text", "--target", "topic", "--metric", "macro_f1")


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
        frame: object, metric: str, *, on_trial_done: TrialProgress, tell: Any, **options: Any
    ) -> ComparisonResult:
        calls.append({"frame": frame, "metric": metric, **options})
        tell("target: column 'topic' (2 classes)")
        for done in range(1, 41):
            on_trial_done(done, 40, "focal", 0, 0)
        return made_up_result()

    monkeypatch.setattr(margins.compare, "compare", compare, raising=False)
    return calls


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
    assert ended.out.endswith(f"report: {Path('here/run/report.html')}\n")
    assert "\x1b" not in ended.out + ended.err
    assert (tmp_path / "data.csv").read_text() == ROWS
    places = [ended.out.index(f" {recipe.title} ") for recipe in made_up_result().recipes]
    assert places == sorted(places)


def test_options_reach_the_comparison(margins_command: Command, made_up: list[dict[str, Any]]) -> None:
    ended = margins_command(
        "compare", "data.csv", "--input", "size", "--target", "topic", "--metric", "accuracy",
        "--kind", "size=numeric", "--weight", "w", "--group", "g", "--target-kind", "label",
        "--folds", "4", "--repeats", "3", "--seeds", "2", "--recipes", "focal, gce", "--epochs", "7",
        "--encoder", "tabular", "--set", "optimizer.learning_rate=0.01", "--set", "batch_size=32",
        "--positive", "b", "--seed", "11",
    )  # fmt: skip
    assert ended.code == 0, ended
    (call,) = made_up
    frame = call.pop("frame")
    assert (frame.names, len(frame), frame.source) == (["text", "topic", "size"], 20, "data.csv")
    roles = Roles(
        inputs=["size"], target="topic", kinds={"size": "numeric"}, weight="w", group="g", target_kind="label"
    )
    assert call == {
        "metric": "accuracy", "num_folds": 4, "num_repeats": 3, "num_seeds": 2, "recipes": ["focal", "gce"],
        "roles": roles, "positive": "b", "seed": 11,
        "training": {
            "encoder": {"name": "tabular"}, "max_epochs": 7, "optimizer": {"learning_rate": 0.01},
            "batch_size": 32,
        },
    }  # fmt: skip


def test_what_is_not_said_is_left_to_the_comparison_and_what_it_decides_is_told(
    margins_command: Command, made_up: list[dict[str, Any]]
) -> None:
    ended = margins_command("compare", "data.csv", "--metric", "accuracy")
    assert ended.code == 0, ended
    (call,) = made_up
    assert (call["roles"], call["training"], call["positive"], call["recipes"]) == (Roles(), {}, None, None)
    assert "target: column 'topic' (2 classes)" in ended.err


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
    options = ("--recipes", "focal", "--folds", "2", "--epochs", "1", "--positive", positive, "--out", "run")
    ended = margins_command("compare", "data.csv", *ASKED[:4], "--metric", "average_precision", *options)
    assert ended.code == 0, ended
    description = ComparisonResult.load(tmp_path / "run/results.json").description
    assert description.protocol[-1] == f"The positive class is {positive!r}, as asked for."
    assert list(description.class_counts.values()) == sorted(description.class_counts.values(), reverse=True)


@pytest.mark.parametrize("inputs", [("--input", "u,v"), ("--input", "u", "--input", "v"), ("-i", " u , v ")])
def test_inputs_come_with_commas_or_repeated(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path, inputs: tuple[str, ...]
) -> None:
    (tmp_path / "pairs.csv").write_text("u,v,y\n" + "".join(f"{i},{-i},{'ab'[i % 2]}\n" for i in range(12)))
    assert margins_command("compare", "pairs.csv", *inputs, "--target", "y", "--metric", "accuracy").code == 0
    assert made_up[0]["roles"].inputs == ["u", "v"]


def test_results_go_to_a_dated_folder_by_default(
    margins_command: Command, made_up: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert margins_command("compare", "data.csv", *ASKED).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"data-\d{8}T\d{6}Z", folder.name)
    assert names_below(folder) == ["report.html", "results.json"]


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

    def run_demo(*, on_trial_done: TrialProgress, **size: int) -> ComparisonResult:
        sizes.append(size)
        return made_up_result()

    monkeypatch.setattr(margins.compare.demo, "run_demo", run_demo)
    assert margins_command("demo").out.endswith("report.html\n")
    ended = margins_command("demo", "--quick", "--out", "run")
    assert made_up_result().answer in ended.out
    assert names_below(tmp_path / "run") == ["report.html", "results.json"]
    assert sizes == [{}, {"num_repeats": 1}]
    (dated,) = (tmp_path / "runs").iterdir()
    assert dated.name.startswith("demo-")


def test_a_true_small_comparison_runs_through(margins_command: Command, tmp_path: Path) -> None:
    options = ("--recipes", "focal", "--folds", "3", "--epochs", "1", "--out", "run")
    ended = margins_command("compare", "data.csv", *ASKED, *options)
    assert ended.code == 0, ended
    result = ComparisonResult.load(tmp_path / "run/results.json")
    assert {recipe.name for recipe in result.recipes} == {"cross_entropy", "focal"}
    assert result.answer in ended.out


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
    "unknown recipe": (ROWS, ("data.csv", *ASKED, "--recipes", "no_such_recipe"), "no_such_recipe"),
    "one fold": (ROWS, ("data.csv", *ASKED, "--folds", "1"), "folds"),
    "no seed": (ROWS, ("data.csv", *ASKED, "--seeds", "0"), "seeds"),
    "no epoch": (ROWS, ("data.csv", *ASKED, "--epochs", "0"), "epochs"),
    "unknown positive": (ROWS, ("data.csv", *ASKED, "--positive", "zzz"), "zzz"),
    "positive of three": (ROWS + "w,c,1\n" * 5, ("data.csv", *ASKED, "--positive", "a"), "3 classes"),
    "unknown encoder": (ROWS, ("data.csv", *ASKED, "--encoder", "tabula"), "encoder"),
    "encoder of other inputs": (ROWS, ("data.csv", *ASKED, "--encoder", "tabular"), "text (text)"),
    "unknown key": (ROWS, ("data.csv", *ASKED, "--set", "batchsize=3"), "did you mean batch_size"),
    "key without value": (ROWS, ("data.csv", *ASKED, "--set", "batch_size"), "KEY=VALUE"),
    "key of one recipe": (ROWS, ("data.csv", *ASKED, "--set", "objective.loss=focal"), "recipes="),
    "broken kind": (ROWS, ("data.csv", *ASKED, "--kind", "text"), "COLUMN=KIND"),
    "unknown weight": (ROWS, ("data.csv", *ASKED, "--weight", "wait"), "'wait'"),
    "unknown group": (ROWS, ("data.csv", *ASKED, "--group", "grp"), "'grp'"),
    "no embeddings": (ROWS, ("data.csv", *ASKED, "--embeddings", "none.npy"), "none.npy"),
    "a value": (
        ROWS,
        ("data.csv", "-i", "text", "-t", "size", "-m", "accuracy", "--target-kind", "value"),
        "kind value",
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


def test_a_folder_in_use_is_refused_before_anything_is_read(margins_command: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    ended = margins_command("compare", "missing.csv", *ASKED, "--out", "run")
    assert_one_line(ended, code=2)
    assert "holds files already" in ended.err
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
        on_trial_done(1, 40, "focal", 0, 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(margins.compare, "compare", compare, raising=False)
    ended = margins_command("compare", "data.csv", *ASKED, "--out", "run")
    assert_one_line(ended, code=130)
    assert "after 1 of 40 trainings" in ended.err
    assert ended.err.endswith(" run\n")
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
        path.with_name("report.html.partial").write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(comparison, "write_report", fails)
    monkeypatch.setattr(sys, "argv", ["margins", "compare", "data.csv", *ASKED, "--out", "run"])
    with pytest.raises(OSError, match="no space left"):
        run()
    assert names_below(tmp_path / "run") == ["results.json"]


def test_results_that_cannot_be_written_leave_no_folder(
    margins_command: Command, made_up: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(result: ComparisonResult, path: Path) -> None:
        assert path.parent.is_dir()  # the folder was there
        raise OSError("no space left")

    monkeypatch.setattr(ComparisonResult, "save", fails)
    monkeypatch.setattr(sys, "argv", ["margins", "compare", "data.csv", *ASKED, "--out", "a/b/run"])
    with pytest.raises(OSError, match="no space left"):
        run()
    assert names_below(tmp_path) == ["data.csv"]


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
def two_cards(monkeypatch: pytest.MonkeyPatch) -> dict[str, Card]:
    """Two made-up cards in place of the registry."""
    common = {"distributed": "independent", "comparable": True, "collapse": "log C"}
    cards = {
        "Alpha": Card(
            name="Alpha [bold]loss[/bold]", summary="When classes are rare.", paper="A, 2001",
            targets=("classes",), form="statistics", component="margins.losses.Alpha", **common,
        ),
        "Beta": Card(
            name="Beta loss", summary="When pairs are known.", paper="B, 2002", targets=("pairs", "matches"),
            form="pairs", component="margins.losses.Beta", **common,
        ),
    }  # fmt: skip
    monkeypatch.setattr(methods, "all_cards", lambda: dict(cards))
    return cards


def test_methods_lists_every_card(margins_command: Command, two_cards: dict[str, Card]) -> None:
    ended = margins_command("methods")
    assert ended.code == 0
    for card in two_cards.values():
        for text in (card.name, card.summary, card.paper, card.form):
            assert text in ended.out
    assert "2 methods" in ended.out


@pytest.mark.parametrize(
    ("options", "left"),
    [((), ["Alpha", "Beta"]), (("--form", "pairs"), ["Beta"]), (("--target", "classes"), ["Alpha"]),
     (("--form", "pairs", "--target", "classes"), [])],
)  # fmt: skip
def test_methods_are_chosen_by_form_and_target(
    margins_command: Command, two_cards: dict[str, Card], options: tuple[str, ...], left: list[str]
) -> None:
    ended = margins_command("methods", "--json", *options)
    expected = [dataclasses.asdict(two_cards[name]) for name in left]
    assert json.loads(ended.out) == json.loads(json.dumps(expected))


@pytest.mark.parametrize("options", [("--form", "oval"), ("--target", "moon")])
def test_an_unknown_form_or_target_is_refused_with_what_there_is(
    margins_command: Command, two_cards: dict[str, Card], options: tuple[str, str]
) -> None:
    ended = margins_command("methods", *options)
    assert_one_line(ended, code=2)
    assert "pairs" in ended.err


def test_plain_progress_is_a_few_lines_that_end_at_the_end() -> None:
    written = io.StringIO()
    progress = TrialProgress(Console(file=written, width=200), None)
    for done in range(1, 1001):
        progress(done, 1000, "focal", 0, 0)
    lines = written.getvalue().splitlines()
    assert len(lines) == PLAIN_LINES
    assert "left" in lines[-2]
    assert lines[-1] == "1000 of 1000 trainings done"
