"""A CSV file from disk as cells of text, with every way in which that can fail told plainly."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from margins.data.extras import extra
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

_GZIP_MAGIC = b"\x1f\x8b"


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
    stored = _stored_bytes(path)
    text = _decoded(path, _unpacked(path, stored)).lstrip("\r\n")
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


def _stored_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise MarginsError(str(path), expected="a CSV file", received="a folder", fix="name a file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MarginsError(
            str(path), expected="a CSV file", received="no such file", fix="check the path"
        ) from None
    except OSError as error:
        raise MarginsError(
            str(path), expected="a file that can be read", received=error.strerror or str(error)
        ) from error


def _unpacked(path: Path, stored: bytes) -> bytes:
    is_packed = stored.startswith(_GZIP_MAGIC)
    if path.suffix == ".gz" and stored and not is_packed:
        raise MarginsError(
            path.name,
            expected="a gzip file",
            received="other content",
            fix="take .gz off its name if it is plain",
        )
    if not is_packed:
        return stored
    try:
        return gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise MarginsError(
            path.name, expected="a whole gzip file", received=f"a broken one ({error})", fix="copy it again"
        ) from error


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MarginsError(
            path.name,
            expected="UTF-8 text",
            received=f"byte 0x{content[error.start]:02x} in line {line}",
            fix="save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')",
        ) from error


def _parsed(path: Path, text: str) -> pl.DataFrame:
    with extra("compare"):
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
