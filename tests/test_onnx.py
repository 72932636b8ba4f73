"""Exported networks compute in the ONNX runtime what they compute in torch, for batches of any length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import margins
from margins import export_onnx
from margins.data.frame import Frame
from margins.data.reading import read_frame
from margins.errors import MarginsError
from margins.training import onnx_export
from margins.training.model import Model

ort = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

NUM = 60


def draws() -> np.random.Generator:
    return np.random.default_rng(0)


def labels() -> list[str]:
    return [f"k{k % 3}" for k in range(NUM)]


def numbers(**more: Any) -> dict[str, Any]:
    found = draws().normal(size=(NUM, 2)) * [1, 1e5] + [0, 1e6]
    gaps = [None if k % 7 == 0 else float(v) for k, v in enumerate(found[:, 1])]
    return {"a": found[:, 0], "b": gaps, **more}


def images(*shape: int) -> pl.DataFrame:
    pixels = draws().integers(0, 256, size=(NUM, *shape)).astype(np.uint8)
    return pl.DataFrame({"image": pl.Series(pixels, dtype=pl.Array(pl.UInt8, shape)), "label": labels()})


def vectors() -> pl.DataFrame:
    found = draws().normal(size=(NUM, 6)).astype(np.float32)
    return pl.DataFrame({"e": pl.Series(found, dtype=pl.Array(pl.Float32, 6)), "label": labels()})


SHADES = {"shade": [["red", "blue"][k % 2] for k in range(NUM)]}
SMALL_VIT = {"name": "small_vit", "width": 16, "depth": 1, "heads": 2}
FAMILIES: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "numbers with gaps": (numbers(label=labels()), {}, ["numbers"]),
    "numbers and categories": (numbers(**SHADES, label=labels()), {}, ["numbers", "categories"]),
    "categories alone": ({**SHADES, "label": labels()}, {}, ["categories"]),
    "values": (numbers(label=draws().normal(size=NUM)), {}, ["numbers"]),
    "vectors through layers": (vectors(), {"encoder": {"depth": 1}}, ["values"]),
    "cosine head": (vectors(), {"head": {"name": "cosine"}}, ["values"]),
    "disposable head": (
        vectors(),
        {"task": "matches", "head": {"name": "disposable", "then": None}},
        ["values"],
    ),
    "matches": (vectors(), {"task": "matches", "head": {"dim": 4}}, ["values"]),
    "small_resnet": (images(9, 9, 3), {"encoder": {"channels": 8, "blocks": 1, "width": 16}}, ["pixels"]),
    "small_vit": (images(12, 10), {"encoder": SMALL_VIT}, ["pixels"]),
}


def trained(name: str) -> tuple[Model, Frame]:
    data, changes, _ = FAMILIES[name]
    inputs = [column for column in data if column != "label"] if isinstance(data, dict) else None
    kinds = {"shade": "categorical"} if "shade" in data else None
    model = margins.train(
        data, target="label", inputs=inputs, kinds=kinds, recipe={"max_epochs": 2, **changes}
    ).model
    return model, read_frame(data)


def scores_of(path: Path, inputs: Any, names: list[str]) -> np.ndarray:
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == names
    return session.run(["scores"], {name: getattr(inputs, name).numpy() for name in names})[0]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_runtime_gives_the_model_s_scores_for_batches_of_lengths_not_exported(name: str, tmp_path: Path):
    model, frame = trained(name)
    path = export_onnx(model, tmp_path / "deep" / "model.onnx")
    spread = 0.0
    for rows in (range(1), range(7), range(20, 57)):
        part = frame.take(torch.tensor(list(rows)))
        expected = model.scores(part).numpy()
        found = scores_of(path, model.preparation(model.frame_of(part)), FAMILIES[name][2])
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
        spread = max(spread, float(np.ptp(expected, axis=0).max()))
    assert spread > 1e-3  # rows are told apart


def test_metadata_say_what_the_scores_mean(tmp_path: Path):
    model, frame = trained("numbers and categories")
    path = export_onnx(model, tmp_path / "model.onnx", data=frame)
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    told = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert told["margins.task"] == "classes"
    assert told["margins.outputs"] == model.classes
    assert list(told["margins.columns"]["inputs"]) == ["a", "b", "shade"]
    assert told["margins.preparation"]["vocabularies"] == {"shade": ["blue", "red"]}
    # The model's probabilities follow from the file alone.
    inputs = model.preparation(model.frame_of(frame))
    scores = torch.from_numpy(scores_of(path, inputs, ["numbers", "categories"])).double()
    temperature = told["margins.calibration"]["temperature"]
    np.testing.assert_allclose(
        (scores / temperature).softmax(1).numpy(), model.predict_proba(frame), atol=1e-5
    )


def test_probabilities_of_a_training_against_the_prior_follow_from_the_file_alone(tmp_path: Path):
    shares = {"label": ["rare" if k % 6 == 0 else "usual" for k in range(NUM)]}
    recipe = {"max_epochs": 4, "objective": {"targets": {"logit_adjustment": 1.0}}}
    model = margins.train(numbers(**shares), target="label", inputs=["a", "b"], recipe=recipe).model
    frame = read_frame(numbers())
    path = export_onnx(model, tmp_path / "model.onnx")
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    told = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    calibration = told["margins.calibration"]
    assert calibration["offset"] == told["margins.prior_shift"]
    assert calibration["temperature"] != 1
    scores = scores_of(path, model.preparation(model.frame_of(frame)), ["numbers"]).astype(np.float64)
    moved = scores / calibration["temperature"] + np.array(calibration["offset"])
    p = torch.from_numpy(moved).softmax(1).numpy()
    np.testing.assert_allclose(p, model.predict_proba(frame), atol=1e-5)
    assert [model.classes[c] for c in scores.argmax(1)] == model.predict(frame).tolist()


def test_metadata_undo_the_standardisation_of_values(tmp_path: Path):
    model, frame = trained("values")
    path = export_onnx(model, tmp_path / "model.onnx")
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    unit = json.loads(session.get_modelmeta().custom_metadata_map["margins.unit"])
    scores = scores_of(path, model.preparation(model.frame_of(frame)), ["numbers"])
    np.testing.assert_allclose(
        scores[:, 0] * unit["deviation"] + unit["mean"], model.predict(frame), atol=1e-5
    )


def test_a_network_in_training_mode_is_exported_without_dropout_and_stays_in_it(tmp_path: Path):
    model, frame = trained("vectors through layers")
    expected = model.scores(frame).numpy()
    model.network.train()
    path = export_onnx(model, tmp_path / "model.onnx")
    assert model.network.training
    found = scores_of(path, model.preparation(model.frame_of(frame)), ["values"])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_file_that_computes_something_else_is_refused_and_an_older_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, _ = trained("vectors through layers")
    exported = onnx_export._exported

    def another(network: Any, tensors: Any) -> Any:
        bias = network.network.head.bias
        with torch.no_grad():
            before = bias.clone()
            bias.add_(0.01)
            graph = exported(network, tensors)
            bias.copy_(before)
        return graph

    path = tmp_path / "model.onnx"
    monkeypatch.setattr(onnx_export, "_exported", another)
    with pytest.raises(MarginsError, match=r"within 0.0001 of the model's.*0\.0"):
        export_onnx(model, path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"older")
    with pytest.raises(MarginsError):
        export_onnx(model, path)
    assert path.read_bytes() == b"older"


def test_a_head_that_draws_is_refused_by_name(tmp_path: Path):
    recipe = {"encoder": {"name": "embeddings"}, "head": {"name": "no_prop"}, "step": {"name": "no_prop"}}
    model = margins.train(vectors(), target="label", recipe={**recipe, "max_epochs": 1}).model
    with pytest.raises(MarginsError, match="no_prop"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_an_encoder_whose_inputs_are_no_plain_tensors_is_refused_by_name(tmp_path: Path):
    texts = {"text": [f"{'good' if k % 2 else 'poor'} thing number {k}" for k in range(NUM)]}
    labelled = {**texts, "label": ["yes" if k % 2 else "no" for k in range(NUM)]}
    model = margins.train(labelled, inputs=["text"], target="label", kinds={"text": "text"},
                          recipe={"max_epochs": 1}).model  # fmt: skip
    with pytest.raises(MarginsError, match="hashed_text"):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    model, _ = trained("vectors through layers")
    (tmp_path / "file").write_text("")
    with pytest.raises(MarginsError, match="folder with room"):
        export_onnx(model, tmp_path / "file" / "model.onnx")
