"""What one step sees of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from margins.targets import Targets

Inputs = TypeVar("Inputs")


@dataclass(frozen=True, eq=False)
class Batch(Generic[Inputs]):
    """Rows of one micro-batch of one rank.

    Args:
        inputs: what the encoder takes.
        targets: of the same rows.
        ids: [B] int64 number of each row in the data, the same in every epoch and after a restart.
    """

    inputs: Inputs
    targets: Targets
    ids: Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.targets)
