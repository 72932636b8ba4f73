"""How a `Targets` may hold what is positive for each anchor, and how strongly.

A storage knows nothing of weights, margins or smoothing: those are layers that `Targets` puts on top.
Rows are anchors, columns are candidates. `grades` are the strengths (0 = not positive).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.errors import MarginsError


class Positives(NamedTuple):
    """The positive entries, row by row: entry k says that `rows[k]` has `columns[k]` with `values[k]`."""

    rows: Int[Tensor, " positives"]
    columns: Int[Tensor, " positives"]
    values: Float[Tensor, " positives"]


class UnknownEntries(NamedTuple):
    """Entries that are not known: entry k is in `rows[k]` and `columns[k]`, rows ascending."""

    rows: Int[Tensor, " unknown"]
    columns: Int[Tensor, " unknown"]


@runtime_checkable
class Matrix(Protocol):
    """Anything that says, block by block, which entries are positive and known."""

    @property
    def num_anchors(self) -> int: ...
    @property
    def num_candidates(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def positive(self, start: int, stop: int) -> Tensor: ...
    def known(self, start: int, stop: int) -> Tensor | None: ...


class Storage(ABC):
    """What every storage answers. Subclasses are frozen dataclasses of tensors, numbers and storages."""

    is_sparse: ClassVar[bool] = True
    """Whether `positives` costs no more than the number of positives."""

    has_positives: ClassVar[bool] = True
    """Whether entries are positive or negative at all; real values are neither."""

    has_one_positive: ClassVar[bool] = False
    """Whether every known row has exactly one positive, of grade 1, and every entry is known."""

    @property
    @abstractmethod
    def num_anchors(self) -> int: ...

    @property
    @abstractmethod
    def num_candidates(self) -> int: ...

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        """Strength of every entry of columns start to stop."""

    @abstractmethod
    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Strength of single entries."""

    @abstractmethod
    def take(self, rows: Int[Tensor, " taken"]) -> Storage:
        """The chosen anchors, in the order given; a row may be taken more than once."""

    def between(self, start: int, stop: int) -> Storage:
        """Consecutive anchors; without a copy of what is held for every entry."""
        return self.take(torch.arange(start, stop, device=self.device))

    @classmethod
    @abstractmethod
    def cat(cls, parts: Sequence[Any]) -> Storage:
        """The anchors of all parts, one after the other; the candidates are the same."""

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        """Which entries of the columns are positive."""
        return self.grades(start, stop) > 0

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which of the single entries are positive."""
        return self.grades_at(rows, columns) > 0

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        """Which entries of the columns are known; None when all are."""
        return None

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Which of the single entries are known; None when all are."""
        return None

    def few_positives(self) -> Positives | None:
        """`positives` where they are cheaply found and few; None otherwise."""
        return self.positives() if self.is_sparse else None

    def unknown_entries(self) -> UnknownEntries | None:
        """The unknown entries one by one, where there are few; None where only masks tell them."""
        if self.known(0, 0) is not None:
            return None
        nothing = torch.zeros(0, dtype=torch.long, device=self.device)
        return UnknownEntries(nothing, nothing)

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        """Which rows have a target at all; None when all have."""
        return None

    def weight(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        """Entry weights that the storage brings itself (a composed one does); None when all are 1."""
        return None

    def weight_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        """Weights of single entries; None when all are 1."""
        return None

    def margin(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        """Margins that the storage brings itself (a composed one does); None when all are 0."""
        return None

    def margin_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        """Margins of single entries; None when all are 0."""
        return None

    def num_known(self) -> Int[Tensor, " anchors"]:
        """Known entries of each row."""
        return count_known(self)

    def num_positives(self) -> Int[Tensor, " anchors"]:
        """Known positive entries of each row."""
        return count_listed(self.positives(), self) if self.is_sparse else count_positives(self)

    def positives(self) -> Positives:
        """Every positive entry, rows ascending; the dense storages look at every entry for it."""
        grades = self.grades(0, self.num_candidates)
        rows, columns = torch.nonzero(self.positive(0, self.num_candidates), as_tuple=True)
        return Positives(rows, columns, grades[rows, columns])

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Storage:
        """A copy with `function` applied to every tensor inside."""
        return map_tensors(self, function)


Record = TypeVar("Record")


def check_same_candidates(parts: Sequence[Tensor | None]) -> None:
    """Raises MarginsError when targets to be joined name different candidates."""
    first = next((p for p in parts if p is not None), None)
    for part in parts:
        if part is not None and part is not first and first is not None and not torch.equal(part, first):
            raise MarginsError(
                "parts", expected="targets over the same candidates", received="different candidates",
                fix="name the candidates of all parts in each: of_matches(labels, candidate_labels, ...)",
            )  # fmt: skip


def count_known(matrix: Matrix) -> Int[Tensor, " anchors"]:
    """Known entries of each row, counted column block by column block unless all are."""
    if matrix.known(0, 0) is None:
        return torch.full((matrix.num_anchors,), matrix.num_candidates, device=matrix.device)
    total = torch.zeros(matrix.num_anchors, dtype=torch.long, device=matrix.device)
    for start, stop in column_blocks(matrix.num_candidates):
        known = matrix.known(start, stop)
        total = total + (stop - start if known is None else known.expand(total.shape[0], stop - start).sum(1))
    return total


def count_positives(matrix: Matrix) -> Int[Tensor, " anchors"]:
    """Known positive entries of each row, counted column block by column block."""
    total = torch.zeros(matrix.num_anchors, dtype=torch.long, device=matrix.device)
    for start, stop in column_blocks(matrix.num_candidates):
        positive, known = matrix.positive(start, stop), matrix.known(start, stop)
        total = total + (positive if known is None else positive & known).sum(1)
    return total


def count_listed(listed: Positives, storage: Storage) -> Int[Tensor, " anchors"]:
    """Known positive entries of each row, of those that are listed."""
    counted = listed.values > 0
    known = storage.known_at(listed.rows, listed.columns)
    counted = counted if known is None else counted & known
    total = torch.zeros(storage.num_anchors, dtype=torch.long, device=storage.device)
    return total.index_add(0, listed.rows, counted.long())


def column_blocks(num_candidates: int, size: int = 4096) -> list[tuple[int, int]]:
    """First and last column of consecutive blocks that cover all candidates."""
    return [(a, min(a + size, num_candidates)) for a in range(0, num_candidates, size)]


def map_tensors(record: Record, function: Callable[[Tensor], Tensor]) -> Record:
    """A copy of a dataclass with `function` applied to every tensor in it, nested records included."""
    changed: dict[str, Any] = {}
    for field in fields(cast("Any", record)):
        value = getattr(record, field.name)
        if field.metadata.get("derived"):  # known of the old tensors only
            changed[field.name] = field.default
        if isinstance(value, Tensor):
            changed[field.name] = function(value)
        elif isinstance(value, tuple):
            changed[field.name] = tuple(map_tensors(v, function) for v in value)
        elif hasattr(value, "map_tensors"):
            changed[field.name] = value.map_tensors(function)
    return cast("Record", replace(cast("Any", record), **changed))


@dataclass(frozen=True, eq=False)
class ClassIndex(Storage):
    """One positive candidate a row, as an index; a negative index is a row without a target."""

    labels: Int[Tensor, " anchors"]
    num_classes: int
    may_ignore: bool  # whether any label may be negative: decides if rows must be masked

    has_one_positive = True

    @property
    def num_anchors(self) -> int:
        return self.labels.shape[0]

    @property
    def num_candidates(self) -> int:
        return self.num_classes

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        return self.positive(start, stop).to(torch.get_default_dtype())

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return (self.labels[rows] == columns).to(torch.get_default_dtype())

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        return self.labels[:, None] == torch.arange(start, stop, device=self.device)

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        return self.labels >= 0 if self.may_ignore else None

    def positives(self) -> Positives:
        # Rows without a target point at column 0 with grade 0; they are masked as rows, not dropped, so
        # that shapes do not depend on values and the whole loss compiles as one graph.
        rows = torch.arange(self.num_anchors, device=self.device)
        values = torch.ones(self.num_anchors, device=self.device)
        if not self.may_ignore:
            return Positives(rows, self.labels, values)
        return Positives(rows, self.labels.clamp(min=0), values * (self.labels >= 0))

    def num_positives(self) -> Int[Tensor, " anchors"]:
        return (self.labels >= 0).long()

    def take(self, rows: Int[Tensor, " taken"]) -> ClassIndex:
        return replace(self, labels=self.labels[rows])

    @classmethod
    def cat(cls, parts: Sequence[ClassIndex]) -> ClassIndex:
        return ClassIndex(
            torch.cat([p.labels for p in parts]),
            parts[0].num_classes,
            any(p.may_ignore for p in parts),
        )


@dataclass(frozen=True, eq=False)
class Paired(Storage):
    """Anchor i belongs to candidate `partners[i]`; other candidates with the same item id are unknown."""

    partners: Int[Tensor, " anchors"]
    num_columns: int
    anchor_ids: Int[Tensor, " anchors"] | None
    candidate_ids: Int[Tensor, " candidates"] | None

    @property
    def has_one_positive(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.anchor_ids is None

    @property
    def num_anchors(self) -> int:
        return self.partners.shape[0]

    @property
    def num_candidates(self) -> int:
        return self.num_columns

    @property
    def device(self) -> torch.device:
        return self.partners.device

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        return self.positive(start, stop).to(torch.get_default_dtype())

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return (self.partners[rows] == columns).to(torch.get_default_dtype())

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        return self.partners[:, None] == torch.arange(start, stop, device=self.device)

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        if self.anchor_ids is None or self.candidate_ids is None:
            return None
        same = self.anchor_ids[:, None] == self.candidate_ids[None, start:stop]
        return ~same | self.positive(start, stop)

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        if self.anchor_ids is None or self.candidate_ids is None:
            return None
        same = self.anchor_ids[rows] == self.candidate_ids[columns]
        return ~same | (self.partners[rows] == columns)

    def positives(self) -> Positives:
        rows = torch.arange(self.num_anchors, device=self.device)
        return Positives(rows, self.partners, torch.ones(self.num_anchors, device=self.device))

    def num_positives(self) -> Int[Tensor, " anchors"]:
        return torch.ones_like(self.partners)

    def take(self, rows: Int[Tensor, " taken"]) -> Paired:
        ids = None if self.anchor_ids is None else self.anchor_ids[rows]
        return replace(self, partners=self.partners[rows], anchor_ids=ids)

    @classmethod
    def cat(cls, parts: Sequence[Paired]) -> Paired:
        first = parts[0]
        check_same_candidates([p.candidate_ids for p in parts])
        ids = [p.anchor_ids for p in parts if p.anchor_ids is not None]
        if len(ids) not in (0, len(parts)):
            raise MarginsError(
                "targets", expected="pairs that all carry item ids, or none", received="a mixture"
            )
        return replace(
            first,
            partners=torch.cat([p.partners for p in parts]),
            anchor_ids=torch.cat(ids) if ids else None,
        )


@dataclass(frozen=True, eq=False)
class SparseRows(Storage):
    """Several positives a row as compressed rows: row i owns entries offsets[i] to offsets[i + 1]."""

    offsets: Int[Tensor, " anchors_plus_one"]
    columns: Int[Tensor, " positives"]
    values: Float[Tensor, " positives"]
    num_columns: int

    @property
    def num_anchors(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def num_candidates(self) -> int:
        return self.num_columns

    @property
    def device(self) -> torch.device:
        return self.columns.device

    def _rows(self) -> Int[Tensor, " positives"]:
        rows = torch.arange(self.num_anchors, device=self.device)
        return rows.repeat_interleave(self.offsets.diff(), output_size=self.columns.shape[0])

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        inside = (self.columns >= start) & (self.columns < stop)
        block = self.values.new_zeros(self.num_anchors, stop - start)
        block[self._rows()[inside], self.columns[inside] - start] = self.values[inside]
        return block

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        if self.columns.shape[0] == 0:
            return self.values.new_zeros(rows.shape)
        keys = self._rows() * self.num_columns + self.columns
        wanted = rows * self.num_columns + columns
        place = torch.searchsorted(keys, wanted).clamp(max=keys.shape[0] - 1)
        return torch.where(keys[place] == wanted, self.values[place], 0.0)

    def positives(self) -> Positives:
        return Positives(self._rows(), self.columns, self.values)

    def num_positives(self) -> Int[Tensor, " anchors"]:
        return self.offsets.diff()

    def take(self, rows: Int[Tensor, " taken"]) -> SparseRows:
        lengths = self.offsets.diff()[rows]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        shift = self.offsets[:-1][rows] - offsets[:-1]
        place = torch.arange(int(offsets[-1]), device=self.device) + shift.repeat_interleave(lengths)
        return replace(self, offsets=offsets, columns=self.columns[place], values=self.values[place])

    @classmethod
    def cat(cls, parts: Sequence[SparseRows]) -> SparseRows:
        lengths = torch.cat([p.offsets.diff() for p in parts])
        return replace(
            parts[0],
            offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            columns=torch.cat([p.columns for p in parts]),
            values=torch.cat([p.values for p in parts]),
        )

    @classmethod
    def from_positives(cls, positives: Positives, num_anchors: int, num_columns: int) -> SparseRows:
        """Compressed rows from listed entries in any order; entries listed twice are added."""
        keys = positives.rows * num_columns + positives.columns
        unique, place = torch.unique(keys, return_inverse=True)
        values = positives.values.new_zeros(unique.shape[0]).index_add(0, place, positives.values)
        rows = unique // num_columns
        offsets = torch.searchsorted(rows, torch.arange(num_anchors + 1, device=rows.device))
        return cls(offsets, unique % num_columns, values, num_columns)
