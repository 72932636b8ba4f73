"""The coding for a kind of target, fitted on cells or read back from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from margins.data.class_coding import ClassCoding, LabelSetCoding
from margins.data.coding import TargetCoding
from margins.data.columns import TargetKind
from margins.data.path_coding import PathCoding
from margins.data.value_coding import ValueCoding
from margins.errors import MarginsError
from margins.targets import Targets

if TYPE_CHECKING:
    import polars as pl

_CODINGS: dict[str, type[TargetCoding]] = {
    coding.kind: coding for coding in (ClassCoding, LabelSetCoding, PathCoding, ValueCoding)
}


def fit_coding(
    cells: pl.Series,
    kind: TargetKind,
    *,
    separator: str = "|",
    class_order: Sequence[str] | None = None,
    train: npt.NDArray[np.int64] | None = None,
) -> TargetCoding:
    """The coding of a target column: classes are collected over all cells given.

    Args:
        cells: the column.
        kind: what its cells mean.
        separator: between labels of a set or steps of a path.
        class_order: of classes, from the lowest to the highest; None numbers them by frequency.
        train: the rows whose mean and deviation standardise values; all rows when it is None. Classes are
            collected over all rows in any case, so that a class is numbered even if no row of it trains.

    Raises:
        MarginsError: cells that the kind has no place for, or that do not tell rows apart.

    Example:
        >>> import polars as pl
        >>> fit_coding(pl.Series("y", [3, 1, 3]), "label").names
        ('3', '1')
    """
    if kind == "label":
        coding = ClassCoding.fit(cells)
        return coding if class_order is None else coding.in_order(class_order)
    if kind == "label_set":
        return LabelSetCoding.fit(cells, separator=separator)
    if kind == "path":
        return PathCoding.fit(cells, separator=separator)
    return ValueCoding.fit(cells if train is None else cells.gather(train))


def numbered_by(coding: TargetCoding, train: Targets) -> TargetCoding:
    """The coding with its classes or labels numbered from the most frequent of these targets.

    With the targets of the training rows no label of another row moves a number. Equal counts go by name;
    paths, values and classes in an order keep their numbers.

    Example:
        >>> import polars as pl, torch
        >>> coding = fit_coding(pl.Series("y", ["a", "b", "b"]), "label")
        >>> coding.names, numbered_by(coding, coding.targets(pl.Series("y", ["a"]))).names
        (('b', 'a'), ('a', 'b'))
    """
    if not isinstance(coding, (ClassCoding, LabelSetCoding)):
        return coding
    if isinstance(coding, ClassCoding) and coding.is_ordered:
        return coding
    counts = torch.bincount(train.positives().columns, minlength=coding.num_outputs).tolist()
    ordered = sorted(zip(counts, coding.names, strict=True), key=lambda pair: (-pair[0], pair[1]))
    names = tuple(name for _, name in ordered)
    if isinstance(coding, ClassCoding):
        return replace(coding, classes=names)
    return replace(coding, labels=names)


def coding_from_data(data: Mapping[str, Any]) -> TargetCoding:
    """The coding that `to_data` wrote.

    Raises:
        MarginsError: data of an unknown kind.

    Example:
        >>> coding_from_data({"kind": "label", "names": ["a", "b"]}).num_outputs
        2
    """
    kind = data.get("kind")
    if kind not in _CODINGS:
        raise MarginsError("coding", expected=f"a kind among {', '.join(_CODINGS)}", received=repr(kind))
    return _CODINGS[str(kind)].from_data(data)
