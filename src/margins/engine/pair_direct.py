"""Pair sums over all pairs: positives in chunks against all items of their row. The reference of the others."""

from __future__ import annotations

import torch

from margins.engine.pair_functions import PairFunction
from margins.engine.pair_problem import PairProblem, Swept

_CHUNK_ELEMENTS = 1 << 18  # small enough for the caches


def direct_sums(problem: PairProblem, function: PairFunction, *, with_slopes: bool) -> Swept:
    """Time proportional to positives times items, memory to the chunk; sums in float64."""
    scores, positive, weight = problem.scores, problem.positive, problem.weight
    sums = torch.zeros(scores.shape[0], dtype=torch.float64, device=scores.device)
    slopes = torch.zeros(scores.shape, dtype=torch.float64, device=scores.device) if with_slopes else None
    negative_weight = torch.where(positive, torch.zeros_like(weight), weight)
    rows, columns = (positive & (weight != 0)).nonzero(as_tuple=True)
    size = max(1, _CHUNK_ELEMENTS // max(1, scores.shape[1]))
    for r, c in zip(rows.split(size), columns.split(size), strict=True):
        x = (scores[r] - scores[r, c][:, None]) / problem.temperature
        pair_weight = negative_weight[r] * weight[r, c][:, None]
        sums.index_add_(0, r, (function.value(x) * pair_weight).sum(1, dtype=torch.float64))
        if slopes is not None:
            slope = (function.slope(x) * pair_weight).double()
            slopes.index_add_(0, r, slope)
            slopes[r, c] -= slope.sum(1)
    if slopes is None:
        return Swept(sums, None)
    return Swept(sums, (slopes / problem.temperature).to(scores.dtype))
