"""Memory of a block's size that is used again for block after block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch:
    """Buffers that are taken and given back in reverse order; one is allocated when it is first needed.

    Args:
        like: dtype and device.
        size: elements of the largest block.
    """

    def __init__(self, like: Tensor, size: int) -> None:
        self._like, self._size = like, size
        self._buffers: list[Tensor] = []
        self._taken = 0

    def take(self, shape: Sequence[int]) -> Tensor:
        """A buffer that nobody else holds, as a tensor of a shape; what is in it is not defined."""
        if self._taken == len(self._buffers):
            self._buffers.append(torch.empty(self._size, dtype=self._like.dtype, device=self._like.device))
        buffer = self._buffers[self._taken]
        self._taken += 1
        height, width = shape
        return buffer[: height * width].view(height, width)

    def release(self, count: int = 1) -> None:
        """Gives back the buffers taken last."""
        self._taken -= count

    def release_all(self) -> None:
        """Gives back all buffers: the next block begins."""
        self._taken = 0
