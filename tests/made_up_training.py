"""Small problems and trainers that tests of training share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from margins.data import SelectRows, TrainRows
from margins.encoders import Numbers, NumericEncoder
from margins.heads import LinearHead
from margins.targets import Targets
from margins.training import Network, Recipe, Trainer

SUP_CON = {"task": "matches", "objective": {"loss": "sup_con"}, "metric": "map@r"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(num: int, seed: int, *, num_classes: int = 3, shift: float = 2.5) -> tuple[Numbers, Tensor]:
    """Gaussian clouds of four numbers, the classes in turn."""
    labels = torch.arange(num) % num_classes
    centres = shift * torch.eye(num_classes, 4)
    values = centres[labels] + torch.randn(num, 4, generator=seeded(seed))
    return Numbers(values), labels


def train_rows(num: int = 120, seed: int = 1) -> TrainRows:
    inputs, labels = blobs(num, seed)
    return TrainRows(inputs, Targets.of_classes(labels, 3))


def select_rows(num: int = 60, seed: int = 2) -> SelectRows:
    inputs, labels = blobs(num, seed)
    return SelectRows(inputs, Targets.of_classes(labels, 3))


def recipe(**changes: Any) -> Recipe:
    plain = {"task": "classes", "encoder": {"name": "tabular"}, "metric": "accuracy", "max_epochs": 3}
    return Recipe.model_validate({**plain, **changes})


def trainer(
    *, network_seed: int = 0, dropout: float = 0.2, num_outputs: int = 3, fabric: Any = None,
    train: TrainRows | None = None, select: SelectRows | None = None, folder: Any = None, **changes: Any,
) -> Trainer:  # fmt: skip
    draws = seeded(network_seed)
    encoder = NumericEncoder(num_columns=4, width=16, dropout=dropout, generator=draws)
    network = Network(encoder, LinearHead(16, num_outputs, generator=draws))
    return Trainer(
        recipe(**changes), network, train or train_rows(), select or select_rows(), generator=draws,
        fabric=fabric, folder=folder,
    )  # fmt: skip
