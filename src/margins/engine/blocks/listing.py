"""Entries that are known one by one, sorted by the block that they lie in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from margins.engine.blocks.plan import BlockPlan
from margins.engine.entries import Holes
from margins.targets import Positives
from margins.targets.storage import UnknownEntries


@dataclass(frozen=True, eq=False)
class _ByBlock:
    """Entries of a stripe of blocks.

    Args:
        numbers: of each entry in the list it came from, block after block.
        places: of each in its flattened block.
        ends: where each block's entries end.
    """

    numbers: Int[Tensor, " entries"]
    places: Int[Tensor, " entries"]
    ends: list[int]

    @classmethod
    def of(
        cls, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], span: tuple[int, int], plan: BlockPlan
    ) -> _ByBlock:
        """The entries of the rows of a stripe; `rows` ascend."""
        low, high = torch.searchsorted(rows, torch.tensor(span, device=rows.device)).tolist()
        rows, columns = rows[low:high] - span[0], columns[low:high]
        block = columns // plan.columns
        block, order = block.sort(stable=True)
        columns = columns[order]
        width = (plan.num_candidates - block * plan.columns).clamp(max=plan.columns)
        places = rows[order] * width + columns - block * plan.columns
        numbers = torch.arange(len(plan.column_spans()), device=rows.device)
        ends = torch.searchsorted(block, numbers, right=True).tolist()
        return cls(order + low, places, ends)

    def part(self, values: Tensor, number: int) -> Tensor:
        """Of one number an entry, those of a block."""
        return values[self.ends[number - 1] if number else 0 : self.ends[number]]


@dataclass(frozen=True, eq=False)
class BlockListing:
    """The listed positives of a stripe of blocks and, where those are listed too, its unknown entries."""

    positives: _ByBlock
    known_positives: _ByBlock
    unknown: _ByBlock | None

    @classmethod
    def of(
        cls, positives: Positives, unknown: UnknownEntries | None, span: tuple[int, int], plan: BlockPlan
    ) -> BlockListing:
        """The listed entries of the anchors of a span."""
        rows, columns, values = positives
        every = _ByBlock.of(rows, columns, span, plan)
        graded = values.detach() > 0  # a row without a target is listed too, with grade 0
        if values.shape[0] and bool(graded.all()):
            real = every
        else:
            real = _ByBlock.of(rows[graded], columns[graded], span, plan)
        return cls(every, real, None if unknown is None else _ByBlock.of(*unknown, span, plan))

    def places(self, number: int) -> Int[Tensor, " listed"]:
        """Where the listed positives lie in a flattened block."""
        return self.positives.part(self.positives.places, number)

    def numbers(self, number: int) -> Int[Tensor, " listed"]:
        """Which of the listed positives lie in a block."""
        return self.positives.part(self.positives.numbers, number)

    def holes(self, number: int) -> Holes | None:
        """The entries that masks would leave out; None where only masks can tell them."""
        if self.unknown is None:
            return None
        known = self.known_positives
        return Holes(known.part(known.places, number), self.unknown.part(self.unknown.places, number))
