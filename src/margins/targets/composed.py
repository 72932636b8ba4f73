"""Storages made of other targets: mixtures of two, and columns put side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.targets.storage import Positives, SparseRows, Storage

if TYPE_CHECKING:
    from margins.targets.transforming import TransformedTargets


@dataclass(frozen=True, eq=False)
class Mixed(Storage):
    """share * first + (1 - share) * second, entry by entry; known where all parts with a share know."""

    first: TransformedTargets
    second: TransformedTargets
    share: Float[Tensor, "anchors 1"]

    @property
    def has_positives(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.first.storage.has_positives and self.second.storage.has_positives

    @property
    def is_sparse(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.first.is_sparse and self.second.is_sparse

    @property
    def num_anchors(self) -> int:
        return self.first.num_anchors

    @property
    def num_candidates(self) -> int:
        return self.first.num_candidates

    @property
    def device(self) -> torch.device:
        return self.first.device

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """The mixture of two [anchors, n] tensors."""
        return self.share * first + (1 - self.share) * second

    def blend_at(self, rows: Int[Tensor, " n"], first: Tensor, second: Tensor) -> Tensor:
        """The mixture of two lists of single entries."""
        share = self.share[rows, 0]
        return share * first + (1 - share) * second

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        return self.blend(self.first.grades(start, stop), self.second.grades(start, stop))

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.blend_at(rows, self.first.grades_at(rows, columns), self.second.grades_at(rows, columns))

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        # A part with share 0 brings no positives: the mixture with share 1 is the first part itself.
        first = self.first.positive(start, stop) & (self.share > 0)
        return first | (self.second.positive(start, stop) & (self.share < 1))

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        share = self.share[rows, 0]
        first = self.first.positive_at(rows, columns) & (share > 0)
        return first | (self.second.positive_at(rows, columns) & (share < 1))

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        first, second = self.first.known(start, stop), self.second.known(start, stop)
        return both(_or_absent(first, self.share > 0), _or_absent(second, self.share < 1))

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        first, second = self.first.known_at(rows, columns), self.second.known_at(rows, columns)
        share = self.share[rows, 0]
        return both(_or_absent(first, share > 0), _or_absent(second, share < 1))

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        first, second, share = self.first.known_rows(), self.second.known_rows(), self.share[:, 0]
        return both(_or_absent(first, share > 0), _or_absent(second, share < 1))

    def weight(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        pair = self.first.weight_of(start, stop), self.second.weight_of(start, stop)
        if pair[0] is None and pair[1] is None:
            return None
        return self.blend(*(torch.ones_like(self.share) if w is None else w for w in pair))

    def weight_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        pair = self.first.weight_at(rows, columns), self.second.weight_at(rows, columns)
        if pair[0] is None and pair[1] is None:
            return None
        one = torch.ones_like(self.share[rows, 0])
        return self.blend_at(rows, *(one if w is None else w for w in pair))

    def margin(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        pair = self.first.margin_of(start, stop), self.second.margin_of(start, stop)
        if pair[0] is None and pair[1] is None:
            return None
        return self.blend(*(torch.zeros_like(self.share) if m is None else m for m in pair))

    def margin_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        pair = self.first.margin_at(rows, columns), self.second.margin_at(rows, columns)
        if pair[0] is None and pair[1] is None:
            return None
        zero = torch.zeros_like(self.share[rows, 0])
        return self.blend_at(rows, *(zero if m is None else m for m in pair))

    def positives(self) -> Positives:
        if not self.is_sparse:
            return super().positives()
        pieces = (self.first.positives(), self.second.positives())
        shares = (self.share[pieces[0].rows, 0], 1 - self.share[pieces[1].rows, 0])
        kept = [s > 0 for s in shares]
        listed = Positives(
            torch.cat([p.rows[k] for p, k in zip(pieces, kept, strict=True)]),
            torch.cat([p.columns[k] for p, k in zip(pieces, kept, strict=True)]),
            torch.cat([(s * p.values)[k] for p, s, k in zip(pieces, shares, kept, strict=True)]),
        )
        return SparseRows.from_positives(listed, self.num_anchors, self.num_candidates).positives()

    def take(self, rows: Int[Tensor, " taken"]) -> Mixed:
        return Mixed(self.first.take(rows), self.second.take(rows), self.share[rows])

    def between(self, start: int, stop: int) -> Mixed:
        parts = self.first.between(start, stop), self.second.between(start, stop)
        return Mixed(*parts, self.share[start:stop])

    @classmethod
    def cat(cls, parts: Sequence[Mixed]) -> Mixed:
        targets = type(parts[0].first)
        return Mixed(
            targets.cat([p.first for p in parts]),
            targets.cat([p.second for p in parts]),
            torch.cat([p.share for p in parts]),
        )


@dataclass(frozen=True, eq=False)
class Appended(Storage):
    """The candidates of several targets over the same anchors, side by side."""

    pieces: tuple[TransformedTargets, ...]

    @property
    def has_positives(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(p.storage.has_positives for p in self.pieces)

    @property
    def is_sparse(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return all(p.is_sparse for p in self.pieces)

    @property
    def num_anchors(self) -> int:
        return self.pieces[0].num_anchors

    @property
    def num_candidates(self) -> int:
        return sum(p.num_candidates for p in self.pieces)

    @property
    def device(self) -> torch.device:
        return self.pieces[0].device

    def spans(self, start: int, stop: int) -> list[tuple[TransformedTargets, int, int]]:
        """The pieces that columns start to stop cut, each with its own first and last column."""
        found: list[tuple[TransformedTargets, int, int]] = []
        base = 0
        for piece in self.pieces:
            low, high = max(start - base, 0), min(stop - base, piece.num_candidates)
            if low < high or start == stop:  # an empty block still says which pieces have weights
                found.append((piece, low, max(low, high)))
            base += piece.num_candidates
        return found

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        return torch.cat([p.grades(a, b) for p, a, b in self.spans(start, stop)], 1)

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.gathered(lambda p, r, c: p.grades_at(r, c), rows, columns, 0.0)

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        return torch.cat([p.positive(a, b) for p, a, b in self.spans(start, stop)], 1)

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return self.gathered(lambda p, r, c: p.positive_at(r, c), rows, columns, False)

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        return self._side_by_side([(p.known(a, b), b - a) for p, a, b in self.spans(start, stop)], True)

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        def known(piece: TransformedTargets, r: Tensor, c: Tensor) -> Tensor:
            inside = piece.known_at(r, c)
            return torch.ones_like(r, dtype=torch.bool) if inside is None else inside

        if all(p.known_at(rows[:0], columns[:0]) is None for p in self.pieces):
            return None
        return self.gathered(known, rows, columns, True)

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        return both(*(p.known_rows() for p in self.pieces))

    def weight(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        return self._side_by_side([(p.weight_of(a, b), b - a) for p, a, b in self.spans(start, stop)], 1.0)

    def weight_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        return self._layer_at(lambda p, r, c: p.weight_at(r, c), rows, columns, 1.0)

    def margin(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        return self._side_by_side([(p.margin_of(a, b), b - a) for p, a, b in self.spans(start, stop)], 0.0)

    def margin_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        return self._layer_at(lambda p, r, c: p.margin_at(r, c), rows, columns, 0.0)

    def _side_by_side(self, blocks: list[tuple[Tensor | None, int]], neutral: float) -> Tensor | None:
        given = [b for b, _ in blocks if b is not None]
        if not given:
            return None
        filler = given[0].new_full((1, 1), neutral)
        shape = self.num_anchors
        return torch.cat([(filler if b is None else b).expand(shape, width) for b, width in blocks], 1)

    def _layer_at(
        self,
        read: Callable[[TransformedTargets, Tensor, Tensor], Tensor | None],
        rows: Int[Tensor, " n"],
        columns: Int[Tensor, " n"],
        neutral: float,
    ) -> Tensor | None:
        neutral_values = torch.full(rows.shape, neutral, device=self.device)
        if all(read(p, rows[:0], columns[:0]) is None for p in self.pieces):
            return None

        def filled(piece: TransformedTargets, r: Tensor, c: Tensor) -> Tensor:
            value = read(piece, r, c)
            return neutral_values if value is None else value

        return self.gathered(filled, rows, columns, neutral)

    def gathered(
        self,
        read: Callable[[TransformedTargets, Tensor, Tensor], Tensor],
        rows: Int[Tensor, " n"],
        columns: Int[Tensor, " n"],
        default: float,
    ) -> Tensor:
        """`read` of single entries, each asked of the piece that owns its column."""
        base, result = 0, None
        for piece in self.pieces:
            width = piece.num_candidates
            if width == 0:
                continue
            inside = (columns >= base) & (columns < base + width)
            local = read(piece, rows, (columns - base).clamp(0, width - 1))
            result = torch.where(inside, local, default if result is None else result)
            base += width
        assert result is not None  # noqa: S101  (an Appended has at least two pieces)
        return result

    def positives(self) -> Positives:
        if not self.is_sparse:
            return super().positives()
        listed: list[Positives] = []
        base = 0
        for piece in self.pieces:
            p = piece.positives()
            listed.append(p._replace(columns=p.columns + base))
            base += piece.num_candidates
        rows = torch.cat([p.rows for p in listed])
        order = torch.argsort(rows, stable=True)
        return Positives(
            rows[order],
            torch.cat([p.columns for p in listed])[order],
            torch.cat([p.values for p in listed])[order],
        )

    def take(self, rows: Int[Tensor, " taken"]) -> Appended:
        return replace(self, pieces=tuple(p.take(rows) for p in self.pieces))

    def between(self, start: int, stop: int) -> Appended:
        return replace(self, pieces=tuple(p.between(start, stop) for p in self.pieces))

    @classmethod
    def cat(cls, parts: Sequence[Appended]) -> Appended:
        targets = type(parts[0].pieces[0])
        columns = zip(*(p.pieces for p in parts), strict=True)
        return Appended(tuple(targets.cat(list(c)) for c in columns))


def _or_absent(known: Tensor | None, present: Tensor) -> Tensor | None:
    # A part whose share is 0 is not there, so what it does not know does not matter.
    return None if known is None else known | ~present


def both(*masks: Tensor | None) -> Tensor | None:
    """The conjunction of masks of which None stands for all true."""
    result: Tensor | None = None
    for mask in masks:
        if mask is not None:
            result = mask if result is None else result & mask
    return result
