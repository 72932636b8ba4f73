"""Inputs of rows as tensors: taken by row, moved to a device, joined."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TensorRows:
    """Inputs whose every field is a tensor with one entry a row along its first axis.

    Example:
        >>> @dataclass(frozen=True, eq=False)
        ... class Points(TensorRows):
        ...     place: Tensor
        >>> Points(torch.arange(4)).take(torch.tensor([3, 0])).place
        tensor([3, 0])
    """

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._tensors()[0])

    def take(self, rows: Tensor) -> Self:
        """These rows, in this order."""
        return type(self)(*(t.index_select(0, rows.to(t.device)) for t in self._tensors()))

    def to(self, device: torch.device | str) -> Self:
        """The same rows on a device."""
        return type(self)(*(t.to(device, non_blocking=True) for t in self._tensors()))

    def joined(self, other: Self) -> Self:
        """These rows and then the other ones."""
        both = zip(self._tensors(), other._tensors(), strict=True)
        return type(self)(*(torch.cat(pair) for pair in both))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two inputs a row: a text and the text that it is compared with."""

    first: Any
    second: Any

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.first)

    def take(self, rows: Tensor) -> Pairs:
        """The pairs of these rows, in this order."""
        return Pairs(self.first.take(rows), self.second.take(rows))

    def to(self, device: torch.device | str) -> Pairs:
        """The same pairs on a device."""
        return Pairs(self.first.to(device), self.second.to(device))


@dataclass(frozen=True, eq=False)
class Parts:
    """Several inputs a row, by name: at least one, all with the same rows."""

    parts: dict[str, Any]

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.parts.values())))

    def take(self, rows: Tensor) -> Parts:
        """These rows of every part, in this order."""
        return Parts({name: part.take(rows) for name, part in self.parts.items()})

    def to(self, device: torch.device | str) -> Parts:
        """The same rows on a device."""
        return Parts({name: part.to(device) for name, part in self.parts.items()})


def ragged_entries(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where the entries of these rows lie, and their own offsets, of rows with differing numbers of entries.

    Args:
        offsets: [N + 1] row i owns the entries offsets[i] to offsets[i + 1].
        rows: [B] row numbers.

    Returns:
        places [E] and offsets [B + 1].

    Example:
        >>> ragged_entries(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 0]))
        (tensor([2, 3, 4, 0, 1]), tensor([0, 3, 5]))
    """
    rows = rows.to(offsets.device)
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    taken = torch.zeros(len(rows) + 1, dtype=torch.int64, device=offsets.device)
    torch.cumsum(lengths, 0, out=taken[1:])
    num = int(taken[-1])
    shifts = torch.repeat_interleave(starts - taken[:-1], lengths, output_size=num)
    return torch.arange(num, device=offsets.device) + shifts, taken
