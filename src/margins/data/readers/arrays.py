"""NumPy files: .npy and .npz, never with pickled objects."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from margins.data.extras import extra
from margins.data.readers.raw import Raw
from margins.data.stored import stored_bytes
from margins.errors import MarginsError

Array = npt.NDArray[Any]


def read_arrays(path: Path) -> Raw:
    """An .npz as columns by the names of its arrays; an .npy as the column "embedding".

    One-dimensional arrays are plain columns, matrices of floats embeddings, and stacks of 8-bit images
    [N, h, w] or [N, h, w, c] images. Single numbers are left out, and a note says so.

    Raises:
        MarginsError: the file is missing or broken, holds pickled objects, arrays of unequal length or
            arrays of another shape.
    """
    arrays = stored_arrays(path)
    single = [name for name, array in arrays.items() if array.ndim == 0]
    columns = {name: array for name, array in arrays.items() if array.ndim}
    lengths = {name: len(array) for name, array in columns.items()}
    if not any(lengths.values()):
        raise MarginsError(path.name, expected="arrays with rows", received="none")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} [{length}]" for name, length in list(lengths.items())[:10])
        raise MarginsError(
            path.name,
            expected="arrays of as many rows each",
            received=listed,
            fix="save the rows of one set, as dense arrays, in one file",
        )
    notes = [f"Single numbers are no columns and were left out: {', '.join(single)}."] if single else []
    return Raw(as_table(columns, path.name), notes=notes)


def stored_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz by name, or that of an .npy as "embedding"."""
    if path.is_dir() or not path.exists():
        stored_bytes(path, expected="a NumPy file")
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".npy":
                return {"embedding": np.lib.format.read_array(file, allow_pickle=False)}
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if strange or not arrays:
            raise ValueError(f"{strange[0]} in it is no array" if strange else "it holds no array")
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, KeyError) as error:
        raise _unreadable(path, error) from error
    return arrays


def _unreadable(path: Path, error: Exception) -> MarginsError:
    if "allow_pickle" in str(error) or "Object arrays" in str(error):
        return MarginsError(
            path.name,
            expected="arrays of numbers or text",
            received="pickled objects, which could run code",
            fix="save numbers and text as arrays of their own type, one array a column",
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return MarginsError(
        path.name, expected="a whole NumPy file", received=f"a broken one ({reason})", fix="save it again"
    )


def as_table(columns: Mapping[str, Array], source: str) -> Any:
    """Arrays of as many rows each as one table."""
    with extra("tool"):
        import polars as pl
    return pl.DataFrame([_column(name, array, source) for name, array in columns.items()])


def _column(name: str, array: Array, source: str) -> Any:
    import polars as pl

    is_image = array.ndim in (3, 4) and array.dtype == np.uint8
    if array.ndim == 2 and array.dtype.kind == "f":
        return pl.Series(name, np.ascontiguousarray(array, dtype=np.float32))
    if is_image and (array.ndim == 3 or array.shape[3] in (1, 3, 4)):
        return pl.Series(name, np.ascontiguousarray(array))
    if array.ndim == 1 and array.dtype.kind in "iufbUM":
        native = array.astype(array.dtype.newbyteorder("="))
        return pl.Series(name, native.tolist() if array.dtype.kind == "U" else native)
    raise MarginsError(
        f"{source}: array {name!r}",
        expected="[N] numbers or text, [N, d] floats (embeddings), [N, h, w] or [N, h, w, c] uint8 (images)",
        received=f"{list(array.shape)} {array.dtype}",
        fix="cast a matrix to floats, or leave the array out of the file",
    )
