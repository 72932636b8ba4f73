"""The plain trainer: AdamW, early stopping on the select role, the best weights kept."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from margins.data.roles import RowInputs, SelectRows, TrainRows
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.training.model import Classifier

Probabilities = npt.NDArray[np.float64]

_PREDICT_ROWS = 2048
_SMALLEST_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How every recipe is trained.

    Args:
        max_epochs: passes over the training rows at most.
        patience: epochs without a better select score before training stops.
        batch_size: rows a step at most; the last batch of an epoch may be smaller.
        min_steps: steps an epoch that small data are to have: their batches are made smaller for it, but not
            smaller than 16 rows.
        learning_rate: of AdamW, constant.
        weight_decay: of AdamW.
    """

    max_epochs: int = 30
    patience: int = 6
    batch_size: int = 128
    min_steps: int = 20
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("max_epochs", "patience", "batch_size", "min_steps"):
            if getattr(self, name) < 1:
                raise MarginsError(name, expected="at least 1", received=str(getattr(self, name)))
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise MarginsError(
                "learning_rate, weight_decay",
                expected="a positive and a non-negative number",
                received=f"{self.learning_rate}, {self.weight_decay}",
            )

    def rows_a_step(self, num_rows: int) -> int:
        """The batch size for this many training rows.

        Example:
            >>> [TrainingSettings().rows_a_step(n) for n in (100, 1000, 10000)]
            [16, 50, 128]
        """
        return min(self.batch_size, max(_SMALLEST_BATCH, num_rows // self.min_steps))


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went. The model itself holds the weights of `epoch`."""

    epoch: int  # whose weights were kept, counted from 1
    select_scores: list[float]  # after each epoch
    seconds: float


def train(
    model: Classifier,
    objective: nn.Module,
    train_rows: TrainRows,
    select_rows: SelectRows,
    *,
    metric: Metric,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> Fitted:
    """Trains `model` in place and leaves it with the weights of the best epoch on the select rows.

    Args:
        model: its encoder is fitted on the training rows first.
        objective: called as `objective(logits, labels)`; its own parameters are trained too.
        train_rows: the only rows that gradients and fitted preprocessing see.
        select_rows: decide which epoch is kept.
        metric: what they are scored by.
        settings: the same for every recipe of a comparison.
        generator: of the order of rows.

    Returns:
        the epoch kept, the select score after each epoch, the time.

    Raises:
        MarginsError: the loss is no longer finite.
    """
    started = time.perf_counter()
    model.encoder.fit(train_rows.inputs)
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    scores: list[float] = []
    best, best_weights = -1, _weights(model)
    batch_size = settings.rows_a_step(len(train_rows))
    for epoch in range(settings.max_epochs):
        _one_epoch(model, objective, train_rows, optimizer, batch_size, generator, epoch)
        select_labels = select_rows.labels.numpy()
        scores.append(metric(predict_proba(model, select_rows.inputs), select_labels))
        if best < 0 or metric.improvement(scores[-1] - scores[best]) > 0:
            best, best_weights = epoch, _weights(model)
        elif epoch - best >= settings.patience:
            break
    model.load_state_dict(best_weights)
    model.eval()
    return Fitted(epoch=best + 1, select_scores=scores, seconds=time.perf_counter() - started)


@torch.no_grad()
def predict_proba(model: Classifier, inputs: RowInputs) -> Probabilities:
    """Class probabilities [N, C]: the softmax of the logits, in float64.

    The model's mode, training or not, is the same after the call.
    """
    was_training = model.training
    model.eval()
    chunks = torch.arange(len(inputs)).split(_PREDICT_ROWS)
    logits = torch.cat([model(inputs.take(rows)) for rows in chunks])
    model.train(was_training)
    return logits.double().softmax(1).numpy()


def _one_epoch(
    model: Classifier,
    objective: nn.Module,
    rows: TrainRows,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    generator: torch.Generator,
    epoch: int,
) -> None:
    model.train()
    objective.train()
    for batch in torch.randperm(len(rows), generator=generator).split(batch_size):
        optimizer.zero_grad()
        loss: Tensor = objective(model(rows.inputs.take(batch)), rows.labels[batch])
        if not math.isfinite(loss.item()):
            raise MarginsError(
                "loss",
                expected="a finite number",
                received=f"{loss.item()} in epoch {epoch + 1}",
                fix="lower the learning rate or look for extreme inputs",
            )
        loss.backward()
        optimizer.step()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
