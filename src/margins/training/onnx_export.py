"""A trained network as an ONNX file: from the encoder's tensors to scores, checked against the runtime."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from margins.data.extras import extra
from margins.data.value_coding import ValueCoding
from margins.encoders.embeddings import EmbeddingPreparation, Vectors
from margins.encoders.images import ImageEncoder, ImagePreparation, Images
from margins.encoders.inputs import TensorRows
from margins.encoders.tabular import TabularEncoder, TabularPreparation, TabularRows
from margins.encoders.vision_transformer import SmallViT
from margins.errors import MarginsError
from margins.heads import NoPropHead, TokenHead
from margins.training.checkpoint import write_atomically
from margins.training.model import Model
from margins.training.network import Network
from margins.training.randomness import generator_of

Floats = npt.NDArray[np.floating[Any]]

_TOLERANCE = 1e-4
_CHECKED_ROWS = 5
_OPSET = 18
_FAMILIES = ("tabular", "embeddings", "small_resnet", "small_vit")


def export_onnx(model: Model, path: str | Path, *, data: Any = None) -> Path:
    """Writes the network of a model for ONNX runtimes, if they compute what it computes.

    Use it to serve a model without Python or torch. The file takes what the model's preparation makes of a
    row (`model.preparation(frame)`), not cells: numbers and the places of categories in their vocabularies,
    from 1, with 0 for unknown ones; pixels; vectors. What is needed for that is in its metadata. To go on in
    Python use `Model.save`.

    Inputs are named as the fields of the preparation's dataclass (`numbers` and `categories`, `pixels`,
    `values`), their first axis is the batch, of any length from 1; a field without columns is left out. The
    output `scores` [B, C] is raw. Metadata hold, as JSON and each with `margins.` before its name: `task`,
    `outputs` (their names), `columns`, `preparation`, `calibration` (of a temperature, probabilities are
    softmax(scores / temperature + offset), without the offset where it is null), `prior_shift` (the same
    numbers as that offset; added to the scores themselves where there is no calibration or its offset is
    null; decisions are made by the softmax of raw scores then), `cut` (of the logarithms of the shares that
    decide: class 1 above `log_odds`, or `tau * log_prior` is subtracted), `thresholds` of labels, which raw
    scores must reach, and, for values, `unit` (the mean and deviation of training).

    Args:
        model: whose encoder is tabular, embeddings, small_resnet or small_vit, with any head but no_prop.
        path: of the file; an older one is replaced.
        data: rows to check the file on, as for `Model.predict`; made-up ones by default.

    Returns:
        the path.

    Raises:
        MarginsError: another encoder, a head that draws, scores that differ from those of the model by more
            than 1e-4 (of the largest score, if that is above 1), or a folder that cannot be written. Nothing
            is written then.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from margins import train
        >>> table = {"a": np.arange(60.0) % 7, "label": np.arange(60) % 2}
        >>> model = train(table, target="label", recipe={"max_epochs": 1}).model
        >>> with TemporaryDirectory() as folder:
        ...     export_onnx(model, Path(folder) / "model.onnx").name
        'model.onnx'
    """
    if model.recipe.encoder.name not in _FAMILIES:
        raise MarginsError(
            "model", expected=f"an encoder among {', '.join(_FAMILIES)}",
            received=model.recipe.encoder.name, fix="keep this model in Python with Model.save",
        )  # fmt: skip
    if isinstance(model.network.head, NoPropHead):
        raise MarginsError(
            "model", expected="a head that draws nothing", received=model.recipe.head.name,
            fix="keep this model in Python with Model.save",
        )  # fmt: skip
    inputs = _made_up(model) if data is None else model.preparation(model.frame_of(data))
    network = _Tensors(model.network, inputs)
    tensors = _tensors_of(inputs)
    with _evaluating(model.network):
        content = _with_metadata(_exported(network, tensors), _metadata(model))
        _check(content, network, tensors, where=str(path))
    write_atomically(Path(path), content)
    return Path(path)


class _Tensors(nn.Module):
    """A network that takes the fields of its inputs one by one, and gives scores alone.

    Args:
        network: inputs to scores and embeddings.
        example: of its inputs; says which fields there are, and which are empty.
    """

    def __init__(self, network: Network, example: TensorRows) -> None:
        super().__init__()
        self.network = network
        self._kind = type(example)
        self._dtypes = {field.name: getattr(example, field.name).dtype for field in fields(example)}
        self._given = list(_tensors_of(example))

    def forward(self, *tensors: Tensor) -> Tensor:
        """Scores [B, C]."""
        given = dict(zip(self._given, tensors, strict=True))
        num = tensors[0].shape[0]
        inputs = self._kind(
            *(given[name] if name in given else torch.zeros((num, 0), dtype=dtype)
              for name, dtype in self._dtypes.items())
        )  # fmt: skip
        return self.network.head(*self._embedded(inputs))

    def _embedded(self, inputs: Any) -> tuple[Tensor, ...]:
        """What the head takes: embeddings, or states of tokens and their mask."""
        encoder = self.network.encoder
        if not isinstance(encoder, ImageEncoder):
            return (encoder(inputs),)
        # Not by way of `forward`, which asks for the length of the batch: it is not known yet.
        images = encoder.seen(inputs.pixels)
        if not isinstance(self.network.head, TokenHead):
            return (encoder.embed(images),)
        assert isinstance(encoder, SmallViT)  # noqa: S101 - the one of these encoders that gives tokens
        states = encoder.states(images)
        return states, torch.ones(states.shape[:2], dtype=torch.bool)


def _tensors_of(inputs: TensorRows) -> dict[str, Tensor]:
    """The fields that hold anything, by name."""
    found = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return {name: tensor for name, tensor in found.items() if tensor[:1].numel()}


@contextmanager
def _evaluating(network: Network) -> Generator[None]:
    """No dropout inside the block; the network's mode is put back."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _exported(network: _Tensors, tensors: Mapping[str, Tensor]) -> Any:
    """The graph as a protocol buffer of onnx."""
    with extra("onnx"):
        import onnxscript  # noqa: F401 # pyright: ignore[reportUnusedImport] - torch's exporter needs it
    batch = torch.export.Dim("batch", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            network, tuple(tensors.values()), input_names=list(tensors), output_names=["scores"],
            dynamic_shapes=(tuple({0: batch} for _ in tensors),), opset_version=_OPSET, dynamo=True,
            verbose=False,
        )  # fmt: skip
    assert program is not None  # noqa: S101 - it is None only when a file is asked for
    return program.model_proto


