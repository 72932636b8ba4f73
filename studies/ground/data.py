"""Small data sets, divided anew for each seed, and labels made wrong on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Rows(NamedTuple):
    """Inputs [N, d] and class ids [N]."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Division:
    """Rows that train, rows that choose settings, rows that are reported."""

    train: Rows
    select: Rows
    test: Rows


def digits(seed: int, *, train: float = 0.5, select: float = 0.1) -> Division:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, in [0, 1], divided by class; the rest is tested on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return divided(data.data / 16.0, data.target, seed, train=train, select=select)


def tabular(seed: int, *, train: float = 0.5, select: float = 0.1, **settings: Any) -> Division:
    """`make_classification` with these settings, drawn anew for each seed, standardised by training rows."""
    from sklearn.datasets import make_classification

    x, y = make_classification(random_state=seed, **settings)
    division = divided(x, y, seed, train=train, select=select)
    mean, spread = division.train.x.mean(0), division.train.x.std(0).clamp(min=1e-6)
    return Division(
        *(Rows((r.x - mean) / spread, r.y) for r in (division.train, division.select, division.test))
    )


def divided(x: Any, y: Any, seed: int, *, train: float, select: float) -> Division:
    """Rows divided by shares, each class alike; inputs as float32."""
    from sklearn.model_selection import train_test_split

    places = np.arange(len(y))
    fit_on, rest = train_test_split(places, train_size=train, stratify=y, random_state=seed)
    chosen, tested = train_test_split(
        rest, train_size=select / (1 - train), stratify=np.asarray(y)[rest], random_state=seed
    )
    inputs, labels = (
        torch.as_tensor(np.asarray(x), dtype=torch.float32),
        torch.as_tensor(np.asarray(y)).long(),
    )
    return Division(*(Rows(inputs[p], labels[p]) for p in map(torch.from_numpy, (fit_on, chosen, tested))))


def flipped(
    y: Tensor, share: float, seed: int, *, kind: Literal["uniform", "next"] = "uniform", num_classes: int
) -> Tensor:
    """Class ids of which a share, drawn row by row, is wrong.

    Args:
        y: [N].
        share: probability that a row is wrong.
        seed: of the draws.
        kind: "uniform" moves to any other class alike, "next" to the following one.
        num_classes: of the task.
    """
    draws = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(y), generator=draws) < share
    shift = (
        torch.randint(1, num_classes, y.shape, generator=draws) if kind == "uniform" else torch.ones_like(y)
    )
    return torch.where(wrong, (y + shift) % num_classes, y)
