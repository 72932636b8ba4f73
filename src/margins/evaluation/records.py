"""Predictions beside their truth, checked once and typed by task: what every metric is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.errors import MarginsError, describe
from margins.targets import Targets

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Array: TypeAlias = "npt.NDArray[np.generic] | Tensor"
Truth: TypeAlias = "Array | Targets | tuple[Tensor, Tensor]"
Task = Literal["classes", "label_sets", "rankings", "values"]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Scores that are never written out whole: the dot products of queries and corpus.

    Normalise both for cosine similarity. Metrics walk over them in blocks of queries and of the corpus.

    Args:
        queries: [N, d] floats.
        corpus: [M, d] floats; candidate j of the relevance is row j.

    Raises:
        MarginsError: not two float matrices of the same width, or non-finite ones.
    """

    queries: Tensor
    corpus: Tensor

    def __post_init__(self) -> None:
        for name, matrix in (("queries", self.queries), ("corpus", self.corpus)):
            if matrix.ndim != 2 or not matrix.is_floating_point() or not is_finite(as_array(name, matrix)):
                raise MarginsError(name, expected="[N, d] finite floats", received=describe(matrix))
        if self.queries.shape[1] != self.corpus.shape[1]:
            raise MarginsError(
                "queries, corpus",
                expected="the same width d",
                received=f"{describe(self.queries)} and {describe(self.corpus)}",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(queries, candidates)."""
        return self.queries.shape[0], self.corpus.shape[0]


@dataclass(frozen=True, eq=False)
class Classes:
    """Class probabilities [N, C] and true class ids [N]."""

    probabilities: Floats
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Ints) -> Self:
        """These rows, in this order."""
        return type(self)(self.probabilities[rows], self.labels[rows])

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts."""
        return cls(
            np.concatenate([p.probabilities for p in parts]), np.concatenate([p.labels for p in parts])
        )

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return self.probabilities.nbytes + self.labels.nbytes


@dataclass(frozen=True, eq=False)
class Candidates:
    """Scores of candidates [N, C], or embeddings that make them, and which candidates are relevant."""

    scores: Tensor | Embeddings
    targets: Targets

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Ints) -> Self:
        """These rows, in this order."""
        chosen = torch.from_numpy(rows)
        if isinstance(self.scores, Embeddings):
            scores = Embeddings(self.scores.queries[chosen], self.scores.corpus)
        else:
            scores = self.scores[chosen]
        return type(self)(scores, self.targets.take(chosen))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts; of score matrices only."""
        return cls(torch.cat([p.matrix() for p in parts]), Targets.cat([p.targets for p in parts]))

    @property
    def num_bytes(self) -> int:
        """Memory held by the scores; the relevance is sparse beside them."""
        tensors = (
            [self.scores.queries, self.scores.corpus]
            if isinstance(self.scores, Embeddings)
            else [self.scores]
        )
        return sum(t.numel() * t.element_size() for t in tensors)

    def matrix(self) -> Tensor:
        """The scores as a matrix.

        Raises:
            MarginsError: they are embeddings, and this metric needs every score of a row at once.
        """
        if isinstance(self.scores, Embeddings):
            raise MarginsError(
                "scores", expected="a score matrix [N, C] for this metric", received="Embeddings",
                fix="metrics at k, map@r, r_precision and mrr take embeddings",
            )  # fmt: skip
        return self.scores

    def positives(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (ascending), columns and grades (float64) of known relevant candidates."""
        rows, columns, grades = self.targets.positives()
        counted = grades > 0
        known = self.targets.known_at(rows, columns)
        if known is not None:
            counted = counted & known
        if not bool(counted.all()):
            rows, columns, grades = rows[counted], columns[counted], grades[counted]
        return rows, columns, grades.double()


