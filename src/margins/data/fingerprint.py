"""A sha256 of what a table holds, the same whatever file it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

_ROWS = 65536
_EXACT = 2**53  # whole numbers up to this size are floats without loss


def fingerprint_of(table: pl.DataFrame, *, folder: Path | None = None, images: Sequence[str] = ()) -> str:
    """The fingerprint of names, types and cells.

    Canonical: whole numbers count the same as integers and as floats, an empty text the same as none, dates
    and booleans as their text, as files without types write them. Columns in another order are another
    table; so are rows.

    Args:
        table: in the house's types.
        folder: where paths of images start.
        images: columns that hold paths of images; the bytes of the files count too, where they are there.

    Example:
        >>> import polars as pl
        >>> a = fingerprint_of(pl.DataFrame({"x": [1, 2], "y": ["", "b"]}))
        >>> a == fingerprint_of(pl.DataFrame({"x": [1.0, 2.0], "y": [None, "b"]}))
        True
    """
    digest = hashlib.sha256(f"rows {table.height}".encode())
    for name in table.columns:
        column = hashlib.sha256(f"column {len(name)} {name}".encode())
        _add(column, table[name])
        if name in images and folder is not None:
            _add_files(column, folder, table[name])
        digest.update(column.digest())
    return digest.hexdigest()


def _add(digest: Any, column: pl.Series) -> None:
    import polars as pl

    dtype = column.dtype
    if dtype.is_numeric() and not isinstance(dtype, (pl.Array, pl.List)):
        _add_numbers(digest, column)
    elif isinstance(dtype, pl.List):
        lengths = column.list.len().cast(pl.Int64).fill_null(-1)
        digest.update(b"list" + lengths.to_numpy().tobytes())
        _add(digest, column.drop_nulls().explode(empty_as_null=False))
    elif isinstance(dtype, pl.Array):
        cells = np.ascontiguousarray(column.to_numpy())
        digest.update(f"array {list(cells.shape)} {cells.dtype}".encode())
        digest.update((cells + np.float32(0) if cells.dtype == np.float32 else cells).data)
    else:
        _add_texts(digest, column.cast(pl.String).fill_null(""))


def _add_numbers(digest: Any, column: pl.Series) -> None:
    import polars as pl

    valid = column.is_not_null().to_numpy()
    if column.dtype == pl.Int64 and _is_large(column):
        digest.update(b"integer" + np.packbits(valid).tobytes())
        digest.update(np.ascontiguousarray(column.fill_null(0).to_numpy()).data)
        return
    numbers = column.cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0  # -0.0 becomes 0.0
    numbers[np.isnan(numbers)] = np.nan  # one bit pattern for all
    digest.update(b"number" + np.packbits(valid).tobytes())
    digest.update(numbers.data)


def _is_large(column: pl.Series) -> bool:
    filled = column.drop_nulls().to_numpy()
    return bool(len(filled)) and bool(filled.max() > _EXACT or filled.min() < -_EXACT)


def _add_texts(digest: Any, texts: pl.Series) -> None:
    digest.update(b"text")
    digest.update(np.ascontiguousarray(texts.str.len_bytes().to_numpy(), dtype=np.uint32).data)
    for start in range(0, len(texts), _ROWS):
        digest.update(texts[start : start + _ROWS].str.join("").item().encode())


def _add_files(digest: Any, folder: Path, paths: pl.Series) -> None:
    for path in paths.fill_null("").to_list():
        file = folder / path
        digest.update(hashlib.sha256(file.read_bytes()).digest() if path and file.is_file() else b"missing")
