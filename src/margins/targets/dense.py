"""Storages that hold, or compute, a strength for every entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.errors import MarginsError
from margins.targets.storage import Positives, Storage, UnknownEntries, check_same_candidates
from margins.taxonomy import Taxonomy

_RARE = 32  # one entry in so many: above that a mask costs less than a list


@dataclass(frozen=True, eq=False)
class DenseGrades(Storage):
    """A matrix of grades: soft, distilled or multi-hot labels."""

    matrix: Float[Tensor, "anchors candidates"]
    # No grade is above it, as far as anybody looked.
    upper_bound: float = field(default=float("inf"), metadata={"derived": True})

    is_sparse: ClassVar[bool] = False

    @property
    def num_anchors(self) -> int:
        return self.matrix.shape[0]

    @property
    def num_candidates(self) -> int:
        return self.matrix.shape[1]

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        return self.matrix[:, start:stop]

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.matrix[rows, columns]

    def take(self, rows: Int[Tensor, " taken"]) -> DenseGrades:
        return replace(self, matrix=self.matrix[rows])

    def between(self, start: int, stop: int) -> DenseGrades:
        return replace(self, matrix=self.matrix[start:stop])

    @classmethod
    def cat(cls, parts: Sequence[DenseGrades]) -> DenseGrades:
        bound = max(p.upper_bound for p in parts)
        return replace(parts[0], matrix=torch.cat([p.matrix for p in parts]), upper_bound=bound)


@dataclass(frozen=True, eq=False)
class Values(DenseGrades):
    """Real values to be met by the scores (regression): no entry is positive or negative."""

    has_positives: ClassVar[bool] = False

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        raise _no_positives()

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        raise _no_positives()

    def positives(self) -> Positives:
        raise _no_positives()

    def num_positives(self) -> Int[Tensor, " anchors"]:
        raise _no_positives()


def _no_positives() -> MarginsError:
    return MarginsError(
        "targets",
        expected="targets with positive candidates",
        received="real values",
        fix="a regression target goes with SquaredError, or name classes by Targets.of_classes",
    )


@dataclass(frozen=True, eq=False)
class Matches(Storage):
    """Anchor and candidate match when their labels are equal; the anchor itself is unknown."""

    anchor_labels: Int[Tensor, " anchors"]
    candidate_labels: Int[Tensor, " candidates"]
    same_items: Int[Tensor, " anchors"] | None  # column of the anchor itself, -1 when it is not there

    is_sparse: ClassVar[bool] = False

    @property
    def num_anchors(self) -> int:
        return self.anchor_labels.shape[0]

    @property
    def num_candidates(self) -> int:
        return self.candidate_labels.shape[0]

    @property
    def device(self) -> torch.device:
        return self.anchor_labels.device

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        return self.positive(start, stop).to(torch.get_default_dtype())

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.positive_at(rows, columns).to(torch.get_default_dtype())

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        return self.anchor_labels[:, None] == self.candidate_labels[None, start:stop]

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return self.anchor_labels[rows] == self.candidate_labels[columns]

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        if self.same_items is None:
            return None
        return self.same_items[:, None] != torch.arange(start, stop, device=self.device)

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        return None if self.same_items is None else self.same_items[rows] != columns

    def few_positives(self) -> Positives | None:
        total = int(self.num_positives().sum())
        return self.positives() if _RARE * total <= self.num_anchors * self.num_candidates else None

    def unknown_entries(self) -> UnknownEntries | None:
        if self.same_items is None:
            return super().unknown_entries()
        rows = (self.same_items >= 0).nonzero()[:, 0]
        return UnknownEntries(rows, self.same_items[rows])

    def positives(self) -> Positives:
        """Every match, found by sorting the candidates by label."""
        order = self.candidate_labels.argsort(stable=True)
        ordered = self.candidate_labels[order]
        first = torch.searchsorted(ordered, self.anchor_labels, right=False)
        lengths = torch.searchsorted(ordered, self.anchor_labels, right=True) - first
        rows = torch.arange(self.num_anchors, device=self.device).repeat_interleave(lengths)
        before = lengths.cumsum(0) - lengths
        place = torch.arange(rows.shape[0], device=self.device) - before[rows] + first[rows]
        return Positives(rows, order[place], torch.ones(rows.shape, device=self.device))

    def num_positives(self) -> Int[Tensor, " anchors"]:
        ordered = self.candidate_labels.sort().values
        first = torch.searchsorted(ordered, self.anchor_labels, right=False)
        matching = torch.searchsorted(ordered, self.anchor_labels, right=True) - first
        if self.same_items is None:
            return matching
        itself = self.same_items.clamp(min=0)
        counted = (self.same_items >= 0) & (self.candidate_labels[itself] == self.anchor_labels)
        return matching - counted.long()

    def num_known(self) -> Int[Tensor, " anchors"]:
        total = torch.full_like(self.anchor_labels, self.num_candidates)
        return total if self.same_items is None else total - (self.same_items >= 0).long()

    def take(self, rows: Int[Tensor, " taken"]) -> Matches:
        same = None if self.same_items is None else self.same_items[rows]
        return replace(self, anchor_labels=self.anchor_labels[rows], same_items=same)

    @classmethod
    def cat(cls, parts: Sequence[Matches]) -> Matches:
        check_same_candidates([p.candidate_labels for p in parts])
        same = None
        if any(p.same_items is not None for p in parts):
            absent = [p.anchor_labels.new_full(p.anchor_labels.shape, -1) for p in parts]
            same = torch.cat(
                [a if p.same_items is None else p.same_items for p, a in zip(parts, absent, strict=True)]
            )
        labels = torch.cat([p.anchor_labels for p in parts])
        return replace(parts[0], anchor_labels=labels, same_items=same)


@dataclass(frozen=True, eq=False)
class TreeGrades(Storage):
    """Graded by nearness in a taxonomy: decay ** distance up to a radius, 0 beyond it."""

    labels: Int[Tensor, " anchors"]
    taxonomy: Taxonomy
    decay: float
    radius: int

    is_sparse: ClassVar[bool] = False

    @property
    def num_anchors(self) -> int:
        return self.labels.shape[0]

    @property
    def num_candidates(self) -> int:
        return self.taxonomy.num_nodes

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def grades(self, start: int, stop: int) -> Float[Tensor, "anchors block"]:
        nodes = torch.arange(start, stop, device=self.device)
        return self._graded(self.taxonomy.distances(self.labels, nodes))

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        # A list of pairs: the way leads over a common ancestor, found by comparing two columns at a time.
        ids, steps = (t.to(self.device) for t in self.taxonomy.ancestor_table)
        first, second = self.labels[rows], columns
        distance = torch.full(rows.shape, torch.inf, device=self.device)
        for p in range(ids.shape[1]):
            for q in range(ids.shape[1]):
                meets = (ids[first, p] == ids[second, q]) & (ids[first, p] >= 0)
                way = (steps[first, p] + steps[second, q]).to(distance.dtype)
                distance = torch.where(meets, torch.minimum(distance, way), distance)
        return self._graded(distance)

    def _graded(self, distance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        near = torch.pow(self.decay, distance.clamp(max=self.radius + 1))
        return torch.where(distance <= self.radius, near, 0.0)

    def take(self, rows: Int[Tensor, " taken"]) -> TreeGrades:
        return replace(self, labels=self.labels[rows])

    @classmethod
    def cat(cls, parts: Sequence[TreeGrades]) -> TreeGrades:
        if any(p.taxonomy != parts[0].taxonomy for p in parts):
            raise MarginsError("parts", expected="targets over one taxonomy", received="several")
        return replace(parts[0], labels=torch.cat([p.labels for p in parts]))