@dataclass(frozen=True, eq=False)
class Values:
    """Predicted and true real values, both [N, D]."""

    predicted: Floats
    true: Floats

    def __len__(self) -> int:
        return len(self.true)

    def take(self, rows: Ints) -> Self:
        """These rows, in this order."""
        return type(self)(self.predicted[rows], self.true[rows])

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts."""
        return cls(np.concatenate([p.predicted for p in parts]), np.concatenate([p.true for p in parts]))

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return self.predicted.nbytes + self.true.nbytes


Record: TypeAlias = "Classes | Candidates | Values"


def as_array(name: str, value: object) -> npt.NDArray[np.generic]:
    """An array of a NumPy array or of a tensor, which is detached.

    Raises:
        MarginsError: it is neither.
    """
    if isinstance(value, Tensor):
        held = value.detach().cpu()
        return held.float().numpy() if held.dtype in (torch.float16, torch.bfloat16) else held.numpy()
    if isinstance(value, np.ndarray):
        return value
    raise MarginsError(name, expected="a NumPy array or a tensor", received=type(value).__name__)


def read_record(tasks: tuple[Task, ...], predictions: object, truth: object) -> Record:
    """The record of these predictions for a metric of these tasks; the type of the truth says which.

    Integers [N] are classes; `Targets` or (offsets, columns) are label sets or relevance; floats are values.

    Raises:
        MarginsError: shapes that do not fit, no row, non-finite numbers, or a truth of another task.
    """
    if "classes" in tasks and not isinstance(truth, (Targets, tuple)):
        return read_classes(predictions, truth)
    if "values" in tasks:
        return _read_values(predictions, truth)
    if isinstance(truth, (Targets, tuple)) and tasks != ("classes",):
        return _read_candidates(predictions, truth)
    wanted = "[N] class ids" if tasks == ("classes",) else "Targets, or (offsets, columns) of label sets"
    raise MarginsError(
        "truth", expected=f"{wanted}, for a metric of {' or '.join(tasks)}",
        received=type(truth).__name__,
        fix="a multi-hot matrix: Targets.of_scores(matrix.float())" if tasks != ("classes",) else "",
    )  # fmt: skip


def read_classes(predictions: object, truth: object) -> Classes:
    """Checked class probabilities and labels."""
    probabilities, labels = as_array("probabilities", predictions), as_array("labels", truth)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or not len(probabilities):
        raise MarginsError(
            "probabilities", expected="[N, C] with N >= 1, C >= 2", received=str(list(probabilities.shape))
        )
    num_classes = probabilities.shape[1]
    if labels.shape != probabilities.shape[:1]:
        raise MarginsError(
            "labels", expected=f"[N] with N = {len(probabilities)}", received=str(list(labels.shape))
        )
    numbers = probabilities.astype(np.float64, copy=False)
    if not is_finite(numbers):
        raise MarginsError("probabilities", expected="finite numbers", received="NaN or infinity")
    ids = check_class_ids("labels", labels, num_classes)
    return Classes(numbers, ids)


def check_class_ids(name: str, labels: npt.NDArray[np.generic], num_classes: int) -> Ints:
    """Labels as int64.

    Raises:
        MarginsError: not integers, or out of range.
    """
    if labels.dtype.kind not in "iu":
        raise MarginsError(name, expected="[N] integers, class ids", received=f"{labels.dtype}")
    ids = labels.astype(np.int64, copy=False)
    if ids.min() < 0 or ids.max() >= num_classes:
        raise MarginsError(
            name,
            expected=f"class ids in [0, C) = [0, {num_classes})",
            received=f"{ids.min()} to {ids.max()}",
        )
    return ids


def check_weight(weight: object, num_rows: int) -> Floats:
    """Row weights as float64; ones when None.

    Raises:
        MarginsError: wrong shape, negative or non-finite ones, or nothing but zeros.
    """
    if weight is None:
        return np.ones(num_rows)
    given = as_array("weight", weight).astype(np.float64)
    if given.shape != (num_rows,):
        raise MarginsError("weight", expected=f"[N] with N = {num_rows}", received=str(list(given.shape)))
    if not np.isfinite(given).all() or (given < 0).any() or not given.any():
        raise MarginsError("weight", expected="finite numbers >= 0, not all 0", received=str(given[:5]))
    return given


def is_finite(numbers: npt.NDArray[np.generic]) -> bool:
    """Whether all are finite. A finite sum says so in one pass; another one may only have overflowed."""
    given = numbers.astype(np.float32) if numbers.dtype == np.float16 else numbers
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(given.sum())) or bool(np.isfinite(given).all())


def sums_by(keys: Ints, values: Floats, num: int) -> Floats:
    """[num] sums of the values of each key."""
    return np.bincount(keys, values, num).astype(np.float64, copy=False)


def _read_values(predictions: object, truth: object) -> Values:
    if isinstance(truth, (Targets, tuple)):
        raise MarginsError(
            "truth", expected="[N] or [N, D] real values for this metric", received=type(truth).__name__
        )
    predicted, true = as_array("predictions", predictions), as_array("truth", truth)
    if predicted.shape != true.shape or true.ndim not in (1, 2) or not true.size:
        raise MarginsError(
            "predictions",
            expected=f"the shape of the truth, [N] or [N, D], N >= 1: {list(true.shape)}",
            received=str(list(predicted.shape)),
        )
    columns = [a.astype(np.float64, copy=False).reshape(len(a), -1) for a in (predicted, true)]
    for name, numbers in zip(("predictions", "truth"), columns, strict=True):
        if not np.isfinite(numbers).all():
            raise MarginsError(name, expected="finite numbers", received="NaN or infinity")
    return Values(columns[0], columns[1])


def _read_candidates(predictions: object, truth: Targets | tuple[Tensor, Tensor]) -> Candidates:
    if isinstance(predictions, Embeddings):
        scores = Embeddings(_plain(predictions.queries), _plain(predictions.corpus))
    else:
        scores = _score_matrix(predictions)
    if not isinstance(truth, Targets):
        truth = Targets.of_label_sets(truth, scores.shape[1])
    if truth.shape != tuple(scores.shape) or not len(truth):
        raise MarginsError(
            "scores", expected=f"[N, C] of the truth, N >= 1: {list(truth.shape)}",
            received=str(list(scores.shape)),
        )  # fmt: skip
    layered = truth.is_smoothed or truth.is_mixed or any(m is not None for m in truth.margins.fields())
    if layered or truth.row_weight is not None or truth.entry_weight is not None:
        raise MarginsError(
            "truth", expected="targets without weights, margins, smoothing or mixing", received=repr(truth),
            fix="pass row weights as weight=",
        )  # fmt: skip
    if not truth.storage.has_positives:
        raise MarginsError("truth", expected="targets with positives", received=repr(truth))
    return Candidates(scores, truth)


def _plain(tensor: Tensor) -> Tensor:
    held = tensor.detach().cpu()
    return held.float() if held.dtype in (torch.float16, torch.bfloat16) else held


def _score_matrix(predictions: object) -> Tensor:
    given = as_array("scores", predictions)
    if given.ndim != 2:
        raise MarginsError("scores", expected="[N, C], or Embeddings", received=str(list(given.shape)))
    if given.dtype.kind not in "fb":
        raise MarginsError("scores", expected="floats, or booleans as decisions", received=str(given.dtype))
    if given.dtype.kind == "f" and not is_finite(given):
        raise MarginsError("scores", expected="finite numbers", received="NaN or infinity")
    if isinstance(predictions, Tensor):
        return _plain(predictions)
    # Copies only what torch cannot take as it is: read-only memory, negative strides, half precision.
    wanted = given.astype(np.float32) if given.dtype == np.float16 else given
    usable = wanted.flags.writeable and all(step >= 0 for step in wanted.strides)
    return torch.from_numpy(wanted if usable else wanted.copy())
