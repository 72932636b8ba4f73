"""Coding of numbers to be predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.data.coding import TargetCoding
from margins.data.columns import TargetKind
from margins.data.row_names import named_rows, true_rows
from margins.errors import MarginsError
from margins.targets import Targets

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ValueCoding(TargetCoding):
    """A finite number in each row, standardised by the mean and deviation of the training rows.

    Args:
        name: of the column.
        mean: of the training rows.
        deviation: their standard deviation, above 0.

    Example:
        >>> import polars as pl
        >>> coding = ValueCoding.fit(pl.Series("price", [1.0, 3.0]))
        >>> coding.mean, coding.deviation
        (2.0, 1.0)
        >>> coding.restored(torch.tensor([-1.0, 0.0]))
        tensor([1., 2.])
    """

    kind: ClassVar[TargetKind] = "value"

    name: str
    mean: float
    deviation: float
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def fit(cls, cells: pl.Series) -> Self:
        """Mean and deviation of these cells: give it those of the training rows.

        Raises:
            MarginsError: a cell that is no finite number, or the same number in every row.
        """
        values = _finite(cells)
        deviation = float(values.std()) if len(values) else 0.0
        if not deviation > 1e-12 * float(np.abs(values).max(initial=0.0)):
            received = f"{values[0]:g} in every row" if len(values) else "no rows"
            raise MarginsError(
                f"target {cells.name!r}",
                expected="numbers that differ",
                received=received,
                fix="choose another column with target=",
            )
        return cls(cells.name, float(values.mean()), deviation)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def targets(self, cells: pl.Series) -> Targets:
        values = (_finite(cells) - self.mean) / self.deviation
        return Targets.of_values(torch.from_numpy(values).float())

    def restored(self, values: Tensor) -> Tensor:
        """Predictions in the column's own unit."""
        return values * self.deviation + self.mean

    def to_data(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "mean": self.mean, "deviation": self.deviation}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        mean, deviation = float(data["mean"]), float(data["deviation"])
        if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
            raise MarginsError(
                "mean, deviation",
                expected="finite numbers, the deviation above 0",
                received=f"{mean}, {deviation}",
            )
        return cls(data["name"], mean, deviation)


def _finite(cells: pl.Series) -> npt.NDArray[np.float64]:
    import polars as pl

    argument = f"target {cells.name!r}"
    if not cells.dtype.is_numeric():
        raise MarginsError(
            argument,
            expected="numbers",
            received=f"{cells.dtype} cells",
            fix="clean the column so that every filled cell is a number, or say target_kind='label'",
        )
    floats = cells.cast(pl.Float64)
    wrong = true_rows(floats.is_null() | ~floats.is_finite())
    if len(wrong):
        first = floats[int(wrong[0])]
        raise MarginsError(
            argument,
            expected="a finite number in every row",
            received=f"{'an empty cell' if first is None else first} in {named_rows(wrong)}",
            fix="fill in, correct or drop these rows (row 1 is the first)",
        )
    return np.array(floats.to_numpy())
