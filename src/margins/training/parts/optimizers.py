"""The station `update`: optimisers by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from margins.data.settings import Settings

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Optimizer(Settings):
    """An optimiser and its settings."""

    name: Any  # a literal string in each part
    learning_rate: Positive
    weight_decay: NotNegative

    @abstractmethod
    def build(self, modules: Iterable[nn.Module], *, fused: bool = True) -> torch.optim.Optimizer:
        """An optimiser of all trainable parameters of the modules."""


class AdamW(Optimizer):
    """Adam with decoupled weight decay; vectors (biases, norms, temperatures) do not decay.

    Args:
        learning_rate: the largest of the schedule.
        weight_decay: of matrices.
        betas: of the running means.
    """

    name: Literal["adamw"] = "adamw"
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 1e-2
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)

    def build(self, modules: Iterable[nn.Module], *, fused: bool = True) -> torch.optim.Optimizer:
        groups = _groups(modules, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, fused=fused)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; vectors do not decay.

    Args:
        learning_rate: the largest of the schedule.
        momentum: 0 for none.
        nesterov: whether the momentum looks ahead.
        weight_decay: of matrices.
    """

    name: Literal["sgd"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NotNegative = 5e-4

    def build(self, modules: Iterable[nn.Module], *, fused: bool = True) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            _groups(modules, self.weight_decay), lr=self.learning_rate, momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0, fused=fused,
        )  # fmt: skip


AnyOptimizer = Annotated[AdamW | SGD, Field(discriminator="name")]


def _groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    parts = (([p for p in parameters if p.ndim > 1], weight_decay),
             ([p for p in parameters if p.ndim <= 1], 0.0))  # fmt: skip
    groups: list[dict[str, object]] = [
        {"params": members, "weight_decay": decay} for members, decay in parts if members
    ]
    # A head that takes its own steps may be all that learns; an optimiser wants something.
    return groups or [{"params": [nn.Parameter(torch.zeros(0))], "weight_decay": 0.0}]
