"""How large the blocks of scores are: as large as the cache serves well, never larger than memory."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from margins.engine.blocks.fused import Kernels, kernels_on
from margins.engine.free_memory import free_bytes
from margins.errors import MarginsError

_TILES = 5  # scores, terms, gradient, and what phi and its derivative leave behind
_MOST_ROWS = 1024
_FEWEST_COLUMNS = 512
_CACHES = 2  # a block is so many second-level caches: fewer and Python is felt, more and memory is
_DEVICE_TILE = 1 << 26, 1 << 28  # bytes of a block on an accelerator, whose kernels want long work
_KEPT = 1 << 24  # bytes of scores that are kept where nothing else was asked for
_AT_ONCE = 1 << 25  # bytes of whole rows of scores; they pay from so many rows and numbers a vector on:
_FEWEST_AT_ONCE, _LONG = 512, 256
_CACHE_FILE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


@dataclass(frozen=True)
class BlockPlan:
    """A division of anchors x candidates into blocks.

    Args:
        num_anchors: B.
        num_candidates: C.
        rows: anchors a block.
        columns: candidates a block.
        bytes: the most memory that a pass and its backward hold beyond inputs and their gradients, as
            predicted from the sizes: five blocks, prepared vectors, and scores that are kept.
        keeps_scores: whether the blocks of a pass are kept for later passes and for backward, instead of
            being made again; under rules that are inner products.
        rows_at_once: anchors whose whole rows of scores are kept until their gradient is found, with the
            value, where such a rule's loss is reduced to one number; None where they are found apart.
        kernels: "compiled" where torch's compiler fuses the steps over a block, "torch" where they run
            one by one.
    """

    num_anchors: int
    num_candidates: int
    rows: int
    columns: int
    bytes: int
    keeps_scores: bool = False
    rows_at_once: int | None = None
    kernels: Kernels = "torch"

    def row_spans(self) -> list[tuple[int, int]]:
        """First and last anchor of each stripe of blocks."""
        return _spans(self.num_anchors, self.rows)

    def column_spans(self) -> list[tuple[int, int]]:
        """First and last candidate of each block of a stripe."""
        return _spans(self.num_candidates, self.columns)


def planned(
    num_anchors: int,
    num_candidates: int,
    dim: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
    block_size: int | None,
    row_block_size: int | None,
    keep_bytes: int | None,
) -> BlockPlan:
    """Blocks of the sizes that were asked for; what was left open follows the cache.

    Raises:
        MarginsError: the memory of one block is not there.
    """
    item = dtype.itemsize
    whole = num_anchors * num_candidates * item
    tile = (_CACHES * cache_bytes() if device.type == "cpu" else _device_tile(whole)) // item
    rows = min(num_anchors, row_block_size or max(_MOST_ROWS, tile // max(num_candidates, 1)))
    columns = min(num_candidates, block_size or max(_FEWEST_COLUMNS, tile // max(rows, 1)))
    is_free = block_size is None and row_block_size is None and keep_bytes is None
    if keep_bytes is None:
        keep_bytes = _KEPT if is_free else 0
    keeps = whole <= keep_bytes
    may = is_free and not keeps and device.type == "cpu"  # kernels of an accelerator want longer blocks
    at_once = _whole_rows(num_anchors, num_candidates, dim, item) if may else None
    held = whole if keeps else (at_once or 0) * num_candidates * item
    needed = (_TILES * rows * columns + num_anchors * dim) * item + held
    free = free_bytes(device)
    if needed > free:
        raise MarginsError(
            "block_size",
            expected=f"blocks that fit the {free / 2**20:,.0f} MiB of free memory",
            received=f"blocks of {rows} x {columns}, which need {needed / 2**20:,.0f} MiB",
            fix="leave block_size and row_block_size out, or give smaller ones",
        )
    return BlockPlan(num_anchors, num_candidates, rows, columns, needed, keeps, at_once, kernels_on(device))


def _whole_rows(num_anchors: int, num_candidates: int, dim: int, item: int) -> int | None:
    """How many rows are worth being kept whole until their gradient is found."""
    rows = min(num_anchors, _AT_ONCE // max(1, num_candidates * item))
    return rows if rows >= _FEWEST_AT_ONCE and dim >= _LONG else None


def _device_tile(whole: int) -> int:
    """Bytes of a block on an accelerator: a sixteenth of all scores, within bounds."""
    least, most = _DEVICE_TILE
    return max(least, min(most, whole // 16))


@functools.cache
def cache_bytes() -> int:
    """Second-level cache of one core in bytes; 1 MiB where the system does not say."""
    units = {"K": 1 << 10, "M": 1 << 20}
    text = _CACHE_FILE.read_text().strip() if _CACHE_FILE.exists() else ""
    if text[-1:] in units and text[:-1].isdigit():
        return max(int(text[:-1]) * units[text[-1]], 1 << 18)
    return 1 << 20


def _spans(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, max(size, 1))]
