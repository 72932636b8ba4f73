"""A trained model: from rows as they come to predictions, and from and to a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.data.coding import TargetCoding
from margins.data.columns import Columns
from margins.data.extras import extra
from margins.data.fitting_codings import coding_from_data
from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.data.reading import read_frame
from margins.data.settings import validated
from margins.data.value_coding import ValueCoding
from margins.encoders.base import Preparation
from margins.errors import MarginsError
from margins.evaluation.calibration import Calibration, calibration_from
from margins.evaluation.class_cuts import ClassCut, class_cut_from
from margins.evaluation.thresholds import Thresholds
from margins.training.checkpoint import write_atomically
from margins.training.machine import one_cpu
from margins.training.network import Network
from margins.training.predicting import outputs_of, probabilities_of
from margins.training.problem import new_network
from margins.training.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Floats = npt.NDArray[np.float64]

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with all that stands around it.

    Args:
        recipe: how it was trained.
        columns: what it reads.
        coding: what its outputs mean.
        preparation: columns to inputs.
        network: inputs to scores.
        calibration: scores to class probabilities; None is the softmax. Its offset is the prior's shift.
        thresholds: scores to label sets; None cuts at probability 0.5.
        prior_shift: [C] added to scores before they become probabilities, when training worked against the
            class prior; decisions are made without it. None when it did not. A calibration that has it as its
            offset takes raw scores: what it divides or stretches is the score alone.
        cut: decides for a class; None decides for the largest. Probabilities are the same with it.
        about: where it comes from: data, scores, versions. Plain data.
    """

    recipe: Recipe
    columns: Columns
    coding: TargetCoding
    preparation: Preparation
    network: Network
    calibration: Calibration | None = None
    thresholds: Thresholds | None = None
    prior_shift: tuple[float, ...] | None = None
    cut: ClassCut | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The name of each output, in order."""
        return list(self.coding.names)

    def predict(self, data: Any) -> npt.NDArray[Any] | list[list[str]]:
        """What the model says of each row.

        Args:
            data: anything that `margins.train` reads, with the input columns; or a list of texts, or an
                array [N, d], when there is one column of texts or embeddings, or only numbers.

        Returns:
            class names [N]; a list of label names a row; or numbers [N] in the target's unit.

        Raises:
            MarginsError: a missing column, cells that cannot be used, or a model that has no predictions.
        """
        return self.decided(self.scores(data))

    def predict_proba(self, data: Any) -> Floats:
        """Probabilities [N, C], in the order of `classes`; of label sets each label has its own."""
        return self.probabilities(self.scores(data))

    def embed(self, data: Any) -> npt.NDArray[np.float32]:
        """Embeddings [N, width]: of the encoder, or for the task "matches" of the head, which it compares."""
        scores, embeddings = self._outputs(data)
        return (scores if self.recipe.task == "matches" else embeddings).numpy()

    def scores(self, data: Any) -> Tensor:
        """Raw scores [N, C]."""
        return self._outputs(data)[0]

    def decided(self, scores: Tensor) -> npt.NDArray[Any] | list[list[str]]:
        """Predictions from scores [N, C]."""
        self._refuse_matches("predict", "embed")
        names = np.array(self.coding.names, dtype=object)
        if isinstance(self.coding, ValueCoding):
            return self.coding.restored(scores.double()).squeeze(1).numpy()
        if self.recipe.task == "label_sets":
            chosen = (self.shifted(scores) >= 0).numpy()
            return [names[row].tolist() for row in chosen]
        return names[self.decision_shares(scores).argmax(1)]

    def probabilities(self, scores: Tensor) -> Floats:
        """Probabilities from scores [N, C]."""
        self._refuse_matches("predict_proba", "embed")
        if self.recipe.task == "values":
            raise MarginsError("predict_proba", expected="a model of classes", received="one of values")
        if self.recipe.task == "label_sets":
            return self.with_prior(scores).double().sigmoid().numpy()
        if self.calibration is None:
            return probabilities_of(self.with_prior(scores))
        # One without an offset, as older files have, was fitted on scores with the shift in them.
        raw = self.calibration.offset is not None
        return self.calibration.probabilities(scores if raw else self.with_prior(scores))

    def decision_shares(self, scores: Tensor) -> Floats:
        """[N, C] whose largest entry is the class decided for: the probabilities, but moved by the cut.

        They are without the prior's shift: a training against the prior is meant to decide for rare classes
        more often than probabilities would.
        """
        if self.cut is not None:
            return self.cut.shares(self.uncut_logits(scores))
        return self._uncut_shares(scores)

    def uncut_logits(self, scores: Tensor) -> Floats:
        """[N, C] what a cut is fitted on and takes: logarithms of the decision shares without one."""
        return np.log(np.maximum(self._uncut_shares(scores), np.finfo(np.float64).tiny))

    def _uncut_shares(self, scores: Tensor) -> Floats:
        return self.probabilities(scores) if self.prior_shift is None else probabilities_of(scores)

    def with_prior(self, scores: Tensor) -> Tensor:
        """Scores of a data set with the shares of the training rows, of classes or of each label."""
        if self.prior_shift is None:
            return scores
        return scores.double() + torch.tensor(self.prior_shift, dtype=torch.float64)

    def shifted(self, scores: Tensor) -> Tensor:
        """Scores of labels, moved so that 0 is the threshold of each."""
        if self.thresholds is None:
            return scores.double()
        return scores.double() - torch.from_numpy(self.thresholds.values)

    def frame_of(self, data: Any) -> Frame:
        """The rows of anything that `predict` takes, with the columns that the model reads."""
        frame = data if isinstance(data, Frame) else read_frame(self._as_columns(data))
        for name in self.columns.inputs:
            if name not in frame.names:
                raise MarginsError(
                    "data", expected=f"the column {name!r}, which the model reads",
                    received=f"{frame.source} without it", fix=suggestion(name, frame.names),
                )  # fmt: skip
        return frame.only(list(self.columns.inputs))

    def save(self, folder: str | Path) -> Path:
        """Writes the weights and all else as plain data; nothing that is read back can run code.

        Raises:
            MarginsError: the folder cannot be written.
        """
        with extra("tool"):
            from safetensors.torch import save
        folder = Path(folder)
        state = {name: value.contiguous().clone() for name, value in self.network.state_dict().items()}
        described = {
            "format": _FORMAT,
            "recipe": self.recipe.model_dump(mode="json"),
            "columns": self.columns.model_dump(mode="json"),
            "coding": self.coding.to_data(),
            "preparation": self.preparation.to_data(),
            "calibration": None if self.calibration is None else self.calibration.to_data(),
            "thresholds": None if self.thresholds is None else self.thresholds.to_data(),
            "prior_shift": None if self.prior_shift is None else list(self.prior_shift),
            "cut": None if self.cut is None else self.cut.to_data(),
            "about": self.about,
        }
        write_atomically(folder / WEIGHTS, save(state))
        write_atomically(folder / DESCRIPTION, (json.dumps(described, indent=1) + "\n").encode())
        return folder

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process finds its own machine.
        return {name: value for name, value in self.__dict__.items() if name != "_fabric"}

    @cached_property
    def _fabric(self) -> Fabric:
        return one_cpu(self.recipe.precision)

    def _outputs(self, data: Any) -> tuple[Tensor, Tensor]:
        inputs = self.preparation(self.frame_of(data))
        return outputs_of(self._fabric, self.network, inputs)

    def _as_columns(self, data: Any) -> Any:
        names, kinds = list(self.columns.inputs), set(self.columns.inputs.values())
        if isinstance(data, np.ndarray) and data.ndim == 2 and kinds == {"embedding"} and len(names) == 1:
            return {names[0]: list(data)}
        if isinstance(data, np.ndarray) and data.ndim == 2 and kinds == {"numeric"}:
            if data.shape[1] != len(names):
                raise MarginsError(
                    "data", expected=f"[N, {len(names)}] numbers", received=str(list(data.shape))
                )
            return {name: data[:, k] for k, name in enumerate(names)}
        is_texts = isinstance(data, Sequence) and not isinstance(data, (str, bytes))
        if is_texts and len(names) == 1 and all(isinstance(text, str) for text in data):
            return {names[0]: list(data)}
        return data

    def _refuse_matches(self, asked: str, instead: str) -> None:
        if self.recipe.task == "matches":
            raise MarginsError(
                asked, expected="a model that predicts", received="one of embeddings", fix=f"use {instead}"
            )


def load(path: str | Path) -> Model:
    """A model that `save` wrote, or that a run left in its folder.

    Args:
        path: the folder of the model or of the run.

    Raises:
        MarginsError: there is no model, or it is broken or of another version.
    """
    folder = Path(path)
    folder = folder / "model" if (folder / "model" / DESCRIPTION).is_file() else folder
    described = _description(folder)
    try:
        described["recipe"]["encoder"].pop("download", None)  # a file that is loaded starts no download
        model = _described(folder, described)
        if model.recipe.task != "matches":  # sizes that do not fit each other show at the first row
            model.decided(torch.zeros(1, model.coding.num_outputs))
        if model.recipe.task in ("classes", "label_sets"):
            model.probabilities(torch.zeros(1, model.coding.num_outputs))
    except MarginsError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise MarginsError(
            str(folder / DESCRIPTION), expected="a description as it was saved",
            received=f"one that was changed ({str(error).splitlines()[0][:200]})",
            fix="copy the whole folder again",
        ) from error  # fmt: skip
    return model


def _described(folder: Path, described: dict[str, Any]) -> Model:
    with extra("tool"):
        from safetensors import SafetensorError
        from safetensors.torch import load as read
    recipe = validated(Recipe, described["recipe"], what=f"{folder / DESCRIPTION}: recipe")
    columns = validated(Columns, described["columns"], what=f"{folder / DESCRIPTION}: columns")
    coding = coding_from_data(described["coding"])
    preparation = recipe.encoder.restore(described["preparation"])
    network, _ = new_network(recipe, preparation, coding.num_outputs)
    try:
        network.load_state_dict(read((folder / WEIGHTS).read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise MarginsError(
            str(folder / WEIGHTS), expected="the weights of the model", received=str(error).splitlines()[0],
            fix="copy the whole folder again",
        ) from None  # fmt: skip
    calibration, thresholds, cut = (described.get(key) for key in ("calibration", "thresholds", "cut"))
    return Model(
        recipe, columns, coding, preparation, network.eval(),
        None if calibration is None else calibration_from(calibration),
        None if thresholds is None else Thresholds.from_data(thresholds),
        None if described["prior_shift"] is None else tuple(described["prior_shift"]),
        None if cut is None else class_cut_from(cut),
        described["about"],
    )  # fmt: skip


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise MarginsError(
            str(folder), expected=f"the folder of a model, with {DESCRIPTION}", received="none there",
            fix="name the folder of a finished run",
        )  # fmt: skip
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        keys = {
            "recipe", "columns", "coding", "preparation", "calibration", "thresholds", "prior_shift", "about",
        }  # fmt: skip
        missing = keys - set(described)
        if not isinstance(described, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"no mapping: {str(described)[:50]}")
    except (ValueError, TypeError) as error:
        raise MarginsError(str(path), expected="a whole description", received=str(error)) from None
    if described.get("format") != _FORMAT or missing:
        raise MarginsError(
            str(path), expected=f"a description of format {_FORMAT}",
            received=f"format {described.get('format')}, without {', '.join(sorted(missing)) or 'nothing'}",
            fix="load it with the version of margins that wrote it",
        )  # fmt: skip
    return described
