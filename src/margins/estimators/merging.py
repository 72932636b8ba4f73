"""Rows that are the same become one that weighs as much, in an order that does not depend on theirs.

So a row of weight 2 is the row twice, one of weight 0 is none, copies never lie in two roles, and the same
rows in another order train the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from margins.data.columns import InputKind
from margins.data.frame import Frame

if TYPE_CHECKING:
    import polars as pl

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MergedRows:
    """Different rows with their targets.

    Args:
        frame: the inputs.
        kinds: of its columns.
        target: one cell a row.
        weight: [N] above 0.
    """

    frame: Frame
    kinds: dict[str, InputKind]
    target: pl.Series
    weight: Floats

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)


def merged(frame: Frame, kinds: dict[str, InputKind], target: pl.Series, weight: Floats) -> MergedRows:
    """The different rows that weigh something, in the order of their cells.

    Args:
        frame: the inputs.
        kinds: of its columns.
        target: one cell a row.
        weight: [N] not negative, not all 0.

    Example:
        >>> import polars as pl
        >>> from margins.data.reading import read_frame
        >>> frame = read_frame({"x": [2.0, 1.0, 2.0, 3.0]})
        >>> rows = merged(frame, {"x": "numeric"}, pl.Series("y", [0, 1, 0, 1]), np.array([1, 1, 1.5, 0]))
        >>> rows.frame.table["x"].to_list(), rows.target.to_list(), rows.weight.tolist()
        ([1.0, 2.0], [1, 0], [1.0, 2.5])
    """
    counted = np.flatnonzero(weight > 0)
    keys = _keys(frame, target)[counted]
    # Equal rows by weight, so that their sum does not depend on the order either.
    order = np.lexsort((weight[counted], keys))
    _, first, place = np.unique(keys[order], return_index=True, return_inverse=True)
    rows = counted[order]
    summed = np.bincount(place, weights=weight[rows]).astype(np.float64)
    chosen = torch.from_numpy(rows[first])
    return MergedRows(frame.take(chosen), kinds, target[rows[first]], summed)


def _keys(frame: Frame, target: pl.Series) -> npt.NDArray[np.int64]:
    """[N] the place of each row among the different ones, by its cells."""
    import polars as pl

    columns = [frame.table[name] for name in frame.names] + [target]
    table = pl.DataFrame([_comparable(cells).alias(str(k)) for k, cells in enumerate(columns)])
    return np.array(table.select(pl.struct(pl.all()).rank("dense")).to_series().to_numpy(), dtype=np.int64)


def _comparable(cells: pl.Series) -> pl.Series:
    """Cells that have an order: arrays by their numbers, one after the other."""
    import polars as pl

    if isinstance(cells.dtype, pl.Array):
        flat = np.array(cells.to_numpy()).reshape(len(cells), -1)
        return pl.DataFrame(flat, schema=[str(k) for k in range(flat.shape[1])]).to_struct("cells")
    return cells + 0.0 if cells.dtype == pl.Float64 else cells  # -0.0 becomes 0.0
