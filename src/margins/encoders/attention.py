"""Transformer blocks that normalise before each step and draw from an explicit generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from margins.encoders.base import Dropout, linear
from margins.errors import MarginsError

_WIDER = 4  # hidden units of a block over its width


class TransformerBlocks(nn.Module):
    """Pre-norm blocks of self-attention and a perceptron.

    Args:
        width: of the states; a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        dropout: share of the values left out of what each step adds.
        generator: draws the first weights and the dropout.

    Example:
        >>> blocks = TransformerBlocks(width=8, depth=1, heads=2, generator=torch.Generator().manual_seed(0))
        >>> [states.shape for states in blocks(torch.zeros(2, 3, 8), torch.ones(2, 3, dtype=torch.bool))]
        [torch.Size([2, 3, 8]), torch.Size([2, 3, 8])]
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, dropout: float = 0.0, generator: torch.Generator
    ) -> None:
        super().__init__()
        if width % heads:
            raise MarginsError(
                "width, heads", expected="a width that the heads divide", received=f"{width}, {heads}"
            )
        self.blocks = nn.ModuleList(_Block(width, heads, dropout, generator) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """States [B, L, width] before the first block and after each; the last are normalised once more.

        Args:
            states: [B, L, width].
            mask: [B, L] bool, true for real tokens, at least one a row; None where all are real.
        """
        shown = None if mask is None else mask[:, None, None, :]
        layers = [states]
        for block in self.blocks:
            layers.append(block(layers[-1], shown))
        layers[-1] = self.norm(layers[-1])
        return layers


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.hidden_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.incoming = linear(width, 3 * width, generator=generator)
        self.outgoing = linear(width, width, generator=generator)
        self.hidden = nn.Sequential(
            linear(width, _WIDER * width, generator=generator),
            nn.GELU(),
            linear(_WIDER * width, width, generator=generator),
        )
        self.dropout = Dropout(dropout, generator=generator)

    def forward(self, states: Tensor, shown: Tensor | None) -> Tensor:
        states = states + self.dropout(self.outgoing(self._attended(self.attention_norm(states), shown)))
        return states + self.dropout(self.hidden(self.hidden_norm(states)))

    def _attended(self, states: Tensor, shown: Tensor | None) -> Tensor:
        num, length, width = states.shape
        split = self.incoming(states).reshape(num, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=shown)
        return attended.transpose(1, 2).reshape(num, length, width)
