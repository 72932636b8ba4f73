"""A storage that shows chosen columns of other targets, as a sampled evaluator draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.targets.storage import Storage, check_same_candidates

if TYPE_CHECKING:
    from margins.targets.transforming import TransformedTargets


@dataclass(frozen=True, eq=False)
class ChosenColumns(Storage):
    """The columns `chosen` of `whole`, in their order, its layers included; entries are looked up one by one.

    What depends on a whole row stays as it was: the share of smoothing, and which rows are known.
    """

    whole: TransformedTargets
    chosen: Int[Tensor, " chosen"]

    is_sparse = False  # listing the positives among the chosen would look at every entry

    @property
    def num_anchors(self) -> int:
        return self.whole.num_anchors

    @property
    def num_candidates(self) -> int:
        return self.chosen.shape[0]

    @property
    def device(self) -> torch.device:
        return self.whole.device

    def _block(self, read: Callable[[Tensor, Tensor], Tensor | None], start: int, stop: int) -> Tensor | None:
        rows = torch.arange(self.num_anchors, device=self.device).repeat_interleave(stop - start)
        found = read(rows, self.chosen[start:stop].repeat(self.num_anchors))
        return None if found is None else found.view(self.num_anchors, stop - start)

    def grades(
        self, start: int, stop: int, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "anchors block"]:
        grades = self._block(self.whole.grades_at, start, stop)
        assert grades is not None  # noqa: S101  (every entry has one)
        return grades if dtype is None else grades.to(dtype)

    def grades_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.whole.grades_at(rows, self.chosen[columns])

    def positive(self, start: int, stop: int) -> Bool[Tensor, "anchors block"]:
        positive = self._block(self.whole.positive_at, start, stop)
        assert positive is not None  # noqa: S101  (every entry is or is not)
        return positive

    def positive_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return self.whole.positive_at(rows, self.chosen[columns])

    def known(self, start: int, stop: int) -> Bool[Tensor, "anchors block"] | None:
        return self._block(self.whole.known_at, start, stop)

    def known_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        return self.whole.known_at(rows, self.chosen[columns])

    def known_rows(self) -> Bool[Tensor, " anchors"] | None:
        return self.whole.known_rows()

    def weight(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        return self._block(self.whole.weight_at, start, stop)

    def weight_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        return self.whole.weight_at(rows, self.chosen[columns])

    def margin(self, start: int, stop: int) -> Float[Tensor, "anchors block"] | None:
        return self._block(self.whole.margin_at, start, stop)

    def margin_at(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Float[Tensor, " n"] | None:
        return self.whole.margin_at(rows, self.chosen[columns])

    def take(self, rows: Int[Tensor, " taken"]) -> ChosenColumns:
        return replace(self, whole=self.whole.take(rows))

    @classmethod
    def cat(cls, parts: Sequence[Any]) -> ChosenColumns:
        check_same_candidates([p.chosen for p in parts])
        first = parts[0]
        return cls(type(first.whole).cat([p.whole for p in parts]), first.chosen)
