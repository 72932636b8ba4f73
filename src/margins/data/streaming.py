"""Files that do not fit into memory, as a stream of frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from margins.data.blocks import line_blocks
from margins.data.extras import extra
from margins.data.fingerprint import fingerprint_of
from margins.data.frame import Frame
from margins.data.house_types import in_house_types
from margins.data.readers import csv_cells, json_lines
from margins.data.readers.parquet import broken_parquet, check_parquet
from margins.data.readers.typed_cells import CellType, cell_type, typed
from margins.data.reading import image_paths
from margins.data.stored import decoded, suffix_of
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

_CELLS, _LINES = (".csv", ".tsv", ".tab"), (".jsonl", ".ndjson")
STREAMED = (*_CELLS, *_LINES, ".parquet")
"""Endings of files that are read piece by piece."""

Tables = Callable[[], Iterator["pl.DataFrame"]]


def stream_frames(path: str | Path, *, rows: int = 65536) -> Iterator[Frame]:
    """Reads a file piece by piece: for what does not fit into memory; otherwise take `read_frame`.

    The file is read twice, first for its types, so that every frame has the same ones: a column is numeric
    only when every filled cell of the whole file is a number.

    Args:
        path: a file that ends in .csv, .tsv, .jsonl, .ndjson (also .gz) or .parquet.
        rows: of each frame; the last may have fewer.

    Yields:
        frames in the order of the file; a fingerprint is that of its frame, notes come with the first.

    Raises:
        MarginsError: as `read_frame`, at the first piece at fault.
    """
    path = Path(path)
    if rows < 1:
        raise MarginsError("rows", expected="at least 1", received=str(rows))
    suffix = suffix_of(path)
    if suffix in _CELLS:
        tables, notes = _csv_tables(path)
    elif suffix in _LINES:
        tables, notes = _json_tables(path)
    elif suffix == ".parquet":
        tables, notes = _parquet_tables(path, rows), []
    else:
        raise MarginsError(
            path.name,
            expected="a name that ends in .csv, .tsv, .jsonl, .ndjson or .parquet",
            received=f"the ending {suffix!r}",
            fix="read it at once with read_frame",
        )
    return _frames(path, tables, notes, rows)


def _frames(path: Path, tables: Tables, notes: list[str], rows: int) -> Iterator[Frame]:
    widths = _list_widths(tables())
    schema: Any = None
    for number, table in enumerate(_in_pieces(tables(), rows)):
        fixed, more = in_house_types(_with_widths(table, widths), lists=list(widths))
        schema = fixed.schema if number == 0 else schema
        if fixed.schema != schema:
            raise MarginsError(
                path.name,
                expected=f"columns of the same types in every piece: {dict(schema)}",
                received=f"{dict(fixed.schema)} from row {number * rows + 1} on",
                fix="cast whole numbers beyond 64 bits to text",
            )
        yield Frame(
            table=fixed,
            source=path.name,
            fingerprint=fingerprint_of(fixed),
            folder=path.parent if image_paths(fixed) else None,
            notes=[*notes, *more] if number == 0 else [],
        )


def _in_pieces(tables: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows, so many at a time."""
    import polars as pl

    waiting: list[pl.DataFrame] = []
    num = 0
    for table in tables:
        waiting.append(table)
        num += table.height
        if num < rows:
            continue
        whole = pl.concat(waiting)
        for start in range(0, num - num % rows, rows):
            yield whole[start : start + rows]
        waiting, num = [whole[num - num % rows :]], num % rows
    if num:
        yield pl.concat(waiting)


def _list_widths(tables: Iterator[pl.DataFrame]) -> dict[str, int]:
    """Columns of lists of floats: their one length over the whole file, 0 where there are several."""
    import polars as pl

    widths: dict[str, int] = {}
    for table in tables:
        names = [n for n, d in table.schema.items() if isinstance(d, pl.List) and d.inner.is_float()]  # pyright: ignore[reportAttributeAccessIssue]
        if not names:
            return {}
        for name in names:
            lengths = table[name].list.len()
            width = int(lengths.max() or 0)  # pyright: ignore[reportArgumentType]
            is_fixed = width > 1 and lengths.min() == width and not lengths.null_count()
            widths[name] = width if is_fixed and widths.get(name, width) == width else 0
    return widths


