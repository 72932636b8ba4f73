"""Pair sums over all pairs, block by block.

The reference of the other ways, and the fastest where positives are few.
"""

from __future__ import annotations

import torch
from torch import Tensor

from margins.engine.pairs.functions import PairFunction
from margins.engine.pairs.problem import PairProblem, Swept

_BLOCK_ELEMENTS = 1 << 17  # small enough for the caches


def direct_sums(problem: PairProblem, function: PairFunction, *, with_slopes: bool) -> Swept:
    """Time proportional to positives times items, memory to the block; blocks are added up in float64.

    Rows go in falling order of their number of positives, so that a block holds the next few positives of all
    the rows that have as many.
    """
    order, columns, columns_weight = _positives(problem)
    scores, weight = problem.scores[order], problem.weight[order]
    negative = torch.where(problem.positive[order], torch.zeros_like(weight), weight)
    sums = torch.zeros(scores.shape[0], dtype=torch.float64, device=scores.device)
    slopes = torch.zeros(scores.shape, dtype=torch.float64, device=scores.device)
    start = 0
    while start < columns.shape[1]:
        height = int((columns_weight[:, start] != 0).sum())
        stop = start + max(1, _BLOCK_ELEMENTS // (height * scores.shape[1]))
        own, own_weight = (x[:height, start:stop] for x in (columns, columns_weight))
        x = (scores[:height, None, :] - scores[:height].gather(1, own)[:, :, None]) / problem.temperature
        pairs = negative[:height, None, :] * own_weight[:, :, None]
        sums[:height] += (function.value(x) * pairs).sum((1, 2))
        if with_slopes:
            slope = function.slope(x).mul_(pairs)
            slopes[:height] += slope.sum(1)
            slopes[:height].scatter_add_(1, own, -slope.sum(2, dtype=torch.float64))
        start = stop
    restored = torch.empty_like(order).scatter_(0, order, torch.arange(order.shape[0], device=order.device))
    if not with_slopes:
        return Swept(sums[restored], None)
    return Swept(sums[restored], slopes[restored].div_(problem.temperature).to(scores.dtype))


def _positives(problem: PairProblem) -> tuple[Tensor, Tensor, Tensor]:
    """The order of the rows; in it, [G, P] columns of the positives of each row, and weights, or 0."""
    counts = (problem.positive & (problem.weight != 0)).sum(1)
    order = counts.argsort(descending=True, stable=True)
    rows, columns = (problem.positive & (problem.weight != 0)).nonzero(as_tuple=True)
    places = torch.arange(rows.shape[0], device=rows.device) - (counts.cumsum(0) - counts)[rows]
    shape = counts.shape[0], int(counts.max())
    padded = columns.new_zeros(shape).index_put_((rows, places), columns)
    weight = problem.weight.new_zeros(shape).index_put_((rows, places), problem.weight[rows, columns])
    return order, padded[order], weight[order]
