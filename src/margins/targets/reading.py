"""What evaluators read of targets: grades, what is known, weights, margins and counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.targets.columns import Columns
from margins.targets.composed import Appended, Mixed, both
from margins.targets.dense import Matches
from margins.targets.fields import columns_of, combined, entries_of
from margins.targets.storage import (
    Positives,
    Storage,
    UnknownEntries,
    column_blocks,
    count_known,
    count_positives,
    map_tensors,
)


class TargetBlock(NamedTuple):
    """Some columns of a targets matrix, written out. None stands for all known, all 1, all 0."""

    grades: Float[Tensor, "anchors block"]
    known: Bool[Tensor, "anchors block"] | None
    weight: Float[Tensor, "anchors block"] | None
    margin: Float[Tensor, "anchors block"] | None


@dataclass(frozen=True, eq=False)
class Margins:
    """Margins by the entries they are subtracted from; each a field."""

    all: Tensor | None = None
    positives: Tensor | None = None
    negatives: Tensor | None = None

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Margins:
        """A copy with `function` applied to every tensor."""
        return map_tensors(self, function)

    def fields(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The three fields: all, positives, negatives."""
        return self.all, self.positives, self.negatives


def _no_margins() -> Margins:
    # A function, because a compiler that follows the constructor can call no class from in there.
    return Margins()