def _with_widths(table: pl.DataFrame, widths: dict[str, int]) -> pl.DataFrame:
    import polars as pl

    return table.with_columns(
        pl.col(name).cast(pl.Array(pl.Float32, width)) for name, width in widths.items() if width
    )


def _csv_tables(path: Path) -> tuple[Tables, list[str]]:
    header: list[str] = []
    notes: list[str] = []
    separator = ","
    kinds: dict[str, CellType | None] = {}
    num_rows = 0
    for line, block in line_blocks(path, quoted=True):
        if not header:
            first = decoded(path, block).lstrip("\r\n")
            separator, notes = csv_cells.separator_of(path, first.split("\n", 1)[0])
            header, more = csv_cells.column_names(path, csv_cells.header_cells(path, first, separator))
            notes += more
        cells = _csv_block(path, block, header, separator, line)
        num_rows += cells.height
        kinds = {name: _wider(kinds.get(name), cell_type(cells[name])) for name in header}
    if not num_rows:
        received = f"only the header {', '.join(header)}" if header else "an empty file"
        raise MarginsError(path.name, expected="a header line and rows", received=received)

    def tables() -> Iterator[pl.DataFrame]:
        for line, block in line_blocks(path, quoted=True):
            cells = _csv_block(path, block, header, separator, line)
            yield cells.with_columns([typed(cells[name], kinds[name]) for name in header])

    return tables, notes


def _csv_block(path: Path, block: bytes, header: list[str], separator: str, line: int) -> pl.DataFrame:
    is_first = line == 0
    whole = decoded(path, block, line=line)
    text = whole.lstrip("\r\n")
    line += whole.count("\n", 0, len(whole) - len(text))
    if not is_first:  # the header stands before the first block only
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, lineterminator="\n").writerow(header)
        text, line = buffer.getvalue() + text, line - 1
    return csv_cells.filled_rows(csv_cells.parsed(path, text, header, separator, line=line))


def _wider(a: CellType | None, b: CellType | None) -> CellType | None:
    """The type that has room for both."""
    order: list[CellType | None] = [None, "integer", "float", "text"]
    return max(a, b, key=order.index)


def _json_tables(path: Path) -> tuple[Tables, list[str]]:
    with extra("tool"):
        import polars as pl
    seen: list[pl.DataFrame] = []
    for line, block in line_blocks(path, quoted=False):
        decoded(path, block, line=line)
        if block.strip():
            seen.append(json_lines.parsed(path, block, line=line).clear())
            seen = [_united(path, seen)]
    if not seen or not seen[0].width:
        raise MarginsError(path.name, expected="JSON objects, one a line", received="an empty file")
    schema: Any = pl.Schema(seen[0].schema)

    def tables() -> Iterator[pl.DataFrame]:
        for line, block in line_blocks(path, quoted=False):
            if block.strip():
                yield json_lines.parsed(path, block, line=line, schema=schema)

    return tables, []


def _united(path: Path, tables: list[pl.DataFrame]) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.concat(tables, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise MarginsError(
            path.name,
            expected="values of one type under each name",
            received=f"values that do not fit together ({reason})",
            fix="write all of them as numbers, as text or as lists",
        ) from error


def _parquet_tables(path: Path, rows: int) -> Tables:
    with extra("tool"):
        import polars as pl
    check_parquet(path)
    try:
        num_rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise broken_parquet(path, error) from error
    if not num_rows:
        raise MarginsError(path.name, expected="rows", received="a table without any")

    def tables() -> Iterator[pl.DataFrame]:
        try:
            yield from pl.scan_parquet(path).collect_batches(chunk_size=rows, maintain_order=True, lazy=True)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise broken_parquet(path, error) from error

    return tables
