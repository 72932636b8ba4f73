"""Heads that read the states of all tokens of a row, where others see one embedding of it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from margins.errors import MarginsError, describe


class TokenHead(nn.Module):
    """A head of token states; in a network its encoder is a `margins.encoders.TokenEncoder`.

    Args:
        width: of the states, at least 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise MarginsError("width", expected="at least 1", received=str(width))
        self.width = width

    @abstractmethod
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits [B, C].

        Args:
            states: [B, L, width]; what stands at padding is not looked at.
            mask: [B, L] bool, true for real tokens, wherever the padding stands.
        """

    def real(self, states: Tensor, mask: Tensor) -> Tensor:
        """The states with zeros at padding, once they and the mask are known to fit."""
        if states.ndim != 3 or states.shape[2] != self.width:
            raise MarginsError("states", expected=f"[B, L, {self.width}]", received=describe(states))
        if mask.shape != states.shape[:2] or mask.dtype != torch.bool:
            raise MarginsError(
                "mask", expected=f"{list(states.shape[:2])} bool, true for real tokens",
                received=describe(mask),
            )  # fmt: skip
        # Filled, not multiplied: what stands at padding may be NaN, and 0 * NaN is NaN.
        return states.masked_fill(~mask[..., None], 0.0)


def softmax_of_real(energies: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where the mask is true, 0 elsewhere and in rows without; float32 at least.

    Args:
        energies: [..., L].
        mask: what can be expanded to it, bool.
    """
    energies = energies if energies.dtype == torch.float64 else energies.float()
    # A row of -inf alone would give NaN: it is shown whole, and emptied after.
    shown = mask | ~mask.any(-1, keepdim=True)
    return energies.masked_fill(~shown, -torch.inf).softmax(-1) * mask
