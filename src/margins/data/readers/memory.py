"""Data frames in memory: anything that speaks Arrow, and dicts of lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from margins.data.extras import extra
from margins.data.readers.raw import Raw
from margins.errors import MarginsError, describe

if TYPE_CHECKING:
    import polars as pl


def read_memory(source: Any) -> Raw:
    """A polars or pandas data frame, a Hugging Face dataset, an Arrow table, or a dict of lists or arrays.

    Raises:
        MarginsError: something else, no rows, or columns of unequal length or mixed types.
    """
    table = _table(source)
    if not table.height:
        raise MarginsError("source", expected="a data frame with rows", received="one without any")
    return Raw(table)


def _table(source: Any) -> pl.DataFrame:
    with extra("tool"):
        import polars as pl
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if isinstance(source, Mapping):
        return _of_columns(source)
    arrow = _arrow_of(source)
    if arrow is None:
        raise MarginsError(
            "source",
            expected="a path, a data frame (polars, pandas, Arrow, datasets) or a dict of lists",
            received=describe(source),
            fix="turn it into a dict of columns first",
        )
    try:
        return pl.DataFrame(arrow)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MarginsError("source", expected="columns of one type each", received=reason) from error


def _arrow_of(source: Any) -> Any:
    """What polars can take of it; a dataset that was filtered or shuffled holds its rows behind an index."""
    if hasattr(source, "with_format") and hasattr(source, "features"):
        return source.with_format("arrow")[:]
    is_frame = hasattr(source, "__arrow_c_stream__") or hasattr(source, "__dataframe__")
    return source if is_frame else None


def _of_columns(columns: Mapping[Any, Any]) -> pl.DataFrame:
    import polars as pl

    made: list[pl.Series] = []
    for name, values in columns.items():
        made.append(_series(str(name), values))
    lengths = {column.name: len(column) for column in made}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in list(lengths.items())[:10])
        raise MarginsError("source", expected="columns of one length", received=listed)
    return pl.DataFrame(made)


def _series(name: str, values: Any) -> pl.Series:
    import polars as pl

    if isinstance(values, list) and _are_numbers(values):
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    try:
        return pl.Series(name, values)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MarginsError(
            f"column {name!r}",
            expected="values of one type, None for what is missing",
            received=reason,
            fix="make them all numbers or all text",
        ) from error


def _are_numbers(values: list[Any]) -> bool:
    """Whether integers and floats stand together: one column of floats."""
    kinds = {type(value) for value in values}
    return kinds in ({int, float}, {int, float, type(None)})
