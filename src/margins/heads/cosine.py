"""Class scores that depend on directions alone."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.errors import MarginsError
from margins.heads.settings import HeadSettings


class CosineHead(nn.Module):
    """The cosine of embedding and class vector over a temperature.

        logits_ij = cos(x_i, w_j) / temperature

    Use it with margins on angles, with many or rare classes (no class wins by the length of its vector), and
    for embeddings that are to be compared later. An embedding of zeros scores 0 for every class.

    Args:
        width: of the embedding.
        num_classes: number of logits.
        temperature: positive; the start when it is learned.
        learn_temperature: whether it is trained too, as its logarithm, so that it stays positive.
        generator: draws the first class vectors, uniform in direction.

    Example:
        >>> head = CosineHead(2, 1, temperature=0.5, generator=torch.Generator().manual_seed(0))
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[0.0, 3.0]]))
        >>> head(torch.tensor([[0.0, 5.0], [1.0, 0.0]])).tolist()
        [[2.0], [0.0]]
    """

    log_temperature: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        temperature: float = 0.05,
        learn_temperature: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise MarginsError("temperature", expected="a positive number", received=str(temperature))
        self.weight = nn.Parameter(torch.empty(num_classes, width))
        nn.init.normal_(self.weight, std=1 / math.sqrt(width), generator=generator)
        start = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(start)
        else:
            self.register_buffer("log_temperature", start)

    @property
    def temperature(self) -> Tensor:
        """What the cosines are divided by."""
        return self.log_temperature.exp()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits [B, C] of embeddings [B, width]."""
        unit = nn.functional.normalize(embeddings, dim=-1)
        return nn.functional.linear(unit, nn.functional.normalize(self.weight, dim=-1)) / self.temperature


class CosineSettings(HeadSettings):
    """A cosine head; see `CosineHead` for when to use it.

    Args:
        temperature: positive; the start when it is learned.
        learn_temperature: whether it is trained too.
    """

    name: Literal["cosine"] = "cosine"
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    learn_temperature: bool = False

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> CosineHead:
        """An untrained cosine head."""
        return CosineHead(
            width,
            num_outputs,
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
            generator=generator,
        )
