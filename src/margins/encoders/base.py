"""What every encoder offers, and the parts that draw from a generator that is passed."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from margins.data.roles import RowInputs
from margins.errors import MarginsError

Inputs = TypeVar("Inputs", bound=RowInputs)


class Encoder(nn.Module, Generic[Inputs]):
    """Turns inputs of rows into embeddings `[B, width]`."""

    width: int

    @abstractmethod
    def fit(self, inputs: Inputs) -> None:
        """Learns what preprocessing needs (means, document frequencies); give it training rows only."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Embeddings [B, width]."""


class Dropout(nn.Module):
    """Inverted dropout that draws from its own generator, so that no global random state is touched."""

    def __init__(self, probability: float, *, generator: torch.Generator) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise MarginsError("probability", expected="a number in [0, 1)", received=str(probability))
        self.probability = probability
        self.generator = generator

    def forward(self, values: Tensor) -> Tensor:
        """In training, values at random set to 0 and the others scaled up; otherwise the values."""
        if not self.training or self.probability == 0:
            return values
        kept = torch.rand(values.shape, generator=self.generator) >= self.probability
        return values * kept / (1 - self.probability)


def linear(num_in: int, num_out: int, *, generator: torch.Generator) -> nn.Linear:
    """A linear layer that starts as `nn.Linear` does, drawn from `generator`."""
    # Made without numbers first: its own start would draw from the global generator.
    layer = nn.Linear(num_in, num_out, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(num_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer
