"""Inputs that are numbers as one matrix, and what the distances between its rows say of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.diagnose import intrinsic_dimension, label_sharpness
from margins.encoders.cells import numbers_of, vectors_of
from margins.encoders.numeric import mean_and_deviation
from margins.errors import MarginsError

_MOST_ROWS = 1000
_LEAST_ROWS = 100  # under which neighbours are too far apart to tell of dimensions


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """What distances say of rows that are numbers.

    Args:
        intrinsic_dimension: by 20 neighbours; None where rows are too few or too alike.
        label_sharpness: the 99.9 % quantile over pairs of different classes, columns scaled to [0, 1]; None
            without classes.
        sentences: both in words.
    """

    intrinsic_dimension: float | None
    label_sharpness: float | None
    sentences: list[str]


def numeric_rows(frame: Frame, inputs: Mapping[str, InputKind]) -> Tensor | None:
    """Numbers and vectors side by side [N, d] in float64, NaN where missing; None for other inputs.

    Example:
        >>> from margins.data.reading import read_frame
        >>> frame = read_frame({"a": [1.0, 2.0], "b": [3, None]})
        >>> numeric_rows(frame, {"a": "numeric", "b": "numeric"}).tolist()
        [[1.0, 3.0], [2.0, nan]]
    """
    if not inputs or not set(inputs.values()) <= {"numeric", "embedding"}:
        return None
    parts = [
        torch.from_numpy(np.array(numbers_of(frame, name)))[:, None] if kind == "numeric"
        else vectors_of(frame, name).double()
        for name, kind in inputs.items()
    ]  # fmt: skip
    return torch.cat(parts, 1)


def standardised(rows: Tensor, fit_on: Tensor) -> Tensor:
    """Columns in deviations from their mean over some rows; a missing number is the mean.

    Args:
        rows: [N, d].
        fit_on: places of the rows that mean and deviation come from.
    """
    mean, deviation = mean_and_deviation(rows[fit_on])
    return ((rows - mean) / deviation).nan_to_num(0.0)


def nearness(rows: Tensor, labels: Tensor | None) -> Nearness:
    """Intrinsic dimension and label sharpness of at most a thousand rows, drawn by a fixed seed.

    Args:
        rows: [N, d], NaN where missing.
        labels: [N] class ids; None without classes.
    """
    draws = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(rows), generator=draws)[:_MOST_ROWS]
    part = standardised(rows[chosen], torch.arange(len(chosen)))
    told: list[str] = []
    dimension = sharpness = None
    if len(part) >= _LEAST_ROWS:
        dimension = _dimension(part, draws, told)
    if labels is not None:
        sharpness = _sharpness(part, labels[chosen], draws, told)
    return Nearness(intrinsic_dimension=dimension, label_sharpness=sharpness, sentences=told)


def _dimension(part: Tensor, draws: torch.Generator, told: list[str]) -> float | None:
    try:
        twenty = intrinsic_dimension(part, generator=draws)
        two = intrinsic_dimension(part, method="twonn", generator=draws)
    except MarginsError:  # too few different rows, or distances that do not differ
        return None
    told.append(
        f"Intrinsic dimension {twenty.value:.1f} by 20 neighbours, {two.value:.1f} by two, of "
        f"{part.shape[1]} columns ({len(part)} rows looked at)."
    )
    return twenty.value


def _sharpness(part: Tensor, labels: Tensor, draws: torch.Generator, told: list[str]) -> float | None:
    low, high = part.amin(0), part.amax(0)
    scaled = (part - low) / torch.where(high > low, high - low, 1.0)
    try:
        found = label_sharpness(scaled, labels, generator=draws)
    except MarginsError:  # one class alone, or equal inputs
        return None
    told.append(
        f"Label sharpness {found.high:.3g}: of the pairs of different classes one in a thousand is nearer "
        f"than {1 / found.high:.2g}, columns scaled to [0, 1]."
    )
    return found.high
