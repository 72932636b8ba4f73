"""From the cells of a target column to targets, as plain data that is kept with the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from margins.data.columns import TargetKind
from margins.data.nearest import suggestion
from margins.data.row_names import named_rows, true_rows
from margins.errors import MarginsError
from margins.targets import Targets

if TYPE_CHECKING:
    import polars as pl


class TargetCoding(ABC):
    """What stands in the cells of a target column, numbered; the same for training and for use.

    Attributes:
        kind: what the cells mean.
        notes: what was odd but usable when it was fitted; not kept with the model.
    """

    kind: ClassVar[TargetKind]
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The name of each output."""

    @property
    def num_outputs(self) -> int:
        """C, the number of candidates of the targets."""
        return len(self.names)

    @abstractmethod
    def targets(self, cells: pl.Series) -> Targets:
        """The targets of these rows.

        Raises:
            MarginsError: a cell that the coding does not know, with its row.
        """

    @abstractmethod
    def to_data(self) -> dict[str, Any]:
        """Its state as plain data that JSON can hold; `kind` says which class reads it."""

    @classmethod
    @abstractmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The coding whose state this is."""


def as_names(cells: pl.Series) -> pl.Series:
    """Cells as text: whole numbers without a point, booleans as "true" and "false".

    Example:
        >>> import polars as pl
        >>> as_names(pl.Series([1.0, 2.0])).to_list(), as_names(pl.Series([True])).to_list()
        (['1', '2'], ['true'])
    """
    import polars as pl

    if cells.dtype == pl.Float64 and (cells.is_finite() & (cells == cells.round())).all():
        return cells.cast(pl.Int64).cast(pl.String)
    if isinstance(cells.dtype, (pl.List, pl.Array)):
        raise MarginsError(
            f"target {cells.name!r}",
            expected="one class a row",
            received="lists",
            fix="say target_kind='label_set'",
        )
    return cells.cast(pl.String)


def refuse_empty(texts: pl.Series, expected: str = "a class in every row") -> None:
    """Refuses nulls and blank texts, with their rows."""
    missing = true_rows(texts.is_null() | (texts.str.strip_chars() == ""))
    if len(missing):
        raise MarginsError(
            f"target {texts.name!r}",
            expected=expected,
            received=f"an empty cell in {named_rows(missing)}",
            fix="label or drop these rows (row 1 is the first)",
        )


def ordered_names(names: pl.Series) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Different names and their counts: the most frequent first, equal counts by name."""
    counted = names.rename("name").value_counts(name="count")
    counted = counted.sort(["count", "name"], descending=[True, False])
    return tuple(counted["name"].to_list()), tuple(counted["count"].to_list())


def numbers_of(
    texts: pl.Series,
    names: tuple[str, ...],
    *,
    argument: str,
    what: str,
    rows: npt.NDArray[np.int64] | None = None,
) -> pl.Series:
    """The place of each text among the names; `rows` are the rows that the texts stand in, if not all once.

    Raises:
        MarginsError: a text that is none of them, with its row and the nearest name.
    """
    import polars as pl

    places = pl.Series(range(len(names)), dtype=pl.Int64)
    numbers = texts.replace_strict(list(names), places, default=None, return_dtype=pl.Int64)
    unknown = true_rows(numbers.is_null())
    if len(unknown):
        name = str(texts[int(unknown[0])])
        where = unknown if rows is None else np.unique(rows[unknown])
        fix = suggestion(name, names)
        raise MarginsError(argument, expected=what, received=f"{name!r} in {named_rows(where)}", fix=fix)
    return numbers


def look_alikes(names: tuple[str, ...]) -> list[str]:
    """A note on names that differ only in case or spaces."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(" ".join(name.lower().split()), name)
        if other != name:
            return [f"The names {other!r} and {name!r} differ only in case or spaces; are they one?"]
    return []


def single_rows(names: tuple[str, ...], counts: tuple[int, ...]) -> list[str]:
    """A note on classes with one row: none is left to measure them when it trains."""
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if not single:
        return []
    listed = ", ".join(repr(n) for n in single[:5]) + (", ..." if len(single) > 5 else "")
    return [f"{len(single)} of {len(names)} classes have a single row, which trains: {listed}."]


def as_numpy(numbers: pl.Series) -> npt.NDArray[np.int64]:
    """Numbers in memory of their own."""
    return np.array(numbers.to_numpy(), dtype=np.int64)
