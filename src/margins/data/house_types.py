"""The few types that a frame has, whatever types its source had."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl


def in_house_types(table: pl.DataFrame, *, lists: Collection[str] = ()) -> tuple[pl.DataFrame, list[str]]:
    """Integers as Int64, floats as Float64, text as String, embeddings as Array(Float32, d); and notes.

    Records become a column for each of their fields ("a.b"). Lists of floats of one length in every row are
    embeddings. Dates and booleans stay what they are.

    Args:
        table: the cells as the source holds them.
        lists: columns whose lists of floats stay lists, whatever their lengths.

    Raises:
        MarginsError: a type that has no place in a frame.
    """
    import polars as pl

    notes: list[str] = []
    table = _without_records(table, notes)
    columns = [_in_house_type(table[name], notes, lists) for name in table.columns]
    return pl.DataFrame(columns), notes


def _without_records(table: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    import polars as pl

    while True:
        record = next((c for c in table.columns if isinstance(table.schema[c], pl.Struct)), None)
        if record is None:
            return table
        fields = table[record].struct.unnest()
        renamed = fields.rename({name: f"{record}.{name}" for name in fields.columns})
        notes.append(f"Column {record!r} holds records; it became {', '.join(renamed.columns)}.")
        place = table.columns.index(record)
        parts = (table.columns[:place], table.columns[place + 1 :])
        clash = set(renamed.columns) & set(table.columns)
        if clash:
            raise MarginsError(
                f"column {record!r}",
                expected="fields whose names are free",
                received=f"{sorted(clash)[0]!r}, which is a column too",
                fix="rename one of them",
            )
        table = pl.concat([table.select(parts[0]), renamed, table.select(parts[1])], how="horizontal")


def _in_house_type(column: pl.Series, notes: list[str], lists: Collection[str]) -> pl.Series:
    import polars as pl

    dtype = column.dtype
    if dtype == pl.Null or dtype == pl.List(pl.Null):
        notes.append(f"Column {column.name!r} is empty.")
        return column.cast(pl.List(pl.String) if dtype == pl.List(pl.Null) else pl.String)
    if dtype.is_integer():
        return _integers(column, notes)
    if dtype.is_float() or dtype.is_decimal():
        return column.cast(pl.Float64)
    if dtype == pl.String or dtype == pl.Boolean or (dtype.is_temporal() and dtype != pl.Duration):
        return column
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    if isinstance(dtype, pl.Array):
        return _array(column)
    if isinstance(dtype, pl.List):
        return _list(column, notes, lists)
    raise MarginsError(
        f"column {column.name!r}",
        expected="numbers, text, booleans, dates, or lists or arrays of these",
        received=str(dtype),
        fix="leave the column out, or turn it into one of these",
    )


def _integers(column: pl.Series, notes: list[str]) -> pl.Series:
    import polars as pl

    wide = column.cast(pl.Int64, strict=False)
    if wide.null_count() == column.null_count():
        return wide
    notes.append(f"Column {column.name!r} holds whole numbers beyond 64 bits; they are read as text.")
    return column.cast(pl.String)


def _array(column: pl.Series) -> pl.Series:
    import polars as pl

    dtype: Any = column.dtype
    inner, shape = _innermost(dtype), tuple(dtype.shape)
    if len(shape) == 1 and inner.is_numeric():
        return _embeddings(column.cast(pl.Array(pl.Float32, shape[0])))
    if len(shape) in (2, 3) and inner == pl.UInt8:
        return column
    raise MarginsError(
        f"column {column.name!r}",
        expected="arrays [d] of numbers (embeddings) or [h, w] or [h, w, c] of UInt8 (images)",
        received=str(dtype),
        fix="cast images to UInt8 (0 to 255)",
    )


def _innermost(dtype: Any) -> Any:
    import polars as pl

    return _innermost(dtype.inner) if isinstance(dtype, (pl.Array, pl.List)) else dtype


def _embeddings(column: pl.Series) -> pl.Series:
    """Refuses what is missing or not finite: an embedding has no place for it."""
    import numpy as np

    from margins.data.row_names import named_rows, true_rows

    if not column.dtype.shape[0]:  # type: ignore[attr-defined]
        raise MarginsError(
            f"embeddings {column.name!r}", expected="[N, d], d at least 1", received=f"[{len(column)}, 0]"
        )
    missing = true_rows(column.is_null())
    wrong = missing if len(missing) else _not_finite(column)
    if len(wrong):
        raise MarginsError(
            f"embeddings {column.name!r}",
            expected="finite numbers in every row",
            received=f"{'none' if len(missing) else 'NaN or infinity'} in {named_rows(np.asarray(wrong))}",
            fix="make these embeddings again, or drop the rows",
        )
    return column


def _not_finite(column: pl.Series) -> Any:
    import numpy as np

    return np.flatnonzero(~np.isfinite(column.to_numpy()).reshape(len(column), -1).all(1))


def _list(column: pl.Series, notes: list[str], lists: Collection[str]) -> pl.Series:
    import polars as pl

    dtype: Any = column.dtype
    inner = dtype.inner
    if inner.is_float() or inner.is_decimal():
        lengths = column.list.len()
        width = int(lengths.max() or 0)  # pyright: ignore[reportArgumentType]
        is_fixed = lengths.min() == width and not column.null_count() and column.name not in lists
        if width > 1 and is_fixed:
            notes.append(f"Column {column.name!r} holds {width} floats in every row: embeddings.")
            return _embeddings(column.cast(pl.Array(pl.Float32, width)))
        return column.cast(pl.List(pl.Float64))
    if inner.is_integer():
        return column.cast(pl.List(pl.Int64))
    if inner == pl.String or inner == pl.Boolean or isinstance(inner, (pl.Categorical, pl.Enum)):
        return column.cast(pl.List(pl.String))
    raise MarginsError(
        f"column {column.name!r}",
        expected="lists of numbers or text",
        received=str(dtype),
        fix="leave the column out, or make images and embeddings arrays of one shape",
    )
