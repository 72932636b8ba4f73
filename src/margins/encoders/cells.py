"""Columns of a frame as an encoder reads them; what cannot be read is told with its column and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.data.columns import InputKind
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl


def check_kinds(name: str, inputs: Mapping[str, InputKind], *kinds: InputKind) -> None:
    """Refuses columns of other kinds than an encoder reads, and no column at all."""
    wrong = [f"{column} ({kind})" for column, kind in inputs.items() if kind not in kinds]
    if wrong or not inputs:
        raise MarginsError(
            "inputs",
            expected=f"columns of kind {' or '.join(kinds)} for the encoder {name}",
            received=", ".join(wrong) or "none",
            fix="choose an encoder for these kinds; `combined` reads several side by side",
        )


def column_of(frame: Frame, name: str) -> pl.Series:
    """A column by name.

    Raises:
        MarginsError: there is none, with the nearest name.
    """
    if name not in frame.names:
        raise MarginsError(
            "inputs",
            expected=f"a column of {frame.source}",
            received=repr(name),
            fix=suggestion(name, frame.names),
        )
    return frame.table[name]


def texts_of(frame: Frame, name: str) -> list[str]:
    """A column as texts; a missing cell is an empty text."""
    import polars as pl

    cells = column_of(frame, name)
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        raise _wrong_type(name, "text", cells)
    return cells.cast(pl.String).fill_null("").to_list()


def names_of(frame: Frame, name: str) -> pl.Series:
    """A column of categories as text: whole numbers without a decimal point, empty where missing."""
    with extra("tool"):
        import polars as pl
    cells = column_of(frame, name)
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        raise _wrong_type(name, "categories", cells)
    if cells.dtype.is_float():
        # A column of codes with gaps comes as floats from some readers: 7.0 is the category 7.
        whole = cells.round() == cells
        small = cells.abs() < 2.0**53
        as_text = cells.cast(pl.Int64, strict=False).cast(pl.String)
        cells = as_text.zip_with(whole & small, cells.cast(pl.String))
    return cells.cast(pl.String).fill_null("")


def numbers_of(frame: Frame, name: str) -> npt.NDArray[np.float64]:
    """A column of numbers [N], NaN where a cell is missing.

    Raises:
        MarginsError: the column holds no numbers, or an infinite one.
    """
    import polars as pl

    cells = column_of(frame, name)
    if cells.null_count() == len(cells):
        cells = cells.cast(pl.Float64)  # cells none of which is filled show no type
    if not (cells.dtype.is_numeric() or cells.dtype == pl.Boolean):
        raise _wrong_type(name, "numbers", cells)
    values = cells.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise MarginsError(
            f"column {name!r}",
            expected="finite numbers",
            received=f"{values[infinite[0]]} in {rows_in_words(infinite)}",
            fix="correct these cells or leave them empty",
        )
    return values


def vectors_of(frame: Frame, name: str) -> Tensor:
    """A column of embeddings [N, d] as float32.

    Raises:
        MarginsError: cells are missing, of differing lengths, or hold numbers that are not finite.
    """
    with extra("tool"):
        import polars as pl
    cells = column_of(frame, name)
    if isinstance(cells.dtype, pl.List) and cells.dtype.inner.is_numeric():  # type: ignore[union-attr]
        lengths = cells.list.len().drop_nulls().unique().to_list()
        if len(lengths) != 1:
            raise MarginsError(
                f"column {name!r}",
                expected="vectors of one length",
                received=f"lengths {sorted(lengths)[:5]}",
            )
        cells = cells.cast(pl.Array(pl.Float32, lengths[0]))
    if not isinstance(cells.dtype, pl.Array) or len(cells.dtype.shape) != 1:
        raise _wrong_type(name, "vectors", cells)
    missing = np.flatnonzero(cells.is_null().to_numpy())
    if not len(missing):
        values = torch.from_numpy(np.array(cells.to_numpy(), dtype=np.float32))
        values = values.reshape(len(cells), cells.dtype.shape[0])
        missing = np.flatnonzero(~torch.isfinite(values).all(1).numpy())
        if not len(missing):
            return values
    raise MarginsError(
        f"column {name!r}",
        expected="a vector of finite numbers in every row",
        received=f"a missing or not finite one in {rows_in_words(missing)}",
        fix="compute these vectors again or drop the rows",
    )


def check_same_length(name: str, received: int, trained: int) -> None:
    """Refuses vectors of another length than those of training."""
    if received != trained:
        raise MarginsError(
            f"column {name!r}",
            expected=f"vectors of length {trained}, as in training",
            received=f"length {received}",
            fix="compute them with the model that made the training vectors",
        )


def rows_in_words(places: npt.NDArray[np.int64] | Sequence[int]) -> str:
    """Rows as users count them, from 1, at most five.

    Example:
        >>> rows_in_words([0, 4])
        'rows 1, 5'
    """
    shown = ", ".join(str(int(p) + 1) for p in places[:5])
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return f"{'row' if len(places) == 1 else 'rows'} {shown}{more}"


def _wrong_type(name: str, expected: str, cells: pl.Series) -> MarginsError:
    return MarginsError(
        f"column {name!r}",
        expected=expected,
        received=f"cells of type {cells.dtype}",
        fix="give the column another kind, or convert it",
    )
