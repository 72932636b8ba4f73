"""A matrix of scores read tile by tile, and what one reading can find of its rows; readings are counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.engine.topk.threshold import Row, Search, Seen

TILE_ENTRIES = 2**17
"""Entries of a tile on a CPU, a thread: with its intermediate results it stays in the caches."""


@dataclass
class Readings:
    """Counts how often the entries of a matrix have been read.

    Args:
        entries: read so far, a repeated one as often as it was.
        size: entries of the matrix.
    """

    entries: int = 0
    size: int = 0

    @property
    def passes(self) -> float:
        """Full readings of the matrix."""
        return self.entries / max(self.size, 1)


class ScoreTiles:
    """Scores times sharpness, in tiles of whole rows.

    Args:
        scores: [B, C] finite.
        known: [B, C], or None when all entries are known; an unknown one is in no sum.
        sharpness: > 0.
        readings: what counts.
    """

    def __init__(
        self,
        scores: Float[Tensor, "rows columns"],
        known: Bool[Tensor, "rows columns"] | None,
        sharpness: float,
        readings: Readings,
    ) -> None:
        self.scores, self.known, self.sharpness = scores, known, sharpness
        self._readings = readings
        readings.size = scores.numel()
        entries = TILE_ENTRIES * torch.get_num_threads() if scores.device.type == "cpu" else 2**25
        self._height = min(max(1, entries // max(scores.shape[1], 1)), max(scores.shape[0], 1))
        self._space: dict[int, Tensor] = {}

    def space(self, number: int, height: int, dtype: torch.dtype | None = None) -> Tensor:
        """Room for an intermediate result of a tile; the same memory each time it is asked for."""
        if number not in self._space:
            shape = (self._height, self.scores.shape[1])
            self._space[number] = self.scores.new_empty(shape, dtype=dtype)
        return self._space[number][:height]

    def tiles(self, rows: Int[Tensor, " rows"] | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Scores of some rows, all by default, tile by tile: where among these rows, and the tile."""
        num_rows = self.scores.shape[0] if rows is None else rows.shape[0]
        for first in range(0, num_rows, self._height):
            place = slice(first, min(first + self._height, num_rows))
            chosen = place if rows is None else rows[place]
            tile = self.scores[chosen]
            if self.known is not None:
                tile = tile.masked_fill(~self.known[chosen], -torch.inf)
            self._readings.entries += tile.numel()
            yield place, tile

    def extremes(self) -> tuple[Row, Row, Row]:
        """Largest and smallest known value of each row, times sharpness, and the number of known entries."""
        top, bottom = (self.scores.new_zeros(self.scores.shape[0]) for _ in range(2))
        num_known = self.scores.new_full((self.scores.shape[0],), self.scores.shape[1])
        for place, tile in self.tiles():
            top[place] = tile.amax(1)
            if self.known is None:
                bottom[place] = tile.amin(1)
                continue
            unknown = ~self.known[place]
            num_known[place] = self.known[place].sum(1).to(tile.dtype)
            bottom[place] = tile.masked_fill(unknown, torch.inf).amin(1)
        some = num_known > 0
        return (
            torch.where(some, top, 0.0) * self.sharpness,
            torch.where(some, bottom, 0.0) * self.sharpness,
            num_known,
        )

    def histogram(self, low: Row, high: Row, num_bins: int, rows: Tensor) -> Float[Tensor, "rows bins"]:
        """Entries of each of the rows in equal bins of [low, high]; two more bins for what lies outside."""
        counts = low.new_zeros(rows.shape[0], num_bins + 2)
        scale = num_bins / (high - low)
        whole = rows.shape[0] == self.scores.shape[0]
        for place, tile in self.tiles(None if whole else rows):
            height = tile.shape[0]
            number = torch.mul(tile, (scale[place] * self.sharpness)[:, None], out=self.space(0, height))
            number += (1 - scale[place] * low[place])[:, None]
            index = self.space(3, height, torch.int64).copy_(number.clamp_(0, num_bins + 1))
            counts[place].scatter_add_(1, index, self.space(1, height).fill_(1.0))
            if self.known is not None:
                chosen = self.known[place] if whole else self.known[rows[place]]
                counts[place, 0] -= (~chosen).sum(1)
        return counts

    def probe(self, search: Search, rows: Tensor, k: Row, *, neighbours: bool) -> Seen:
        """What the rows look like at their thresholds; `search` and `k` are those of these rows."""
        whole = rows.shape[0] == self.scores.shape[0]
        parts = [
            self._probed(tile, Search(*(v[place] for v in search)), k[place], neighbours)
            for place, tile in self.tiles(None if whole else rows)
        ]
        return Seen(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _probed(self, tile: Tensor, search: Search, k: Row, neighbours: bool) -> Seen:
        z, side, plain = (self.space(number, tile.shape[0]) for number in range(3))
        torch.add(search.threshold[:, None], tile, alpha=self.sharpness, out=z)
        num_above = torch.gt(z, 0, out=side).sum(1)
        if neighbours:
            y, is_above = tile * self.sharpness, z > 0
            above = torch.where(is_above, y, torch.inf).amin(1)
            below = torch.where(is_above, -torch.inf, y).amax(1)
        else:
            above, below = _bounds_only(num_above, search, k)
        torch.sigmoid(z.abs_().neg_(), out=plain)  # distance from 0 or 1, whichever is nearer
        scaled = plain
        if bool((search.half_gap > 0).any()):
            scaled = torch.exp((z + search.half_gap[:, None]).clamp(max=40.0)) * torch.sigmoid(-z)
        signed = side.mul_(2).sub_(1).mul_(scaled)
        residual = -signed.sum(1)
        slope = scaled.sum(1) - torch.linalg.vecdot(scaled, plain)
        crossed = torch.linalg.vecdot(signed, plain)
        bend = residual + 3 * crossed - 2 * torch.linalg.vecdot(signed.mul_(plain), plain)
        return Seen(num_above, residual, slope, bend, above, below)


def _bounds_only(num_above: Row, search: Search, k: Row) -> tuple[Row, Row]:
    """For neighbours that were not looked for: the threshold lies between them."""
    level = -search.threshold
    at_rank = num_above == k  # there the threshold itself says nothing of the k-th and the next
    return torch.where(at_rank, torch.inf, level), torch.where(at_rank, -torch.inf, level)


def seen_in_bins(
    centres: Float[Tensor, "rows bins"], counts: Float[Tensor, "rows bins"], search: Search, k: Row
) -> Seen:
    """The same of a histogram, every entry taken to be at the middle of its bin."""
    z = centres + search.threshold[:, None]
    near = torch.sigmoid(-z.abs())
    above = z > 0
    weighted = near * counts
    signed = torch.where(above, -weighted, weighted)
    slope = weighted * (1 - near)
    bend = signed * (1 - near) * (1 - 2 * near)
    num_above = torch.where(above, counts, 0.0).sum(1)
    neighbours = _bounds_only(num_above, search, k)
    return Seen(num_above, signed.sum(1), slope.sum(1), bend.sum(1), *neighbours)
