"""Parquet files."""

from __future__ import annotations

from pathlib import Path

from margins.data.extras import extra
from margins.data.readers.raw import Raw
from margins.data.stored import stored_bytes
from margins.errors import MarginsError

_MAGIC = b"PAR1"


def read_parquet(path: Path) -> Raw:
    """A whole Parquet file.

    Raises:
        MarginsError: the file is missing, a folder, empty, cut short or no Parquet file.
    """
    with extra("tool"):
        import polars as pl
    check_parquet(path)
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
        raise broken_parquet(path, error) from error
    if not table.height:
        raise MarginsError(path.name, expected="rows", received="a table without any")
    return Raw(table)


def check_parquet(path: Path) -> None:
    """Refuses what cannot be a whole Parquet file, by its first and last bytes."""
    if path.is_dir() or not path.exists():
        stored_bytes(path, expected="a Parquet file")
    with path.open("rb") as file:
        first = file.read(4)
        file.seek(max(path.stat().st_size - 4, 0))
        last = file.read(4)
    if not first:
        raise MarginsError(path.name, expected="a Parquet file", received="an empty file")
    if first != _MAGIC or last != _MAGIC:
        received = "other content" if first != _MAGIC else "a file cut short"
        raise MarginsError(path.name, expected="a whole Parquet file", received=received, fix="copy it again")


def broken_parquet(path: Path, error: BaseException) -> MarginsError:
    """The error for a file whose ends are right and whose inside is not."""
    reason = str(error).strip().splitlines()[0]
    return MarginsError(
        path.name, expected="a whole Parquet file", received=f"a broken one ({reason})", fix="copy it again"
    )
