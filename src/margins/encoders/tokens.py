"""States of the parts of a row, of its words or its patches, for heads that read them one by one."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from margins.data.frame import Frame


@runtime_checkable
class TokenEncoder(Protocol):
    """An encoder that gives the states of all tokens of a row, beside their one embedding."""

    width: int

    def tokens(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """States [B, L, width] and which of them are real, [B, L] bool; the row's padding may hold anything.

        Every row has the same tokens whatever stands beside it in the batch, and B may be 0.
        """
        ...


@runtime_checkable
class TokenNames(Protocol):
    """A preparation that knows what the tokens of a row are called."""

    def token_names(self, frame: Frame) -> list[list[str]]:
        """The tokens of each row, in the order of their states."""
        ...


@runtime_checkable
class TokenGrid(Protocol):
    """An encoder whose tokens lie on a grid, row after row, the same for every input."""

    grid: tuple[int, int]
