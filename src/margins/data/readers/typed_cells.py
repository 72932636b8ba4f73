"""Columns of text to columns of numbers, where every filled cell is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from margins.data.row_names import true_rows

if TYPE_CHECKING:
    import polars as pl

CellType = Literal["integer", "float", "text"]

# A column in which more than this share of the filled cells are numbers was most likely meant as one.
_MOSTLY = 0.5
# Separators of thousands, decimal commas, currencies and per cent: what people write and no reader takes.
_MARKED = (
    r"^[+-]?(?:[$€£] ?)?(?:\d{1,3}(?:[,' \x{a0}\x{202f}]\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3})+,\d+|\d+,\d+|"
    r"\d+(?:\.\d+)?(?: ?[%$€£])|[$€£] ?\d+(?:\.\d+)?)(?: ?[%$€£])?$"
)


def cell_type(texts: pl.Series) -> CellType | None:
    """What all filled cells of a column of text are; None where none is filled.

    Codes are text: digits after a leading zero ("007"), and whole numbers beyond 64 bits. A column of "nan"
    and "inf" alone is text too: only beside numbers do these words mean one.

    Example:
        >>> import polars as pl
        >>> [cell_type(pl.Series(c)) for c in (["1", " 2"], ["1", "2.5"], ["007"], ["1", "n/a"], [""])]
        ['integer', 'float', 'text', 'text', None]
    """
    import polars as pl

    filled = texts.drop_nulls().str.strip_chars()
    filled = filled.filter(filled != "")
    if not len(filled):
        return None
    # One cell that is no number settles it; most columns of text have one among their first.
    if filled[:64].cast(pl.Float64, strict=False).null_count():
        return "text"
    floats = filled.cast(pl.Float64, strict=False)
    if floats.null_count() or filled.str.contains(r"^[+-]?0\d").any() or not floats.is_finite().any():
        return "text"
    if not filled.cast(pl.Int64, strict=False).null_count():
        return "integer"
    # Too long for an integer: as a float it would lose digits.
    return "text" if filled.str.contains(r"^[+-]?\d{19,}$").any() else "float"


def typed(texts: pl.Series, kind: CellType | None) -> pl.Series:
    """The column as this type; empty cells of a number column are null, text stays as it stands."""
    import polars as pl

    if kind in ("integer", "float"):
        dtype = pl.Int64 if kind == "integer" else pl.Float64
        return texts.str.strip_chars().replace("", None).cast(dtype)
    return texts


def almost_numeric(texts: pl.Series) -> str | None:
    """A note on a text column most of whose filled cells are numbers: the first that is none, and its row.

    Example:
        >>> import polars as pl
        >>> almost_numeric(pl.Series("size", ["1", "2", "n/a"]))
        "Column 'size' looks numeric but row 3 holds 'n/a'; it is read as text."
    """
    import polars as pl

    stripped = texts.str.strip_chars()
    is_filled = stripped.is_not_null() & (stripped != "")
    is_number = stripped.cast(pl.Float64, strict=False).is_not_null()
    is_marked = is_filled & stripped.str.contains(_MARKED)
    if int(is_marked.sum()) > _MOSTLY * int(is_filled.sum()):
        row = int(true_rows(is_marked)[0])
        return (
            f"Column {texts.name!r} is read as text: write numbers without separators or signs and with a "
            f"decimal point, not as {stripped[row]!r} in row {row + 1}."
        )
    if int(is_number.sum()) <= _MOSTLY * int(is_filled.sum()):
        return None
    odd = true_rows(is_filled & ~is_number)
    if not len(odd):
        return None
    return (
        f"Column {texts.name!r} looks numeric but row {odd[0] + 1} holds {stripped[int(odd[0])]!r}; "
        "it is read as text."
    )
