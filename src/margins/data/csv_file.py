"""A CSV file from disk as cells of text, with every way in which that can fail told plainly."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from margins.data.extras import extra
from margins.data.stored import decoded, stored_bytes, unpacked
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class CsvFile:
    """A file's cells, all as text, and the names in its header line as they stand there."""

    path: Path
    sha256: str  # of the file as it lies on disk
    header: list[str]
    frame: pl.DataFrame
    num_blank: int  # rows without any cell filled, left out of `frame`


def read_csv_file(path: Path) -> CsvFile:
    """Reads a whole CSV file: UTF-8 with or without byte order mark, commas, plain or gzipped.

    Raises:
        MarginsError: the file is missing, a folder, not to be read, broken, not UTF-8, empty or ragged.
    """
    stored = stored_bytes(path, expected="a CSV file")
    text = decoded(path, unpacked(path, stored)).lstrip("\r\n")
    if not text.strip():
        raise MarginsError(path.name, expected="a header line and rows", received="an empty file")
    header = next(csv.reader(io.StringIO(text)))
    rows = _parsed(path, text)
    frame = _without_blank_rows(rows)
    if not frame.height:
        raise MarginsError(
            path.name, expected="rows below the header line", received=f"only the header {', '.join(header)}"
        )
    return CsvFile(path, hashlib.sha256(stored).hexdigest(), header, frame, rows.height - frame.height)


def _parsed(path: Path, text: str) -> pl.DataFrame:
    with extra("tool"):
        import polars as pl
    try:
        return pl.read_csv(text.encode(), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise MarginsError(
            path.name,
            expected="comma-separated cells, as many in each row as in the header",
            received=f"a file that does not parse ({reason})",
            fix="quote cells that hold commas, quotes or line breaks",
        ) from error


def _without_blank_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """A blank line, or a line of commas alone as spreadsheets leave them, is no row."""
    import polars as pl

    return rows.filter(~pl.all_horizontal(pl.all().is_null()))
