"""Rows with named columns, wherever they came from: the one form in which data enter the house."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A table in memory.

    Args:
        table: the cells. Embeddings are `Array(Float32, d)` columns, images in memory `Array(UInt8, (h, w))`
            or `Array(UInt8, (h, w, c))`, images on disk a column of paths relative to `folder`.
        source: what a message calls it: the file's name without its folder, or "data frame".
        fingerprint: sha256 of the content (names, types and cells of the columns), the same whatever file
            format it came from.
        folder: where relative paths of images start; None when there are none.
        notes: what was odd but usable, one sentence each.
    """

    table: pl.DataFrame
    source: str
    fingerprint: str
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of rows."""
        return self.table.height

    @property
    def names(self) -> list[str]:
        """The columns, in order."""
        return self.table.columns

    def take(self, rows: Tensor) -> Self:
        """The rows of these numbers, in this order; the fingerprint stays that of the whole."""
        return replace(self, table=self.table[rows.numpy()])

    def only(self, columns: list[str]) -> Self:
        """The same rows with these columns only."""
        return replace(self, table=self.table.select(columns))

    def floats(self, column: str) -> Tensor:
        """A column of numbers [N] or of embeddings [N, d] as a tensor of its own memory."""
        return torch.from_numpy(np.array(self.table[column].to_numpy()))
