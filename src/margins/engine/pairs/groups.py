"""Groups of unequal size as a few matrices of rows.

Groups whose sizes have the same power of two above them become the rows of one matrix, filled up with items
of weight zero: at most twice the items, and every group keeps its own sums.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.engine.pairs.problem import PairProblem, Swept

Sweep = Callable[[PairProblem], Swept]


def grouped_sums(problem: PairProblem, groups: Int[Tensor, " items"], sweep: Sweep) -> Swept:
    """Sums of every group in the order of their ids; the problem is one row, so are the slopes."""
    order = groups.argsort(stable=True)
    sizes = torch.unique_consecutive(groups[order], return_counts=True)[1]
    starts = sizes.cumsum(0) - sizes
    power = torch.log2(sizes.double()).ceil()
    sums = torch.zeros(sizes.shape[0], dtype=torch.float64, device=groups.device)
    slopes = None
    for exponent in power.unique().tolist():
        members = (power == exponent).nonzero()[:, 0]
        items, is_there = _rows(order, starts[members], sizes[members])
        found = sweep(_taken(problem, items, is_there))
        sums[members] = found.sums
        if found.slopes is not None:
            slopes = torch.zeros_like(problem.scores) if slopes is None else slopes
            slopes[0, items[is_there]] = found.slopes[is_there]
    return Swept(sums, slopes)


def _rows(order: Tensor, starts: Tensor, sizes: Tensor) -> tuple[Tensor, Bool[Tensor, "groups items"]]:
    """[groups, longest] items of each group, its first one where it has no more, and where it has."""
    places = torch.arange(int(sizes.max()), device=order.device)
    is_there = places < sizes[:, None]
    return order[starts[:, None] + torch.where(is_there, places, 0)], is_there


def _taken(problem: PairProblem, items: Tensor, is_there: Tensor) -> PairProblem:
    scores: Float[Tensor, "groups items"] = problem.scores[0][items]
    weight = torch.where(is_there, problem.weight[0][items], 0.0)
    return PairProblem(scores, problem.positive[0][items], weight, problem.temperature)
