"""The three roles of rows, as types: what fits cannot be handed the rows that judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from torch import Tensor

from margins.data.batch import Batch
from margins.errors import MarginsError
from margins.targets import Targets


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
    """Rows with their inputs and targets.

    Args:
        inputs: what the encoder takes.
        targets: what the rows should score high, as many rows.
        ids: [B] int64 number of each row in the data it comes from; counted from 0 when None.
    """

    inputs: RowInputs
    targets: Targets
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or not len(self.targets):
            raise MarginsError(
                "inputs, targets",
                expected="the same number of rows, at least one",
                received=f"{len(self.inputs)} and {len(self.targets)}",
            )
        if self.ids is not None and len(self.ids) != len(self.targets):
            raise MarginsError(
                "ids", expected=f"[B] = [{len(self.targets)}]", received=str(list(self.ids.shape))
            )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.targets)

    def batch(self, rows: Tensor) -> Batch[Any]:
        """The rows of these numbers, in this order."""
        ids = rows if self.ids is None else self.ids[rows]
        return Batch(self.inputs.take(rows), self.targets.take(rows), ids)

    def class_ids(self) -> Tensor:
        """[B] the class of each row.

        Raises:
            MarginsError: rows do not have exactly one class each.
        """
        return class_ids(self.targets)


class TrainRows(_Rows):
    """Rows that gradients and fitted preprocessing may see."""


class SelectRows(_Rows):
    """Rows for early stopping and for the choice of thresholds and models; never for gradients."""


@dataclass(eq=False)
class ReportRows:
    """Rows that score a finished model. Every opening is counted, so that a second look shows."""

    _inputs: RowInputs
    _targets: Targets
    openings: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._targets)

    def open(self) -> tuple[RowInputs, Targets]:
        """The inputs and targets; call it once, when nothing is left to decide."""
        self.openings += 1
        return self._inputs, self._targets


def class_ids(targets: Targets) -> Tensor:
    """[B] the class of each row of targets that have exactly one.

    Example:
        >>> import torch
        >>> class_ids(Targets.of_classes(torch.tensor([2, 0]), num_classes=3))
        tensor([2, 0])
    """
    if not targets.has_one_positive:
        raise MarginsError("targets", expected="one class a row", received=repr(targets))
    return targets.positives().columns
