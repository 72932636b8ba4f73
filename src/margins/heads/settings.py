"""Settings of heads: which one, and how it is built for an embedding and a number of outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from margins.data.settings import Settings


class HeadSettings(Settings, ABC):
    """The part of a recipe that names a head (`name`, a literal) and its settings."""

    name: Any  # a literal string in each head's settings
    reads_order: ClassVar[bool] = False  # whether the numbers of the classes are an order to it
    takes_tokens: ClassVar[bool] = False
    """Whether the head is a `TokenHead`."""

    @abstractmethod
    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> nn.Module:
        """An untrained head for embeddings [B, width], its first weights drawn from `generator`."""
