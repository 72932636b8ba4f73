"""The plain head: one linear layer."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from margins.engine.score_rules import Dot
from margins.engine.sources import Source, factored
from margins.heads.settings import HeadSettings


class LinearHead(nn.Module):
    """Logits as an affine map of the embedding.

    Args:
        width: of the embedding.
        num_classes: number of logits.
        generator: draws the first weights.

    Example:
        >>> head = LinearHead(4, 3, generator=torch.Generator().manual_seed(0))
        >>> head(torch.ones(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, width: int, num_classes: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, width))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        bound = 1 / math.sqrt(width)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits [B, C] of embeddings [B, width]."""
        return nn.functional.linear(embeddings, self.weight, self.bias)

    def source(self, embeddings: Tensor) -> Source:
        """The same logits, for an evaluator that makes them block by block."""
        return factored(Dot(), embeddings, self.weight, self.bias)


class LinearSettings(HeadSettings):
    """A linear layer: the head to use when nothing speaks for another."""

    name: Literal["linear"] = "linear"

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> LinearHead:
        """An untrained linear head."""
        return LinearHead(width, num_outputs, generator=generator)
