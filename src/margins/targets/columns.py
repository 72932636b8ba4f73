"""A storage that shows some columns of other targets, as a rank does that holds some of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.errors import MarginsError
from margins.targets.storage import Positives, Storage, UnknownEntries

if TYPE_CHECKING:
    from margins.targets.transforming import TransformedTargets


@dataclass(frozen=True, eq=False)
class Columns(Storage):
    """Columns start to stop of `whole`, its layers included. What depends on a whole row stays as it was.

    So the share that smoothing puts on every entry is that of the whole row, and the known rows are those
    of `whole`. Nothing is copied.
    """

    whole: TransformedTargets
    start: int
    stop: int

    @property
    def has_positives(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.whole.storage.has_positives

    @property
    def is_sparse(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.whole.is_sparse

    @property
    def num_anchors(self) -> int:
        return self.whole.num_anchors

    @property
    def num_candidates(self) -> int:
        return self.stop - self.start

    @property
    def device(self) -> torch.device:
        return self.whole.device

    def grades(
        self, start: int, stop: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "anchors block"]:
        return self.whole.grades(self.start + start, self.start + stop, dtype)

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.whole.grades_at(rows, columns + self.start)

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        return self.whole.positive(self.start + start, self.start + stop)

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return self.whole.positive_at(rows, columns + self.start)

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        return self.whole.known(self.start + start, self.start + stop)

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        return self.whole.known_at(rows, columns + self.start)

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        return self.whole.known_rows()

    def weight(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        return self.whole.weight_of(self.start + start, self.start + stop)

    def weight_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        return self.whole.weight_at(rows, columns + self.start)

    def margin(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        return self.whole.margin_of(self.start + start, self.start + stop)

    def margin_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        return self.whole.margin_at(rows, columns + self.start)

    def positives(self) -> Positives:
        if not self.is_sparse:
            return super().positives()
        return self._inside(self.whole.positives())

    def few_positives(self) -> Positives | None:
        listed = self.whole.few_positives()
        return None if listed is None else self._inside(listed)

    def _has(self, columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return (columns >= self.start) & (columns < self.stop)

    def _inside(self, listed: Positives) -> Positives:
        inside = self._has(listed.columns)
        rows, columns, values = (part[inside] for part in listed)
        return Positives(rows, columns - self.start, values)

    def unknown_entries(self) -> UnknownEntries | None:
        listed = self.whole.unknown_entries()
        if listed is None:
            return None
        inside = self._has(listed.columns)
        return UnknownEntries(listed.rows[inside], listed.columns[inside] - self.start)

    def between(self, start: int, stop: int) -> Columns:
        return Columns(self.whole.between(start, stop), self.start, self.stop)

    def take(self, rows: Int[Tensor, " taken"]) -> Columns:
        return Columns(self.whole.take(rows), self.start, self.stop)

    @classmethod
    def cat(cls, parts: Sequence[Any]) -> Columns:
        first = parts[0]
        if any((p.start, p.stop) != (first.start, first.stop) for p in parts):
            raise MarginsError("parts", expected="the same columns in every part", received="several")
        return cls(type(first.whole).cat([p.whole for p in parts]), first.start, first.stop)
