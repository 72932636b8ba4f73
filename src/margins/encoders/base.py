"""What every encoder offers, how it comes out of settings and raw columns, and parts that draw explicitly."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.data.roles import RowInputs
from margins.data.settings import Settings, validated
from margins.errors import MarginsError

Inputs = TypeVar("Inputs", bound=RowInputs)


class Encoder(nn.Module, Generic[Inputs]):
    """Turns inputs of rows into embeddings `[B, width]`; rows do not see each other, and B may be 0."""

    width: int

    @abstractmethod
    def fit(self, inputs: Inputs) -> None:
        """Learns what preprocessing needs (means, document frequencies); give it training rows only."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Embeddings [B, width]."""


class Preparation(ABC):
    """Raw columns of a frame to the inputs of an encoder: what is done once a row, and kept with the model.

    Fitted on training rows only (vocabularies, shapes); its state is plain data that JSON can hold.
    """

    @abstractmethod
    def __call__(self, frame: Frame) -> Any:
        """The inputs of all rows of the frame, as a `RowInputs`.

        Raises:
            MarginsError: a column is missing or holds what cannot be used, with where.
        """

    @abstractmethod
    def to_data(self) -> dict[str, Any]:
        """Its state as plain data."""

    @classmethod
    @abstractmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The preparation whose state this is."""


class StoredPreparation(BaseModel, Preparation):
    """A preparation whose state is its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_data(self) -> dict[str, Any]:
        """Its fields as plain data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The preparation whose fields these are.

        Raises:
            MarginsError: they are those of another kind or version.
        """
        return validated(cls, dict(data), what="preparation")


class EncoderSettings(Settings, ABC):
    """The part of a recipe that names an encoder (`name`, a literal) and its settings."""

    name: Any  # a literal string in each encoder's settings

    @property
    def has_tokens(self) -> bool:
        """Whether heads that read tokens can follow: it builds a `TokenEncoder`."""
        return False

    @property
    def is_fixed(self) -> bool:
        """Whether the embedding of a row never changes: nothing of it is trained."""
        return False

    @abstractmethod
    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> Preparation:
        """The preparation fitted on this frame: the training rows.

        Raises:
            MarginsError: the encoder has no use for these kinds of columns.
        """

    @abstractmethod
    def restore(self, data: Mapping[str, Any]) -> Preparation:
        """The preparation that `to_data` wrote."""

    @abstractmethod
    def build(self, preparation: Any, *, generator: torch.Generator) -> Encoder[Any]:
        """An untrained encoder for what the preparation makes, its first weights drawn from `generator`."""


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """The generator itself on its own device; elsewhere a new one there, seeded by a draw from it.

    All randomness then follows from the state of one generator, and nothing waits for the device.
    """
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


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
        generator = generator_on(values.device, self.generator)
        kept = torch.rand(values.shape, generator=generator, device=values.device) >= self.probability
        return values * kept / (1 - self.probability)


def linear(num_in: int, num_out: int, *, generator: torch.Generator) -> nn.Linear:
    """A linear layer that starts as `nn.Linear` does, drawn from `generator`."""
    # Made without numbers first: its own start would draw from the global generator.
    layer = nn.Linear(num_in, num_out, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(num_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def perceptron(
    num_in: int, width: int, *, depth: int, dropout: float, generator: torch.Generator
) -> nn.Sequential:
    """`depth` hidden layers of `width` units, each with ReLU and dropout."""
    layers: list[nn.Module] = []
    for num in ([num_in] + [width] * (depth - 1))[:depth]:
        layers += [linear(num, width, generator=generator), nn.ReLU(), Dropout(dropout, generator=generator)]
    return nn.Sequential(*layers)
