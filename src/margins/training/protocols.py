"""Designs over whole runs: what one training cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from margins.data.reading import read_frame
from margins.errors import MarginsError
from margins.training.fit import train
from margins.training.request import Roles


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """How much a result owes to the seed.

    Args:
        metric: its name.
        scores: of the report rows, one a seed.
        mean: of the scores.
        deviation: of the scores; a difference between two recipes that is not well above it is no finding.
        churn: share of report rows on which two runs predict differently, averaged over pairs of runs; None
            for numbers and embeddings.
    """

    metric: str
    scores: list[float]
    mean: float
    deviation: float
    churn: float | None


def seed_spread(
    data: Any,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    roles: Roles | None = None,
    recipe: Mapping[str, Any] | None = None,
    division_seed: int = 0,
    **named_roles: Any,
) -> SeedSpread:
    """Trains the same recipe on the same rows from several seeds.

    The seeds draw first weights, dropout and order of rows; the division into roles stays. Use it before
    believing in a small difference, and to see whether single predictions can be relied on.

    Args:
        data: as for `train`.
        seeds: at least two, all different.
        roles: as for `train`.
        recipe: changes of the recipe, without a seed.
        division_seed: of the division into train, select and report rows.
        named_roles: as for `train`.

    Raises:
        MarginsError: fewer than two seeds, a seed in the recipe, or data without report rows.

    Example:
        >>> draws = np.random.default_rng(0)
        >>> x = draws.normal(size=(200, 2))
        >>> table = {"a": x[:, 0], "b": x[:, 1], "label": (x.sum(1) > 0).astype(int)}
        >>> found = seed_spread(table, seeds=[0, 1], recipe={"max_epochs": 3, "metric": "accuracy"})
        >>> len(found.scores), 0 <= found.churn <= 0.5
        (2, True)
    """
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise MarginsError("seeds", expected="at least two different ones", received=str(list(seeds)))
    changes = dict(recipe or {})
    if "seed" in changes:
        raise MarginsError("recipe", expected="no seed: it is what changes", received=str(changes["seed"]))
    frame = read_frame(data)
    runs = [
        train(
            frame, roles=roles, recipe={**changes, "seed": seed}, division_seed=division_seed, **named_roles
        )
        for seed in seeds
    ]
    metric = runs[0].model.recipe.metric
    if "report" not in runs[0].scores:
        raise MarginsError("data", expected="report rows to judge by", received="none")
    scores = [run.scores["report"][metric] for run in runs]
    report = frame.take(torch.from_numpy(runs[0].division.report))
    predicted = [
        None if run.model.recipe.task in ("values", "matches") else run.model.predict(report) for run in runs
    ]
    return SeedSpread(
        metric=metric, scores=scores, mean=fmean(scores), deviation=stdev(scores), churn=_churn(predicted)
    )


def _churn(predicted: Sequence[Any]) -> float | None:
    if any(p is None for p in predicted):
        return None
    arrays = [np.array([str(value) for value in p], dtype=object) for p in predicted]
    pairs = [(a != b).mean() for i, a in enumerate(arrays) for b in arrays[i + 1 :]]
    return float(np.mean(pairs))
