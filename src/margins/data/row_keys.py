"""A number for each row that is the same for rows with the same inputs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from margins.data.columns import Columns
from margins.data.frame import Frame

if TYPE_CHECKING:
    import polars as pl

Ints = npt.NDArray[np.int64]
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15))


def row_keys(frame: Frame, columns: Columns) -> Ints:
    """[N] numbers, equal exactly where all inputs are: texts after normalising, images by their bytes."""
    import polars as pl

    keys = [_column_keys(frame, name, kind).alias(name) for name, kind in columns.inputs.items()]
    table = pl.DataFrame(keys)
    return np.array(table.select(pl.struct(pl.all()).rank("dense")).to_series().to_numpy(), dtype=np.int64)


def normalised(texts: pl.Series) -> pl.Series:
    """Small letters, one form of each sign, one space between words; null becomes empty.

    Example:
        >>> import polars as pl
        >>> normalised(pl.Series(["  So  GOOD ", None])).to_list()
        ['so good', '']
    """
    plain = texts.fill_null("").str.normalize("NFKC").str.to_lowercase()
    return plain.str.replace_all(r"\s+", " ").str.strip_chars()


def _column_keys(frame: Frame, name: str, kind: str) -> pl.Series:
    import polars as pl

    column = frame.table[name]
    if isinstance(column.dtype, pl.Array):
        return pl.Series(hashed_rows(column.to_numpy()))
    if kind in ("text", "text_pair"):
        return normalised(column)
    if kind == "image" and frame.folder is not None:
        return pl.Series([_hashed_file(frame.folder, path) for path in column.fill_null("").to_list()])
    if column.dtype == pl.Float64:
        return column + 0.0  # -0.0 becomes 0.0
    return column


def _hashed_file(folder: Path, path: str) -> str:
    file = folder / path
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else path


def hashed_rows(array: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of the bytes of each row; -0.0 counts as 0.0."""
    rows = np.ascontiguousarray(array.reshape(len(array), -1))
    if rows.dtype.kind == "f":
        rows = rows + rows.dtype.type(0)
    num_bytes = rows.shape[1] * rows.dtype.itemsize
    out = np.zeros(len(rows), dtype=np.uint64)
    step = max(1, 2**22 // max(num_bytes, 1))  # a few MB at a time
    for start in range(0, len(rows), step):
        part = rows[start : start + step].view(np.uint8).reshape(-1, num_bytes)
        words = np.zeros((len(part), -(-num_bytes // 8) * 8), dtype=np.uint8)
        words[:, :num_bytes] = part
        out[start : start + step] = _mixed(words.view(np.uint64))
    return out


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Each word with its place, stirred before they are added up, so that no two changes cancel."""
    with np.errstate(over="ignore"):
        mixed = words + (np.arange(1, words.shape[1] + 1, dtype=np.uint64) * _MIX[2])
        for shift, factor in ((30, _MIX[0]), (27, _MIX[1])):
            mixed ^= mixed >> np.uint64(shift)
            mixed *= factor
        mixed ^= mixed >> np.uint64(31)
        return mixed.sum(1, dtype=np.uint64)
