"""The weights of rows, checked."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from margins.data.columns import Columns
from margins.data.frame import Frame
from margins.data.row_names import named_rows, true_rows
from margins.errors import MarginsError


def weights(frame: Frame, columns: Columns) -> Float64[Tensor, " rows"] | None:
    """The weight of each row, None when no column holds any.

    Raises:
        MarginsError: a weight that is missing, negative or not finite, with its row; or nothing but zeros.

    Example:
        >>> import polars as pl
        >>> frame = Frame(table=pl.DataFrame({"w": [1.0, 0.5]}), source="data frame", fingerprint="")
        >>> weights(frame, Columns(inputs={}, weight="w"))
        tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    if columns.weight is None:
        return None
    cells = frame.table[columns.weight]
    argument = f"weight {columns.weight!r}"
    if not cells.dtype.is_numeric():
        raise MarginsError(argument, expected="numbers", received=f"{cells.dtype} cells")
    missing = true_rows(cells.is_null())
    if len(missing):
        raise MarginsError(
            argument,
            expected="a number in every row",
            received=f"an empty cell in {named_rows(missing)}",
            fix="write 1 for a row that counts as usual",
        )
    values = np.array(cells.to_numpy(), dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise MarginsError(
            argument,
            expected="finite numbers of at least 0",
            received=f"{values[wrong[0]]:g} in {named_rows(wrong)}",
            fix="correct or drop these rows",
        )
    if not values.any():
        raise MarginsError(argument, expected="a row that weighs something", received="0 in every row")
    return torch.from_numpy(values)
