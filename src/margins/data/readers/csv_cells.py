"""CSV: cells separated by commas, tabs or semicolons, typed by all of their column."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from margins.data.extras import extra
from margins.data.readers.raw import Raw
from margins.data.readers.typed_cells import CellType, almost_numeric, cell_type, typed
from margins.data.stored import decoded, stored_bytes, suffix_of, unpacked
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

_NAMES = {"\t": "tabs", ";": "semicolons"}


def read_csv(path: Path) -> Raw:
    """A whole CSV file: UTF-8 with or without byte order mark, a header line, plain or gzipped.

    A file named .tsv has tabs. Otherwise commas separate; a header without any but with tabs or semicolons
    is read by these, and a note says so.

    Raises:
        MarginsError: the file is missing, a folder, broken, not UTF-8, empty or ragged, or a name stands
            twice in its header.
    """
    whole = decoded(path, unpacked(path, stored_bytes(path, expected="a CSV file")))
    text = whole.lstrip("\r\n")
    line = whole.count("\n", 0, len(whole) - len(text))
    if not text.strip():
        raise MarginsError(path.name, expected="a header line and rows", received="an empty file")
    separator, notes = separator_of(path, text.split("\n", 1)[0])
    header, more = column_names(path, header_cells(path, text, separator))
    cells = parsed(path, text, header, separator, line=line)
    rows = filled_rows(cells)
    if not rows.height:
        raise MarginsError(
            path.name, expected="rows below the header line", received=f"only the header {', '.join(header)}"
        )
    if rows.height < cells.height:
        notes.append(f"{cells.height - rows.height} blank rows were left out.")
    kinds: dict[str, CellType | None] = {name: cell_type(rows[name]) for name in header}
    notes += more + [n for n in (almost_numeric(rows[c]) for c, k in kinds.items() if k == "text") if n]
    return Raw(rows.with_columns([typed(rows[name], kind) for name, kind in kinds.items()]), notes=notes)


def separator_of(path: Path, first_line: str) -> tuple[str, list[str]]:
    """What separates the cells, with a note where the name of the file does not tell it."""
    if suffix_of(path) in (".tsv", ".tab"):
        return "\t", []
    for other, name in _NAMES.items():
        if "," not in first_line and other in first_line:
            return other, [f"The cells are separated by {name}, as the header line shows."]
    return ",", []


def header_cells(path: Path, text: str, separator: str) -> list[str]:
    """The cells of the first row.

    Raises:
        MarginsError: it does not parse: line ends of old Macintoshes, or a name longer than 131072 letters.
    """
    try:
        return next(csv.reader(io.StringIO(text), delimiter=separator), [])
    except csv.Error as error:
        raise MarginsError(
            path.name,
            expected="a header line with names of columns",
            received=f"one that does not parse ({str(error).split(' - ')[0]})",
            fix="save the file with the line ends of Unix or Windows, and with short names",
        ) from None


def column_names(path: Path, header: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the columns, each once; one without a name (an index) gets its number, with a note."""
    names = [name or f"column {place}" for place, name in enumerate(header, 1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise MarginsError(
            path.name,
            expected="column names that occur once",
            received=f"{twice!r} {names.count(twice)} times",
            fix="rename the columns in the header line",
        )
    unnamed = [name for name, given in zip(names, header, strict=True) if not given]
    return names, [f"A column without a name is called {name!r}." for name in unnamed]


def parsed(path: Path, text: str, header: list[str], separator: str, *, line: int = 0) -> pl.DataFrame:
    """All cells as text; `line` is the number of lines in the file before this text."""
    with extra("tool"):
        import polars as pl
    try:
        rows = pl.read_csv(
            text.encode(),
            infer_schema=False,
            separator=separator,
            new_columns=header,
            truncate_ragged_lines=False,
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise ragged(path, text, header, separator, line=line, reason=reason) from error
    # Missing cells at the end of a row come out as empty ones.
    if len(header) > 1 and rows[header[-1]].null_count():
        short = _first_ragged(text, len(header), separator)
        if short is not None:
            raise ragged(path, text, header, separator, line=line, reason="")
    return rows


def ragged(
    path: Path, text: str, header: list[str], separator: str, *, line: int, reason: str
) -> MarginsError:
    """The error for rows that do not parse, with the first line at fault where it can be found."""
    found = _first_ragged(text, len(header), separator)
    received = f"{found[1]} in line {line + found[0]}" if found else f"a file that does not parse ({reason})"
    return MarginsError(
        path.name,
        expected=f"as many cells in each row as in the header ({len(header)})",
        received=received,
        fix="quote cells that hold separators, quotes or line breaks",
    )


def _first_ragged(text: str, num_cells: int, separator: str) -> tuple[int, int] | None:
    """Line and number of cells of the first row with too few or too many; blank lines are no rows."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        rows = csv.reader(io.StringIO(text), delimiter=separator)
        return next(((rows.line_num, len(r)) for r in rows if r and len(r) != num_cells), None)
    except csv.Error:
        return None
    finally:
        csv.field_size_limit(limit)


def filled_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Without blank rows: a blank line, or separators alone as spreadsheets leave them, is no row."""
    import polars as pl

    return rows.filter(~pl.all_horizontal(pl.all().is_null()))
