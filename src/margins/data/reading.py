"""Rows from wherever they are, as a frame."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from margins.data.fingerprint import fingerprint_of
from margins.data.frame import Frame
from margins.data.house_types import in_house_types
from margins.data.readers.arrays import read_arrays, stored_arrays
from margins.data.readers.csv_cells import read_csv
from margins.data.readers.idx import read_idx
from margins.data.readers.image_folder import IMAGE_SUFFIXES, read_image_folder
from margins.data.readers.json_lines import read_json_lines
from margins.data.readers.memory import read_memory
from margins.data.readers.parquet import read_parquet
from margins.data.readers.raw import Raw
from margins.data.stored import stored_bytes, suffix_of
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

_READERS: dict[str, Callable[[Path], Raw]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab"), read_csv),
    ".parquet": read_parquet,
    **dict.fromkeys((".jsonl", ".ndjson"), read_json_lines),
    **dict.fromkeys((".npz", ".npy"), read_arrays),
}


def read_frame(source: Any, *, embeddings: str | Path | None = None) -> Frame:
    """Reads rows with named columns from a file, a folder of images or a data frame.

    For anything that fits into memory; for more, `stream_frames`.

    Args:
        source: a path that ends in .csv, .tsv, .parquet, .jsonl, .ndjson (all but Parquet also with .gz
            behind), .npz, .npy or in idx form (train-images-idx3-ubyte.gz); a folder with a sub-folder of
            images for each label; or a data frame in memory (polars, pandas, Arrow, datasets, dict of
            lists); a `Frame` is given back as it is.
        embeddings: an .npy or .npz file with a matrix of as many rows, joined as the column "embedding".

    Returns:
        the rows, with what was odd but usable in `notes`. A CSV column is numeric only when every filled
        cell is a number; codes such as "007" stay text.

    Raises:
        MarginsError: anything that cannot be used, with where it is and how to mend it.

    Example:
        >>> frame = read_frame({"text": ["good", "bad"], "label": [1, 0]})
        >>> len(frame), frame.names
        (2, ['text', 'label'])
    """
    if isinstance(source, Frame):
        if embeddings is not None:
            raise MarginsError(
                "embeddings", expected="a file or data frame to join them to", received="a frame that is read"
            )
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        raw, name = _read_path(path), path.name
        folder = raw.folder or path.parent
    else:
        raw, name, folder = read_memory(source), "data frame", Path()
    table, notes = in_house_types(raw.table)
    if embeddings is not None:
        table = table.with_columns(_embeddings(Path(embeddings), table))
    notes = raw.notes + notes
    images = image_paths(table)
    notes += [note for column in images if (note := _missing_files(folder, table[column]))]
    return Frame(
        table=table,
        source=name,
        fingerprint=fingerprint_of(table, folder=folder, images=images),
        folder=folder if images else None,
        notes=notes,
    )


def image_paths(table: pl.DataFrame) -> list[str]:
    """Columns whose every filled cell ends as the name of an image does."""
    import polars as pl

    texts = [name for name, dtype in table.schema.items() if dtype == pl.String]
    found: list[str] = []
    for name in texts:
        filled = table[name].drop_nulls()
        # Most columns are ruled out by their first cell.
        if len(filled) and _ends_as_image(filled[:1]) and _ends_as_image(filled):
            found.append(name)
    return found


def _ends_as_image(paths: pl.Series) -> bool:
    endings = "|".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    return bool(paths.str.contains(rf"(?i)\.({endings})$").all()) and not paths.str.contains("://").any()


def _read_path(path: Path) -> Raw:
    suffix = suffix_of(path)
    if path.is_dir() and suffix not in _READERS:
        return read_image_folder(path)
    if suffix in _READERS:
        return _READERS[suffix](path)
    stem = path.name.lower().removesuffix(".gz")
    if stem.endswith(("-ubyte", ".idx")) or "-idx" in stem:
        return read_idx(path)
    stored_bytes(path, expected="a file or a folder of images")
    raise MarginsError(
        path.name,
        expected=f"a name that ends in {', '.join(_READERS)} (or .gz behind it), an idx file, or a folder",
        received=f"the ending {suffix!r}",
        fix="rename the file after its format, or read it yourself and pass a data frame",
    )


def _embeddings(path: Path, table: pl.DataFrame) -> pl.Series:
    import polars as pl

    arrays = stored_arrays(path)
    matrices = {k: a for k, a in arrays.items() if a.ndim == 2 and a.dtype.kind == "f"}
    if len(matrices) != 1:
        listed = ", ".join(f"{k} {list(a.shape)} {a.dtype}" for k, a in list(arrays.items())[:10])
        raise MarginsError(path.name, expected="one matrix of floats [N, d]", received=listed or "none")
    (matrix,) = matrices.values()
    if len(matrix) != table.height:
        raise MarginsError(
            path.name,
            expected=f"an embedding for each of the {table.height} rows",
            received=f"{len(matrix)}",
            fix="embed the same rows in the same order (blank rows of a CSV file do not count)",
        )
    if "embedding" in table.columns:
        raise MarginsError(
            "embeddings",
            expected="rows without a column 'embedding'",
            received="one that is there",
            fix="rename it",
        )
    series = pl.Series("embedding", np.ascontiguousarray(matrix, dtype=np.float32))
    return in_house_types(series.to_frame())[0]["embedding"]


def _missing_files(folder: Path, paths: pl.Series) -> str | None:
    missing = [p for p in paths.drop_nulls().to_list() if not (folder / p).is_file()]
    if not missing:
        return None
    return f"Column {paths.name!r} names {len(missing)} images that are not in {folder}, first {missing[0]}."
