"""Vectors that were computed before, passed through or through a small multilayer perceptron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders.base import Encoder, EncoderSettings, StoredPreparation, perceptron
from margins.encoders.cells import check_kinds, check_same_length, vectors_of
from margins.encoders.inputs import TensorRows


@dataclass(frozen=True, eq=False)
class Vectors(TensorRows):
    """Vectors [N, d] of rows; those of several columns side by side."""

    values: Tensor


class EmbeddingPreparation(StoredPreparation):
    """The columns and the lengths of their vectors."""

    widths: dict[str, int]

    def __call__(self, frame: Frame) -> Vectors:
        """The vectors of all columns side by side."""
        columns: list[Tensor] = []
        for name, width in self.widths.items():
            values = vectors_of(frame, name)
            check_same_length(name, values.shape[1], width)
            columns.append(values)
        return Vectors(torch.cat(columns, 1))


class EmbeddingSettings(EncoderSettings):
    """Columns of vectors.

    Use it for embeddings of a pretrained model. With depth 0 the head sees them as they are (linear probing).

    Args:
        normalise: whether each vector is scaled to length one first; a zero vector stays zero.
        depth: number of hidden layers; 0 for none.
        width: of the hidden layers and of the embedding, when there are any.
        dropout: share of hidden units left out in training.
    """

    name: Literal["embeddings"] = "embeddings"
    normalise: bool = True
    depth: int = Field(default=0, ge=0)
    width: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)

    @property
    def is_fixed(self) -> bool:
        """Without hidden layers."""
        return self.depth == 0

    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> EmbeddingPreparation:
        """The lengths of the vectors."""
        check_kinds(self.name, inputs, "embedding")
        return EmbeddingPreparation(widths={name: vectors_of(frame, name).shape[1] for name in inputs})

    def restore(self, data: Mapping[str, Any]) -> EmbeddingPreparation:
        """The preparation that `to_data` wrote."""
        return EmbeddingPreparation.from_data(data)

    def build(self, preparation: Any, *, generator: torch.Generator) -> VectorEncoder:
        """An untrained encoder for vectors of these lengths."""
        return VectorEncoder(
            list(preparation.widths.values()),
            normalise=self.normalise,
            depth=self.depth,
            width=self.width,
            dropout=self.dropout,
            generator=generator,
        )


class VectorEncoder(Encoder[Vectors]):
    """Vectors as they are, or through hidden layers with ReLU and dropout. It has nothing to fit.

    Args:
        widths: of the vectors of each column, which lie side by side.
        normalise: whether each is scaled to length one.
        depth: number of hidden layers.
        width: of the hidden layers and, with depth > 0, of the embedding; otherwise that is their sum.
        dropout: share of hidden units left out in training.
        generator: draws the first weights and the dropout.

    Example:
        >>> encoder = VectorEncoder([2], generator=torch.Generator())
        >>> encoder(Vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]])))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        normalise: bool = True,
        depth: int = 0,
        width: int = 128,
        dropout: float = 0.2,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.widths, self.normalise = list(widths), normalise
        num_in = sum(self.widths)
        self.width = width if depth else num_in
        self.layers = perceptron(num_in, width, depth=depth, dropout=dropout, generator=generator)

    def fit(self, inputs: Vectors) -> None:
        """Nothing: each row is treated by itself."""

    def forward(self, inputs: Vectors) -> Tensor:
        """Embeddings [B, width]."""
        values = inputs.values
        if self.normalise:
            parts = values.split(self.widths, dim=1)
            values = torch.cat([nn.functional.normalize(part, dim=1) for part in parts], 1)
        return self.layers(values)
