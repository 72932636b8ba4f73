"""Labels as scikit-learn users hold them, of any type, and as the house holds them, as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from margins.data.coding import as_names
from margins.data.extras import extra
from margins.errors import MarginsError

with extra("tool"):
    import polars as pl
    from sklearn.utils.multiclass import check_classification_targets

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class CodedLabels:
    """Labels of rows.

    Args:
        different: sorted, as they came.
        cells: of each row, as text.
    """

    different: Array
    cells: pl.Series

    def among(self, cells: pl.Series) -> Array:
        """The different labels that stand in some of these cells."""
        there = set(cells.to_list())
        return self.different[[name in there for name in names_of(self.different)]]


def coded_labels(target: Array, *, name: str) -> CodedLabels:
    """The labels of a target [N].

    Raises:
        MarginsError: two labels that read the same.
        ValueError: numbers that are no labels.

    Example:
        >>> coded = coded_labels(np.array([2.0, 1.0, 2.0]), name="y")
        >>> coded.different, coded.cells.to_list()
        (array([1., 2.]), ['2', '1', '2'])
    """
    check_classification_targets(target)
    different, places = np.unique(target, return_inverse=True)
    names = pl.Series(name, names_of(different))
    if names.n_unique() < len(names):
        twice = names.filter(names.is_duplicated())[0]
        raise MarginsError(
            "y", expected="labels that read differently", received=f"{twice!r} for two of them"
        )
    return CodedLabels(different, names[places])


def names_of(labels: Array) -> list[str]:
    """Labels as text, whole numbers without a point."""
    return as_names(pl.Series("y", labels.tolist())).to_list()
