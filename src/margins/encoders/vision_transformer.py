"""A small transformer over the patches of an image."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.encoders.attention import TransformerBlocks
from margins.encoders.base import Dropout, linear
from margins.encoders.images import ImageEncoder, Images, ImageSettings

_PATCHES_A_SIDE = 7


class SmallViTSettings(ImageSettings):
    """A small vision transformer, trained from scratch.

    Use it where patches far apart must be related and there are many training images; with few, or with small
    ones, `small_resnet` learns faster.

    Args:
        size: see `ImageSettings`.
        shift: see `ImageSettings`.
        patch: side of the square patches; None for a seventh of the longer side, rounded up.
        width: of the states and of the embedding; a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        dropout: share of the values left out of what each step adds.
    """

    name: Literal["small_vit"] = "small_vit"
    patch: int | None = Field(default=None, ge=1)
    width: int = Field(default=128, ge=1)
    depth: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @property
    def has_tokens(self) -> bool:
        """Its patches."""
        return True

    def build(self, preparation: Any, *, generator: torch.Generator) -> SmallViT:
        """An untrained network for images of this size."""
        return SmallViT(
            size=(preparation.height, preparation.width),
            colours=preparation.channels,
            patch=self.patch,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            dropout=self.dropout,
            shift=self.shift,
            generator=generator,
        )


class SmallViT(ImageEncoder):
    """Patches as tokens with learned places, pre-norm blocks, the mean of the tokens.

    Args:
        size: height and width of the images; the last patches are filled up with the training mean.
        colours: 1 or 3.
        patch: side of the square patches; None for a seventh of the longer side, rounded up.
        width: of the states and of the embedding; a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        dropout: share of the values left out of what each step adds.
        shift: pixels by which training images are moved at most.
        generator: draws the first weights, the moves and the dropout.

    Example:
        >>> from margins.encoders.images import Images
        >>> network = SmallViT(size=(9, 5), width=8, generator=torch.Generator().manual_seed(0))
        >>> network(Images(torch.zeros(2, 1, 9, 5, dtype=torch.uint8))).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        colours: int = 1,
        patch: int | None = None,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
        shift: int = 0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(channels=colours, shift=shift, generator=generator)
        self.width = width
        self.patch = patch or math.ceil(max(size) / _PATCHES_A_SIDE)
        rows, columns = (math.ceil(side / self.patch) for side in size)
        self.grid = (rows, columns)
        self.patches = linear(colours * self.patch**2, width, generator=generator)
        self.places = nn.Parameter(torch.empty(rows * columns, width))
        nn.init.normal_(self.places, std=1 / math.sqrt(width), generator=generator)
        self.dropout = Dropout(dropout, generator=generator)
        self.blocks = TransformerBlocks(
            width=width, depth=depth, heads=heads, dropout=dropout, generator=generator
        )

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings [B, width] of normalised images [B, colours, height, width]."""
        return self.states(images).mean(1)

    def tokens(self, inputs: Images) -> tuple[Tensor, Tensor]:
        """States [B, L, width] of the patches, row by row, all of them real."""
        if len(inputs):
            states = self.states(self.seen(inputs.pixels))
        else:
            states = self.places.new_zeros(0, *self.places.shape)
        return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)

    def states(self, images: Tensor) -> Tensor:
        """States [B, L, width] of the patches of normalised images [B, colours, height, width]."""
        below, beside = (-images.shape[axis] % self.patch for axis in (2, 3))
        filled = nn.functional.pad(images, (0, beside, 0, below))
        tokens = nn.functional.unfold(filled, self.patch, stride=self.patch).transpose(1, 2)
        return self.blocks(self.dropout(self.patches(tokens) + self.places))[-1]
