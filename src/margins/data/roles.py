"""The three roles of rows, as types: what fits cannot be handed the rows that judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, Self

from torch import Tensor

from margins.errors import MarginsError


class RowInputs(Protocol):
    """Inputs of rows, in whatever storage an encoder wants."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def take(self, rows: Tensor) -> Self:
        """The inputs of these rows, in this order."""
        ...


@dataclass(frozen=True, eq=False)
class _Rows:
    inputs: RowInputs
    labels: Tensor  # [B] int64

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels) or not len(self.labels):
            raise MarginsError(
                "inputs, labels",
                expected="the same number of rows, at least one",
                received=f"{len(self.inputs)} and {len(self.labels)}",
            )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)


class TrainRows(_Rows):
    """Rows that gradients and fitted preprocessing may see."""


class SelectRows(_Rows):
    """Rows for early stopping and for the choice of thresholds and models; never for gradients."""


@dataclass(eq=False)
class ReportRows:
    """Rows that score a finished model. Every opening is counted, so that a second look shows."""

    _inputs: RowInputs
    _labels: Tensor
    openings: int = field(default=0, init=False)

    def open(self) -> tuple[RowInputs, Tensor]:
        """The inputs and labels; call it once, when nothing is left to decide."""
        self.openings += 1
        return self._inputs, self._labels
