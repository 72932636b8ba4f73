"""An encoder with a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from margins.encoders import Encoder
from margins.engine.sources import Source
from margins.training.parts.mixing import MixingPlan


class Network(nn.Module):
    """Inputs of rows to scores, by way of embeddings.

    Args:
        encoder: inputs to embeddings [B, width].
        head: embeddings to scores [B, C].
    """

    def __init__(self, encoder: Encoder[Any], head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, inputs: Any, mixing: MixingPlan | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, C] and embeddings [B, width], mixed between encoder and head if there is a plan."""
        embeddings = self._embedded(inputs, mixing)
        return self.head(embeddings), embeddings

    def source(self, inputs: Any, mixing: MixingPlan | None = None) -> tuple[Source, Tensor]:
        """As `forward`, with what an evaluator makes scores of in place of the scores."""
        embeddings = self._embedded(inputs, mixing)
        source: Source = self.head.source(embeddings)  # pyright: ignore[reportCallIssue] - recipes see to it
        return source, embeddings

    def _embedded(self, inputs: Any, mixing: MixingPlan | None) -> Tensor:
        embeddings = self.encoder(inputs)
        return embeddings if mixing is None else mixing.features(embeddings)
