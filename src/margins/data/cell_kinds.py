"""What the cells of a column look like: measured once, for the choice of roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from margins.data.columns import InputKind
from margins.data.reading import image_paths

if TYPE_CHECKING:
    import polars as pl

Look = InputKind | Literal["id", "empty", "list", "time", "unclear"]
"""An input kind, or why the column is none by itself."""

_FEW = 50  # this many different values are few in any table
_FEW_SHARE = 0.05  # and this share of the rows
_LONGEST_NAME = 60  # characters; the names of categories are short
_SENTENCE = 0.5  # share of cells with more than one word from which a column is text
_SMALL = 20  # in fewer rows, different values in every row say nothing


@dataclass(frozen=True)
class Cells:
    """A column in numbers.

    Args:
        look: what it most likely is.
        num_filled: cells that are not null.
        num_distinct: different values among them; 0 for lists and arrays, where it is not counted.
    """

    look: Look
    num_filled: int
    num_distinct: int


def looked_at(table: pl.DataFrame, name: str) -> Cells:
    """What a column looks like, from all of its cells.

    Example:
        >>> import polars as pl
        >>> looked_at(pl.DataFrame({"size": [1.5, 2.5]}), "size").look
        'numeric'
    """
    import polars as pl

    column = table[name]
    num_filled = len(column) - column.null_count()
    if not num_filled:
        return Cells("empty", 0, 0)
    if isinstance(column.dtype, pl.List):
        return Cells("list", num_filled, 0)
    if isinstance(column.dtype, pl.Array):
        return Cells("embedding" if len(column.dtype.shape) == 1 else "image", num_filled, 0)
    num_distinct = column.drop_nulls().n_unique()
    return Cells(_look(table, column, num_filled, num_distinct), num_filled, num_distinct)


def are_few(num_distinct: int, num_rows: int) -> bool:
    """Whether different values repeat enough to be names of classes.

    Example:
        >>> are_few(50, 60), are_few(51, 100), are_few(77, 10_000)
        (True, False, True)
    """
    return num_distinct <= _FEW or num_distinct <= _FEW_SHARE * num_rows


def _look(table: pl.DataFrame, column: pl.Series, num_filled: int, num_distinct: int) -> Look:
    import polars as pl

    is_all_distinct = num_distinct == num_filled and num_filled >= _SMALL
    if column.dtype.is_temporal():
        return "time"
    if column.dtype == pl.Boolean:
        return "categorical"
    if column.dtype == pl.Int64:
        return "id" if is_all_distinct else "numeric"
    if column.dtype == pl.Float64:
        return "numeric"
    if image_paths(table.select(column.name)):
        return "image"
    return _text_look(column.drop_nulls(), num_distinct, is_all_distinct=is_all_distinct)


def _text_look(filled: pl.Series, num_distinct: int, *, is_all_distinct: bool) -> Look:
    if is_all_distinct and filled.str.contains(r"^[!-~]{1,64}$").all():
        return "id"
    repeats = num_distinct <= len(filled) / 2 or len(filled) < _SMALL
    is_short = int(filled.str.len_chars().max() or 0) <= _LONGEST_NAME  # pyright: ignore[reportArgumentType]
    share_sentences = float(filled.str.contains(r"\S\s+\S").mean() or 0)  # pyright: ignore[reportArgumentType]
    if repeats and is_short and share_sentences <= _SENTENCE and are_few(num_distinct, len(filled)):
        return "categorical"
    if repeats and is_short and len(filled) >= _SMALL and num_distinct <= max(2, _FEW_SHARE * len(filled)):
        return "categorical"
    # Scripts without spaces between words write sentences too.
    is_wide = float((filled.str.len_bytes() > filled.str.len_chars()).mean() or 0) > _SENTENCE  # pyright: ignore[reportArgumentType]
    return "text" if share_sentences > _SENTENCE or is_wide or not is_short else "unclear"