@dataclass(frozen=True, eq=False, repr=False)
class ReadTargets:
    """A storage under its layers: row and entry weights, unknown entries, margins and smoothing."""

    storage: Storage
    row_weight: Float[Tensor, " anchors"] | None = None
    unknown: Tensor | None = None
    entry_weight: Tensor | None = None
    margins: Margins = field(default_factory=_no_margins)
    smoothing: float = 0.0

    @property
    def num_anchors(self) -> int:
        """B, the number of rows."""
        return self.storage.num_anchors

    @property
    def num_candidates(self) -> int:
        """C, the number of columns."""
        return self.storage.num_candidates

    @property
    def shape(self) -> tuple[int, int]:
        """(anchors, candidates)."""
        return self.num_anchors, self.num_candidates

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.storage.device

    @property
    def is_sparse(self) -> bool:
        """Whether the positives are listed at a cost of their number, with grade 0 everywhere else."""
        return self.storage.is_sparse and self.smoothing == 0

    @property
    def is_smoothed(self) -> bool:
        """Whether these targets, or a part of them, put a share on every entry."""
        return self.smoothing > 0 or any(p.is_smoothed for p in self._inner())

    @property
    def is_mixed(self) -> bool:
        """Whether these targets, or a part of them, are a mixture."""
        return isinstance(self.storage, Mixed) or any(p.is_mixed for p in self._inner())

    def _inner(self) -> tuple[ReadTargets, ...]:
        if isinstance(self.storage, Mixed):
            return self.storage.first, self.storage.second
        if isinstance(self.storage, Columns):
            return (self.storage.whole,)
        return self.storage.pieces if isinstance(self.storage, Appended) else ()

    @property
    def has_one_positive(self) -> bool:
        """Whether every known row has exactly one positive of grade 1, all entries known, all weights 1."""
        plain = self.unknown is None and self.entry_weight is None and self.smoothing == 0
        return plain and self.storage.has_one_positive

    def __len__(self) -> int:
        return self.num_anchors

    def __repr__(self) -> str:
        layers = [n for n in ("row_weight", "unknown", "entry_weight") if getattr(self, n) is not None]
        layers += [f"margin on {d}" for d, m in vars(self.margins).items() if m is not None]
        layers += [f"smoothing {self.smoothing:g}"] if self.smoothing else []
        extra = f" with {', '.join(layers)}" if layers else ""
        return f"Targets[{self.num_anchors} x {self.num_candidates}, {type(self.storage).__name__}{extra}]"

    def block(self, start: int, stop: int) -> TargetBlock:
        """Grades, known-mask, weight and margin of columns start to stop."""
        return TargetBlock(
            self.grades(start, stop),
            self.known(start, stop),
            self.weight_of(start, stop),
            self.margin_of(start, stop),
        )

    def positives(self) -> Positives:
        """Every positive entry: rows ascending, columns, grades. Unknown entries are listed too."""
        listed = self.storage.positives()
        if self.smoothing == 0:
            return listed
        return listed._replace(values=self.grades_at(listed.rows, listed.columns))

    def grades(
        self, start: int, stop: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "anchors block"]:
        """Strength of each entry of the columns, smoothing included, computed in `dtype`."""
        storage = self.storage
        is_view = isinstance(storage, Columns)  # of targets that compute in `dtype` themselves
        grades = storage.grades(start, stop, dtype) if is_view else storage.grades(start, stop)
        grades = grades if dtype is None else grades.to(dtype)
        if self.smoothing == 0:
            return grades
        return (1 - self.smoothing) * grades + self._background(grades.dtype)

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Strength of single entries, smoothing included."""
        grades = self.storage.grades_at(rows, columns)
        if self.smoothing == 0:
            return grades
        return (1 - self.smoothing) * grades + self._background(grades.dtype)[rows, 0]

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        """Which entries are positive; smoothing makes none positive that was not."""
        return self.storage.positive(start, stop)

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which single entries are positive."""
        return self.storage.positive_at(rows, columns)

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        """Which entries are known: not ignored, weight above 0; None when all are."""
        unknown, weight = columns_of(self.unknown, start, stop), columns_of(self.entry_weight, start, stop)
        return both(
            self.storage.known(start, stop),
            None if unknown is None else ~unknown,
            None if weight is None else weight > 0,
        )

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Which single entries are known; None when all are."""
        unknown, weight = (
            entries_of(self.unknown, rows, columns),
            entries_of(self.entry_weight, rows, columns),
        )
        return both(
            self.storage.known_at(rows, columns),
            None if unknown is None else ~unknown,
            None if weight is None else weight > 0,
        )

    def unknown_entries(self) -> UnknownEntries | None:
        """The unknown entries one by one, where there are few; None where only masks tell them."""
        layered = self.unknown is not None or self.entry_weight is not None
        return None if layered else self.storage.unknown_entries()

    def few_positives(self) -> Positives | None:
        """The positives one by one, where they are listed or cheaply found and rare; None otherwise.

        Rare is one entry in 32: above that a mask costs less than a list.
        """
        return None if self.smoothing else self.storage.few_positives()

    def weight_of(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        """Entry weights of the columns; None when all are 1."""
        own = columns_of(self.entry_weight, start, stop)
        return combined(self.storage.weight(start, stop), own, torch.mul)

    def weight_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        """Weights of single entries; None when all are 1."""
        own = entries_of(self.entry_weight, rows, columns)
        return combined(self.storage.weight_at(rows, columns), own, torch.mul)

    def margin_of(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        """Margins to subtract from the scores of the columns; None when all are 0."""
        everywhere, positives, negatives = (columns_of(f, start, stop) for f in self.margins.fields())
        total = combined(self.storage.margin(start, stop), everywhere, torch.add)
        if positives is not None or negatives is not None:
            total = _add_by_domain(total, self.positive(start, stop), positives, negatives)
        return total

    def margin_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        """Margins of single entries; None when all are 0."""
        everywhere, positives, negatives = (entries_of(f, rows, columns) for f in self.margins.fields())
        total = combined(self.storage.margin_at(rows, columns), everywhere, torch.add)
        if positives is not None or negatives is not None:
            total = _add_by_domain(total, self.positive_at(rows, columns), positives, negatives)
        return total

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        """Rows that have a target and a weight above 0; None when all do."""
        weighty = None if self.row_weight is None else self.row_weight > 0
        return both(self.storage.known_rows(), weighty)

    def num_known(self) -> Int[Tensor, " anchors"]:
        """Known entries of each row."""
        if self.unknown is None and self.entry_weight is None:
            return self.storage.num_known()
        return count_known(self)

    def num_positives(self) -> Int[Tensor, " anchors"]:
        """Known positive entries of each row."""
        if self.unknown is None and self.entry_weight is None:
            return self.storage.num_positives()
        return count_positives(self)

    def mass(self, dtype: torch.dtype | None = None) -> Float[Tensor, " anchors"]:
        """Sum of weight * grade over the known entries of each row."""
        if self.is_sparse:
            rows, columns, values = self.positives()
            if self.has_one_positive:
                return values
            terms = self._counted(values, self.weight_at(rows, columns), self.known_at(rows, columns))
            return terms.new_zeros(self.num_anchors).index_add(0, rows, terms)
        plain = self.unknown is None and self.entry_weight is None and self.smoothing == 0
        if plain and isinstance(self.storage, Matches):
            return self.num_positives().to(torch.get_default_dtype())
        return self._block_sums(lambda start, stop: self.grades(start, stop, dtype))

    def known_weight(self) -> Float[Tensor, " anchors"]:
        """Sum of the weights of the known entries of each row: their number when all weights are 1."""
        if self.weight_of(0, 0) is None:
            return self.num_known().to(torch.get_default_dtype())
        return self._block_sums(lambda start, stop: torch.ones(1, stop - start, device=self.device))

    def _block_sums(self, read: Callable[[int, int], Tensor]) -> Float[Tensor, " anchors"]:
        total: Tensor = torch.zeros((), device=self.device)
        for start, stop in column_blocks(self.num_candidates):
            block = self._counted(read(start, stop), self.weight_of(start, stop), self.known(start, stop))
            total = block.expand(self.num_anchors, stop - start).sum(1) + total
        return total

    @staticmethod
    def _counted(values: Tensor, weight: Tensor | None, known: Tensor | None) -> Tensor:
        weighted = values if weight is None else values * weight
        return weighted if known is None else torch.where(known, weighted, 0.0)

    def _background(self, dtype: torch.dtype) -> Float[Tensor, "anchors 1"]:
        return self.smoothing / self.num_known().clamp(min=1)[:, None].to(dtype)


def _add_by_domain(
    total: Tensor | None, positive: Tensor, on_positives: Tensor | None, on_negatives: Tensor | None
) -> Tensor:
    zero = torch.zeros((), device=positive.device)
    chosen = torch.where(
        positive,
        zero if on_positives is None else on_positives,
        zero if on_negatives is None else on_negatives,
    )
    return chosen if total is None else total + chosen
