"""Codings of classes and of label sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from margins.data.coding import (
    TargetCoding,
    as_names,
    as_numpy,
    look_alikes,
    numbers_of,
    ordered_names,
    refuse_empty,
    single_rows,
)
from margins.data.columns import TargetKind
from margins.data.row_names import named_rows
from margins.errors import MarginsError
from margins.targets import Targets

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ClassCoding(TargetCoding):
    """One class a row; numbered from the most frequent, equal counts by name, or in the order that is given.

    Args:
        classes: their names.
        is_ordered: whether their numbers are an order: grades, levels, stages.
        notes: single rows and look-alikes.

    Example:
        >>> import polars as pl
        >>> coding = ClassCoding.fit(pl.Series("y", ["b", "a", "b"]))
        >>> coding.names, coding.targets(pl.Series("y", ["a"])).positives().columns
        (('b', 'a'), tensor([1]))
    """

    kind: ClassVar[TargetKind] = "label"

    classes: tuple[str, ...]
    is_ordered: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def fit(cls, cells: pl.Series) -> Self:
        """The classes in these cells.

        Raises:
            MarginsError: an empty cell, or fewer than two classes.
        """
        texts = as_names(cells)
        refuse_empty(texts)
        names, counts = ordered_names(texts)
        if len(names) < 2:
            received = f"{names[0]!r} in every row" if names else "no rows"
            raise MarginsError(
                f"target {cells.name!r}",
                expected="at least two classes",
                received=received,
                fix="choose the column that tells the rows apart",
            )
        return cls(names, notes=(*single_rows(names, counts), *look_alikes(names)))

    def in_order(self, order: Sequence[str]) -> ClassCoding:
        """The same classes, numbered from the lowest to the highest.

        Args:
            order: every class once.

        Raises:
            MarginsError: a class is missing, named twice, or in no row.

        Example:
            >>> import polars as pl
            >>> ClassCoding.fit(pl.Series("y", ["high", "low", "low"])).in_order(["low", "high"]).names
            ('low', 'high')
        """
        twice = [name for name in order if list(order).count(name) > 1]
        other = sorted(set(self.classes) ^ set(order))
        if twice or other:
            wrong = f"{twice[0]!r} twice" if twice else f"{other[0]!r} in one of them alone"
            raise MarginsError(
                "class_order",
                expected=f"each class of the target once: {', '.join(sorted(self.classes)[:20])}",
                received=f"{', '.join(order)}: {wrong}",
            )  # fmt: skip
        return ClassCoding(tuple(order), is_ordered=True, notes=self.notes)

    @property
    def names(self) -> tuple[str, ...]:
        return self.classes

    def targets(self, cells: pl.Series) -> Targets:
        texts = as_names(cells)
        refuse_empty(texts)
        numbers = numbers_of(texts, self.names, argument=f"target {cells.name!r}", what="a known class")
        return Targets.of_classes(torch.from_numpy(as_numpy(numbers)), self.num_outputs)

    def to_data(self) -> dict[str, Any]:
        ordered: dict[str, Any] = {"is_ordered": True} if self.is_ordered else {}
        return {"kind": self.kind, "names": list(self.names), **ordered}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        return cls(tuple(data["names"]), is_ordered=bool(data.get("is_ordered", False)))


@dataclass(frozen=True)
class LabelSetCoding(TargetCoding):
    """Several labels a row, or none: lists, or text with a separator between the labels.

    An empty cell is a row without labels. A label that stands twice in a row counts once.

    Args:
        labels: their names, the most frequent first, equal counts by name.
        separator: stands between labels in a cell of text.
        notes: single rows, look-alikes and rows without labels.

    Example:
        >>> import polars as pl
        >>> coding = LabelSetCoding.fit(pl.Series("y", ["a|b", "b", None]))
        >>> coding.targets(pl.Series("y", ["b | a", ""])).block(0, 2).grades
        tensor([[1., 1.],
                [0., 0.]])
    """

    kind: ClassVar[TargetKind] = "label_set"

    labels: tuple[str, ...]
    separator: str = "|"
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def fit(cls, cells: pl.Series, *, separator: str = "|") -> Self:
        """The labels in these cells.

        Raises:
            MarginsError: no label at all, a single one in every row, or an empty label in a list.
        """
        entries = _entries(cells, separator)
        names, counts = ordered_names(entries["label"])
        if not names or (len(names) == 1 and counts[0] == len(cells)):
            raise MarginsError(
                f"target {cells.name!r}",
                expected="labels that tell rows apart",
                received=f"{names[0]!r} in every row" if names else "no label in any row",
                fix="choose another column with target=",
            )
        num_empty = len(cells) - entries["row"].n_unique()
        empty = (f"{num_empty} of {len(cells)} rows have no label.",) if num_empty else ()
        return cls(names, separator, (*empty, *single_rows(names, counts), *look_alikes(names)))

    @property
    def names(self) -> tuple[str, ...]:
        return self.labels

    def targets(self, cells: pl.Series) -> Targets:
        entries = _entries(cells, self.separator)
        rows = as_numpy(entries["row"])
        numbers = numbers_of(
            entries["label"], self.names, argument=f"target {cells.name!r}", what="known labels", rows=rows
        )
        columns = as_numpy(numbers)
        counts = np.bincount(rows, minlength=len(cells))
        order = np.lexsort((columns, rows))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Targets.of_label_sets(
            (torch.from_numpy(offsets), torch.from_numpy(columns[order])), self.num_outputs
        )

    def to_data(self) -> dict[str, Any]:
        return {"kind": self.kind, "names": list(self.names), "separator": self.separator}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        return cls(tuple(data["names"]), data["separator"])


def _entries(cells: pl.Series, separator: str) -> pl.DataFrame:
    """Columns row and label, each label once a row; empty pieces of a text are none."""
    import polars as pl

    rows = pl.Series("row", range(len(cells)), dtype=pl.Int64)
    if isinstance(cells.dtype, pl.List):
        entries = pl.DataFrame([rows, cells.cast(pl.List(pl.String)).alias("label")])
        entries = entries.filter(pl.col("label").list.len() > 0).explode("label")
        wrong = entries.filter(pl.col("label").is_null() | (pl.col("label").str.strip_chars() == ""))
        if wrong.height:
            raise MarginsError(
                f"target {cells.name!r}",
                expected="lists of names",
                received=f"an empty label in {named_rows(as_numpy(wrong['row'].unique().sort()))}",
                fix="write an empty list for a row without labels",
            )
    else:
        if not separator:
            raise MarginsError("separator", expected="at least one character", received="''")
        texts = as_names(cells).fill_null("").str.split(separator)
        entries = pl.DataFrame([rows, texts.alias("label")]).explode("label")
        entries = entries.with_columns(pl.col("label").str.strip_chars()).filter(pl.col("label") != "")
    return entries.unique(maintain_order=True)
