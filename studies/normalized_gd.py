"""Steps until a linear classifier is right on every row: plain and normalised logistic gradient descent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ground import digits
from margins.evidence import Effect, Study
from margins.heads import LogisticGD, NormalizedLogisticGD

MAX_STEPS = 20_000
SIZES = (1e1, 1e2, 1e4, 1e6)


def hard(seed: int) -> tuple[Tensor, Tensor]:
    """Two thousand rows that agree, and three that are nearly their opposite."""
    draws = torch.Generator().manual_seed(seed)
    rows = 0.02 * torch.randn(2000, 20, generator=draws, dtype=torch.float64)
    rows[:, 0] += 1.0
    rows[:3, 0] -= 1.9
    rows[:3, 1] += 0.3
    labels = torch.randint(0, 2, (2000,), generator=draws)
    return rows * (2 * labels - 1)[:, None], labels


def rare(seed: int) -> tuple[Tensor, Tensor]:
    """Frozen random features of digits, one class of which has five rows among a thousand others."""
    division = digits(seed, train=0.8)
    x, y = division.train
    draws = torch.Generator().manual_seed(seed)
    kept = torch.cat([(y == 8).nonzero()[:5, 0], (y != 8).nonzero()[:1000, 0]])
    weight = torch.randn(64, 400, generator=draws, dtype=torch.float64) / 8
    features = torch.relu(x[kept].double() @ weight)
    features = features / features.norm(dim=1).mean()
    return torch.cat([features, torch.ones(len(kept), 1, dtype=torch.float64)], 1), (y[kept] == 8).long()


def even(seed: int) -> tuple[Tensor, Tensor]:
    """Gaussian rows on both sides of a gap."""
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randn(3200, 50, generator=draws, dtype=torch.float64)
    labels = torch.randint(0, 2, (3200,), generator=draws)
    sign = 2 * labels.double() - 1
    rows[:, 0] = sign * (0.05 + rows[:, 0].abs())
    return rows, labels


DATA = {"hard": hard, "rare": rare, "even": even}


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """One search for a separator."""
    name, data = arm.split(" ")
    rows, labels = DATA[data](seed)
    solver = {"plain": LogisticGD, "normalized": NormalizedLogisticGD}[name]
    found = solver(settings["step_size"], max_steps=MAX_STEPS).separate(rows, labels)
    steps = math.log10(max(found.num_steps, 1))
    return {"select": -steps, "log10 steps": steps, "separated": float(found.is_separated)}


def _saved(data: str) -> Any:
    return lambda f: f[f"plain {data}"]["log10 steps"] - f[f"normalized {data}"]["log10 steps"]


STUDY = Study(
    name="normalized_gd",
    cards=(
        "margins.heads.NormalizedLogisticGD",
        "margins.heads.LinearProbe",
        "margins.diagnose.separability",
        "margins.losses.ErrorNormalized",
    ),
    claim="Gradient descent on the logistic loss needs a number of steps that grows with the number of rows "
    "where few of them are hard; divided by the mean error it does not.",
    source="Tyurin 2024, arXiv 2412.08424",
    data="hard: 2,000 drawn rows, three of them nearly opposite to the others; rare: random features of "
    "digits, five rows of one class against a thousand of others; even: 3,200 Gaussian rows beside a gap",
    protocol=f"steps until no row is wrong, at most {MAX_STEPS}, drawn anew for each seed; each arm chooses "
    "its step size among 10, 100, 1e4 and 1e6 by the steps on other draws",
    arms={f"{name} {data}": {"step_size": SIZES} for data in DATA for name in ("plain", "normalized")},
    budget=4,
    trial=trial,
    effects=(
        Effect("hard rows: log10 of plain over normalised steps", _saved("hard"), reaches=1.0),
        Effect("a rare class: log10 of plain over normalised steps", _saved("rare")),
        Effect("even rows: log10 of plain over normalised steps", _saved("even")),
        Effect("every normalised search ends", lambda f: f["normalized hard"]["separated"], above=0.99),
    ),
    num_seeds=10,
)
