"""Blocks that learn alone as the head of a recipe."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.encoders.base import linear
from margins.heads.no_prop import NoProp
from margins.heads.settings import HeadSettings


class NoPropHead(NoProp):
    """A `NoProp` on embeddings, as a head: its scores are the log-probabilities of its output classifier.

    It is trained by the step `no_prop` alone; no gradient goes to the encoder. What it says of a row does not
    depend on the rows beside it.

    Args:
        width: of the embedding.
        num_classes: number of scores.
        hidden: width of each block.
        num_blocks: T.
        num_draws: of the noise, whose probabilities are averaged.
        generator: draws the first weights.

    Example:
        >>> head = NoPropHead(4, 3, hidden=8, num_blocks=2, generator=torch.Generator().manual_seed(0))
        >>> head(torch.ones(2, 4)).exp().sum(1)
        tensor([1.0000, 1.0000])
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        hidden: int = 64,
        num_blocks: int = 10,
        num_draws: int = 5,
        generator: torch.Generator,
    ) -> None:
        def make_encoder(draws: torch.Generator) -> nn.Module:
            return nn.Sequential(linear(width, hidden, generator=draws), nn.ReLU())

        super().__init__(make_encoder, hidden, num_classes, num_blocks=num_blocks, generator=generator)
        self.num_draws = num_draws

    def forward(self, embeddings: Tensor) -> Tensor:
        """Log-probabilities [B, C] of embeddings [B, width]; no gradient goes through them."""
        found = self.predicted(embeddings.float(), num_draws=self.num_draws, alike=True).probabilities
        return found.clamp(min=torch.finfo(found.dtype).tiny).log()


class NoPropSettings(HeadSettings):
    """Blocks that learn alone; with the step `no_prop` and an encoder that is not trained.

    See `NoProp` for when to use it.

    Args:
        hidden: width of each block.
        num_blocks: how many take noise off the label, one after the other.
        num_draws: of the noise in predictions, whose probabilities are averaged.
    """

    name: Literal["no_prop"] = "no_prop"
    hidden: int = Field(default=64, ge=1)
    num_blocks: int = Field(default=10, ge=1)
    num_draws: int = Field(default=5, ge=1)

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> NoPropHead:
        """An untrained chain of blocks."""
        return NoPropHead(
            width, num_outputs, hidden=self.hidden, num_blocks=self.num_blocks, num_draws=self.num_draws,
            generator=generator,
        )  # fmt: skip
