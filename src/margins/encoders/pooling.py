"""From one vector a token to one a text: every way sees the real tokens alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from margins.errors import MarginsError

PoolingName = Literal["mean", "cls", "last", "attention", "layers"]
"""The tokens' mean, first or last; a learned weighting of them; one of layers, then the mean."""


class Pooling(nn.Module):
    """One vector a row out of the token states of all layers.

    A row without any token gives zeros.
    """

    @abstractmethod
    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Pools.

        Args:
            layers: token states [B, L, width] of each layer, the last layer last.
            mask: [B, L] bool, true for real tokens, wherever the padding stands.

        Returns:
            [B, width].
        """


class MeanPooling(Pooling):
    """The mean of the real tokens of the last layer.

    Example:
        >>> states, mask = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])
        >>> MeanPooling()([states], mask)
        tensor([[2.]])
    """

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        return masked_mean(layers[-1], mask)


class FirstPooling(Pooling):
    """The first real token of the last layer: the one that models of the BERT family train for it."""

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        return _token(layers[-1], mask, mask.long().argmax(1))


class LastPooling(Pooling):
    """The last real token of the last layer: the one that has seen all others in causal models."""

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        places = torch.arange(mask.shape[1], device=mask.device)
        return _token(layers[-1], mask, torch.where(mask, places, 0).amax(1))


class AttentionPooling(Pooling):
    """A weighted mean of the real tokens of the last layer.

        weight of token t = softmax over t of (h_t . q) / sqrt(width)

    The query q is learned and starts at zero: it starts as the mean.

    Args:
        width: of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        states = _cleared(layers[-1], mask)
        scores = states @ self.query / math.sqrt(states.shape[-1])
        # A row of -inf alone would give NaN; such a row is zeroed below.
        shown = mask | ~mask.any(1, keepdim=True)
        weights = scores.masked_fill(~shown, -math.inf).softmax(1) * mask
        return (weights[..., None] * states).sum(1)


class LayerPooling(Pooling):
    """A learned weighting of the layers, then the mean of the real tokens.

    The weights are a softmax over layers that starts uniform.

    Args:
        num_layers: how many layers come in.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        if len(layers) != len(self.logits):
            raise MarginsError(
                "layers", expected=f"{len(self.logits)} layers, as at the start", received=str(len(layers))
            )
        means = torch.stack([masked_mean(states, mask) for states in layers])
        return (self.logits.softmax(0)[:, None, None] * means).sum(0)


def new_pooling(name: PoolingName, *, width: int, num_layers: int) -> Pooling:
    """The pooling of this name; those that learn start as means, so nothing is drawn."""
    if name == "attention":
        return AttentionPooling(width)
    if name == "layers":
        return LayerPooling(num_layers)
    return {"mean": MeanPooling, "cls": FirstPooling, "last": LastPooling}[name]()


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean [B, width] of the states [B, L, width] where the mask [B, L] is true; zeros where it never is."""
    return _cleared(states, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _cleared(states: Tensor, mask: Tensor) -> Tensor:
    # Filled, not multiplied: what stands at padding may be NaN, and 0 * NaN is NaN.
    return states.masked_fill(~mask[..., None], 0.0)


def _token(states: Tensor, mask: Tensor, places: Tensor) -> Tensor:
    rows = torch.arange(len(states), device=states.device)
    return states[rows, places].masked_fill(~mask.any(1, keepdim=True), 0.0)
