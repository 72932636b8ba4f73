"""A plain training loop for small networks, the same for every method that is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn


def perceptron(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them, drawn from the seed alone."""
    draws = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for num_in, num_out in pairwise(sizes):
        layer = nn.Linear(num_in, num_out, device="meta").to_empty(device="cpu")
        bound = 1 / math.sqrt(num_in)
        nn.init.uniform_(layer.weight, -bound, bound, generator=draws)
        nn.init.uniform_(layer.bias, -bound, bound, generator=draws)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit(
    network: nn.Module,
    loss: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    *,
    seed: int,
    lr: float,
    epochs: int,
    batch_size: int = 64,
    weight_decay: float = 0.0,
    optimizer: Literal["sgd", "adam"] = "sgd",
    momentum: float = 0.9,
    cosine: bool = False,
    with_ids: bool = False,
    after_epoch: Callable[[int], None] | None = None,
) -> nn.Module:
    """Trains the network in place; batches are drawn from the seed, the last small one is left out.

    Args:
        network: inputs to scores.
        loss: of scores and targets; its own parameters are trained, its `start_epoch` is told of epochs.
        x: [N, ...].
        y: [N, ...].
        seed: of the order of rows.
        lr: learning rate.
        epochs: passes.
        batch_size: rows a step, at most N.
        weight_decay: of all weights; decoupled for "adam".
        optimizer: SGD with momentum, or AdamW.
        momentum: of SGD.
        cosine: whether the rate falls to 0 along half a cosine; else it stays.
        with_ids: whether the loss is given the rows' numbers as `ids`.
        after_epoch: called with the epoch, counted from 0, when it is done.
    """
    own = list(loss.parameters()) if isinstance(loss, nn.Module) else []
    weights: list[Any] = [*network.parameters(), *own]
    if optimizer == "sgd":
        steps: torch.optim.Optimizer = torch.optim.SGD(weights, lr, momentum, weight_decay=weight_decay)
    else:
        steps = torch.optim.AdamW(weights, lr, weight_decay=weight_decay)
    size = min(batch_size, len(x))
    total = epochs * (len(x) // size)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(steps, total) if cosine else None
    draws = torch.Generator().manual_seed(seed)
    network.train()
    for epoch in range(epochs):
        start_epoch = getattr(loss, "start_epoch", None)
        if start_epoch is not None:
            start_epoch(epoch)
        order = torch.randperm(len(x), generator=draws)
        for rows in order[: len(x) // size * size].split(size):
            steps.zero_grad()
            extra = {"ids": rows} if with_ids else {}
            loss(network(x[rows]), y[rows], **extra).backward()
            steps.step()
            if falling is not None:
                falling.step()
        if after_epoch is not None:
            after_epoch(epoch)
    return network


@torch.no_grad()
def predict(network: nn.Module, x: Tensor) -> Tensor:
    """What the network makes of inputs, in evaluation mode."""
    was_training = network.training
    network.eval()
    found = network(x)
    network.train(was_training)
    return found


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of rows whose largest score is that of their class; of one column, whose score is above 0."""
    scores = predict(network, x)
    guess = (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)
    return float((guess == y).float().mean())
