"""An encoder with a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from margins.encoders import Encoder


class Classifier(nn.Module):
    """Inputs of rows to logits."""

    def __init__(self, encoder: Encoder[Any], head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, inputs: Any) -> Tensor:
        """Logits [B, C]."""
        return self.head(self.encoder(inputs))
