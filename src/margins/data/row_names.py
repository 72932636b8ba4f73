"""Rows as users count them: row 1 is the first, below the header where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import polars as pl

_MOST_LISTED = 5


def named_rows(places: npt.NDArray[np.int64]) -> str:
    """Some rows for a message.

    Example:
        >>> named_rows(np.array([0, 4]))
        'rows 1, 5'
    """
    shown = ", ".join(str(place + 1) for place in places[:_MOST_LISTED].tolist())
    more = f" and {len(places) - _MOST_LISTED} more" if len(places) > _MOST_LISTED else ""
    return f"{'row' if len(places) == 1 else 'rows'} {shown}{more}"


def true_rows(mask: pl.Series) -> npt.NDArray[np.int64]:
    """Places where a column of booleans holds; null counts as false."""
    return np.flatnonzero(mask.fill_null(value=False).to_numpy())