@contextmanager
def _quiet_exporter() -> Generator[None]:
    """Without what the exporter says of its own code and of packages that it could know too."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _with_metadata(graph: Any, metadata: Mapping[str, str]) -> bytes:
    with extra("onnx"):
        from onnx.helper import set_model_props
    set_model_props(graph, dict(metadata))
    return graph.SerializeToString()


def _metadata(model: Model) -> dict[str, str]:
    coding = model.coding
    unit = {"mean": coding.mean, "deviation": coding.deviation} if isinstance(coding, ValueCoding) else None
    told = {
        "task": model.recipe.task,
        "outputs": None if model.recipe.task == "matches" else model.classes,
        "columns": model.columns.model_dump(mode="json"),
        "preparation": model.preparation.to_data(),
        "calibration": None if model.calibration is None else model.calibration.to_data(),
        "thresholds": None if model.thresholds is None else model.thresholds.to_data(),
        "prior_shift": None if model.prior_shift is None else list(model.prior_shift),
        "cut": None if model.cut is None else model.cut.to_data(),
        "unit": unit,
    }
    return {f"margins.{name}": json.dumps(value) for name, value in told.items() if value is not None}


def _check(content: bytes, network: _Tensors, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Refuses a file whose scores are not those of the network, for one row and for several."""
    with extra("onnx"):
        from onnxruntime import InferenceSession
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    num = len(next(iter(tensors.values())))
    for rows in {1, num}:
        part = {name: tensor[:rows] for name, tensor in tensors.items()}
        with torch.no_grad():
            expected = network(*part.values()).double().numpy()
        (found,) = session.run(["scores"], {name: tensor.numpy() for name, tensor in part.items()})
        difference = _largest_difference(np.asarray(found), expected)
        if not difference <= _TOLERANCE:
            raise MarginsError(
                where, expected=f"scores of the runtime within {_TOLERANCE:g} of the model's",
                received=f"a difference of {difference:.2g} on {rows} rows; nothing was written",
                fix="report it with the recipe of the model",
            )  # fmt: skip


def _largest_difference(found: Floats, expected: Floats) -> float:
    """Over the largest score, if that is above 1; NaN when either has one, infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def _made_up(model: Model) -> TensorRows:
    """Rows as the encoder takes them, drawn near those of training, with gaps and unknown categories."""
    makers: dict[type, Callable[[Any, Network, torch.Generator], TensorRows]] = {
        TabularPreparation: _made_up_table, EmbeddingPreparation: _made_up_vectors,
        ImagePreparation: _made_up_images,
    }  # fmt: skip
    make = makers[type(model.preparation)]
    return make(model.preparation, model.network, generator_of("onnx"))


def _made_up_table(preparation: TabularPreparation, network: Network, draws: torch.Generator) -> TabularRows:
    encoder = network.encoder
    assert isinstance(encoder, TabularEncoder)  # noqa: S101 - its preparation said so
    shape = (_CHECKED_ROWS, len(preparation.numeric))
    numbers = encoder.mean + encoder.deviation * torch.randn(shape, generator=draws, dtype=torch.float64)
    numbers[::2, encoder.with_gaps] = torch.nan
    ids = [
        torch.randint(len(known) + 1, (_CHECKED_ROWS,), generator=draws)
        for known in preparation.vocabularies.values()
    ]
    categories = torch.stack(ids, 1) if ids else torch.zeros((_CHECKED_ROWS, 0), dtype=torch.int64)
    return TabularRows(numbers, categories)


def _made_up_vectors(preparation: EmbeddingPreparation, _: Network, draws: torch.Generator) -> Vectors:
    return Vectors(torch.randn((_CHECKED_ROWS, sum(preparation.widths.values())), generator=draws))


def _made_up_images(preparation: ImagePreparation, _: Network, draws: torch.Generator) -> Images:
    shape = (_CHECKED_ROWS, preparation.channels, preparation.height, preparation.width)
    return Images(torch.randint(256, shape, generator=draws, dtype=torch.uint8))
