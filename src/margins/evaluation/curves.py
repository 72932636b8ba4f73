"""Area under the ROC curve and average precision, exact, for all columns at once.

Rows of equal score stand at one threshold: a pair of equals counts one half in AUROC, and average precision
takes the precision after all of them. Only the order of scores matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from margins.engine.pairs.functions import STEP
from margins.engine.pairs.sums import pair_sums
from margins.errors import MarginsError
from margins.evaluation.records import Candidates, Classes, Floats

_BLOCK = 1 << 22  # entries sorted at once: bounds the working memory to a few hundred MB


class _Block(NamedTuple):
    """Some columns, one a row: scores, and the weights of entries as positives and as negatives."""

    scores: Floats  # [L, N]
    positive: Floats
    negative: Floats


Area = Callable[[_Block], Floats]


def macro(area: Area) -> Callable[[Classes | Candidates, Floats], float]:
    """Class 1 of two; else the mean over the classes that have positive and negative rows."""

    def compute(record: Classes | Candidates, weight: Floats) -> float:
        areas = per_class(area)(record, weight)
        if isinstance(record, Classes) and len(areas) == 2:
            areas = areas[1:]
        if np.isnan(areas).all():
            raise _no_contrast(record)
        return float(np.nanmean(areas))

    return compute


def micro(area: Area) -> Callable[[Candidates, Floats], float]:
    """Of all entries (row, label) as one list."""

    def compute(record: Candidates, weight: Floats) -> float:
        whole = _candidate_block(record, weight, 0, record.targets.num_candidates)
        value = float(area(_Block(*(part.reshape(1, -1) for part in whole)))[0])
        if np.isnan(value):
            raise _no_contrast(record)
        return value

    return compute


def per_class(area: Area) -> Callable[[Classes | Candidates, Floats], Floats]:
    """The area of each class against the rest, NaN for one without positive or without negative rows."""

    def compute(record: Classes | Candidates, weight: Floats) -> Floats:
        num = record.probabilities.shape[1] if isinstance(record, Classes) else record.targets.num_candidates
        step = max(1, _BLOCK // max(len(record), 1))
        read = _class_block if isinstance(record, Classes) else _candidate_block
        starts = range(0, num, step)
        blocks = (read(record, weight, s, min(s + step, num)) for s in starts)  # type: ignore[arg-type]
        return np.concatenate([_where_positive(area, block) for block in blocks])

    return compute


def _where_positive(area: Area, block: _Block) -> Floats:
    """The areas of a block; only columns with something positive are sorted: of many labels few may have."""
    own = np.flatnonzero(block.positive.max(axis=1, initial=0.0) > 0)
    if len(own) == len(block.scores):
        return area(block)
    areas = np.full(len(block.scores), np.nan)
    areas[own] = area(_Block(*(part[own] for part in block)))
    return areas


def roc_area(block: _Block) -> Floats:
    """[L] areas: the weight of (positive, negative) pairs in the right order, over that of all pairs."""
    scores, positive = torch.from_numpy(block.scores), torch.from_numpy(block.positive)
    weight = positive + torch.from_numpy(block.negative)
    wrong = pair_sums(scores, positive > 0, weight, surrogate=STEP)
    return 1 - _ratio(wrong.values.numpy(), wrong.pairs.numpy())


def average_precision(block: _Block) -> Floats:
    """[L] sums over thresholds of the gain in recall times the precision there."""
    order = np.argsort(-block.scores, axis=1)
    scores = np.take_along_axis(block.scores, order, 1)
    positive = np.take_along_axis(block.positive, order, 1)
    right = np.cumsum(positive, axis=1)
    given = right + np.cumsum(np.take_along_axis(block.negative, order, 1), axis=1)
    new = scores[:, 1:] != scores[:, :-1]
    right, given = _at_tie_end(right, new), _at_tie_end(given, new)
    precision = np.divide(right, given, out=np.zeros_like(right), where=given > 0)
    total = positive.sum(1)
    has_negatives = block.negative.sum(1) > 0
    return _ratio((positive * precision).sum(1), np.where(has_negatives, total, 0.0))


def _at_tie_end(rising: Floats, new: npt.NDArray[np.bool_]) -> Floats:
    if new.all():
        return rising
    ends = rising.copy()
    ends[:, :-1] = np.where(new, rising[:, :-1], np.inf)
    return np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _class_block(record: Classes, weight: Floats, start: int, stop: int) -> _Block:
    scores = np.ascontiguousarray(record.probabilities[:, start:stop].T)
    is_class = record.labels == np.arange(start, stop)[:, None]
    return _Block(scores, np.where(is_class, weight, 0.0), np.where(is_class, 0.0, weight))


def _candidate_block(record: Candidates, weight: Floats, start: int, stop: int) -> _Block:
    scores = record.matrix()[:, start:stop].double().T.contiguous().numpy()
    positive = record.targets.positive(start, stop).T.numpy()
    known = record.targets.known(start, stop)
    entries = weight if known is None else np.where(known.T.numpy(), weight, 0.0)
    return _Block(scores, np.where(positive, entries, 0.0), np.where(positive, 0.0, entries))


def _no_contrast(record: Classes | Candidates) -> MarginsError:
    if isinstance(record, Classes):
        present = np.unique(record.labels)
        return MarginsError(
            "labels", expected="rows of at least two classes", received=f"class {present[0]} only"
        )
    return MarginsError(
        "truth",
        expected="a label with both positive and negative rows",
        received="none among " + str(record.targets.num_candidates),
    )
