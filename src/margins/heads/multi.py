"""Several heads on one embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.errors import MarginsError
from margins.heads.cosine import CosineSettings
from margins.heads.linear import LinearSettings
from margins.heads.projection import ProjectionSettings
from margins.heads.settings import HeadSettings

SingleHead = Annotated[LinearSettings | CosineSettings | ProjectionSettings, Field(discriminator="name")]


class MultiHead(nn.Module):
    """Named heads, each of which sees the same embedding.

    Args:
        heads: by name.

    Example:
        >>> from margins.heads.linear import LinearHead
        >>> generator = torch.Generator().manual_seed(0)
        >>> head = MultiHead({"topic": LinearHead(4, 7, generator=generator)})
        >>> head(torch.ones(2, 4))["topic"].shape
        torch.Size([2, 7])
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise MarginsError("heads", expected="at least one head", received="none")
        # A list, for names are the user's and a ModuleDict refuses some ("type", "a.b").
        self.names = list(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(self, embeddings: Tensor) -> dict[str, Tensor]:
        """What each head makes of embeddings [B, width]."""
        return {name: head(embeddings) for name, head in zip(self.names, self.heads, strict=True)}


class MultiSettings(HeadSettings):
    """Several heads at once, for several targets of the same rows.

    Args:
        heads: settings by name.
        sizes: number of outputs of a head; one that is not named here has as many as `build` is asked for.
    """

    name: Literal["multi"] = "multi"
    heads: dict[str, SingleHead] = Field(min_length=1)
    sizes: dict[str, int] = Field(default_factory=dict[str, int])

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> MultiHead:
        """Untrained heads, drawn in their order.

        Raises:
            MarginsError: a size of a head that is not there, or less than 1.
        """
        wrong = {name: size for name, size in self.sizes.items() if name not in self.heads or size < 1}
        if wrong:
            raise MarginsError(
                "sizes", expected=f"at least 1, for heads among {', '.join(self.heads)}", received=str(wrong)
            )
        return MultiHead(
            {
                name: head.build(width, self.sizes.get(name, num_outputs), generator=generator)
                for name, head in self.heads.items()
            }
        )
