"""Embeddings for comparing rows with each other, rather than scores of classes."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.encoders.base import linear
from margins.heads.settings import HeadSettings


class ProjectionHead(nn.Module):
    """A small perceptron to `dim` numbers a row, of length one if asked for.

    Use it for metric learning and retrieval, whose losses compare embeddings.

    Args:
        width: of the embedding that comes in.
        dim: of the one that goes out.
        depth: linear layers; all but the last keep `width` and end in ReLU.
        normalise: whether each row is scaled to length one; a row of zeros stays zeros.
        generator: draws the first weights.

    Example:
        >>> head = ProjectionHead(4, dim=2, generator=torch.Generator().manual_seed(0))
        >>> bool(torch.isclose(head(torch.ones(1, 4)).norm(), torch.tensor(1.0)))
        True
    """

    def __init__(
        self,
        width: int,
        *,
        dim: int = 128,
        depth: int = 2,
        normalise: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [linear(width, width, generator=generator), nn.ReLU()]
        self.layers = nn.Sequential(*layers, linear(width, dim, generator=generator))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings [B, dim] of embeddings [B, width]."""
        projected = self.layers(embeddings)
        return nn.functional.normalize(projected, dim=-1) if self.normalise else projected


class ProjectionSettings(HeadSettings):
    """A projection; see `ProjectionHead` for when to use it. It has `dim` outputs, however many classes.

    Args:
        dim: of the embedding that goes out.
        depth: linear layers.
        normalise: whether each row is scaled to length one.
    """

    name: Literal["projection"] = "projection"
    dim: int = Field(default=128, ge=1)
    depth: int = Field(default=2, ge=1)
    normalise: bool = True

    def build(self, width: int, num_outputs: int = 0, *, generator: torch.Generator) -> ProjectionHead:
        """An untrained projection; `num_outputs` is not asked for, for there are no classes to score."""
        return ProjectionHead(
            width, dim=self.dim, depth=self.depth, normalise=self.normalise, generator=generator
        )
