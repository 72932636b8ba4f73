"""Pair sums of a power of a hinge, max(0, shift + x)^power, and of the step, by one sort.

With z = s / temperature for a positive and z = s / temperature + shift for a negative, a pair costs
(z_n - z_p)^power where the negative stands above the positive. Walking up the sorted z, the sums over the
positives below grow over a gap g as

    W' = W + w_p        D' = D + g W        Q' = Q + 2 g D + g^2 W

so three running sums of terms that are never negative give the hinge and its square. Nothing is subtracted,
hence no digit is lost, whatever the range of the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from margins.engine.pairs.functions import HingePower
from margins.engine.pairs.problem import PairProblem, Swept


def sorted_sums(problem: PairProblem, function: HingePower, *, with_slopes: bool) -> Swept:
    """Time of one sort; every number in float64."""
    shift = function.shift * problem.temperature
    keys = problem.scores
    if shift:
        keys = keys.double() + torch.where(problem.positive, 0.0, shift)
    keys, order = keys.sort(dim=1)
    is_positive = problem.positive.gather(1, order)
    weight = problem.weight.gather(1, order).double()
    positive = torch.where(is_positive, weight, 0.0)
    negative = weight - positive
    if function.power == 0:
        return Swept(_step_sums(keys, positive, negative), None)
    scores = problem.scores.gather(1, order).double()
    # From the scores and not from the keys: the difference of neighbours is exact.
    gaps = scores.diff(dim=1) / problem.temperature - function.shift * is_positive.double().diff(dim=1)
    below, below_first, sums = _walk(positive, gaps, function.power)
    totals = ((sums if function.power == 2 else below_first) * negative).sum(1)
    if not with_slopes:
        return Swept(totals, None)
    above, above_first, _ = (x.flip(1) for x in _walk(negative.flip(1), gaps.flip(1), 1))
    if function.power == 1:
        equal = keys[:, 1:] == keys[:, :-1]
        below = _before_run(below, equal)
        above = _before_run(above.flip(1), equal.flip(1)).flip(1)
        slope = torch.where(is_positive, -above, below)
    else:
        slope = 2 * torch.where(is_positive, -above_first, below_first)
    slope = (slope * weight / problem.temperature).to(problem.scores.dtype)
    return Swept(totals, torch.empty_like(slope).scatter_(1, order, slope))


def _walk(weight: Tensor, gaps: Tensor, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """W with the place itself, D and Q of the docstring at every place."""
    mass = weight.cumsum(1)
    steps = gaps * mass[:, :-1]
    first = torch.zeros_like(mass)
    torch.cumsum(steps, 1, out=first[:, 1:])
    if power < 2:
        return mass, first, first
    second = torch.zeros_like(mass)
    torch.cumsum(gaps * (steps + 2 * first[:, :-1]), 1, out=second[:, 1:])
    return mass, first, second


def _step_sums(keys: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Weight of the pairs with the negative above, and half of that of the tied."""
    mass = positive.cumsum(1)
    equal = keys[:, 1:] == keys[:, :-1]
    return ((_before_run(mass, equal) + _up_to_run_end(mass, equal)) * negative).sum(1) / 2


def _before_run(mass: Tensor, equal: Tensor) -> Tensor:
    """The running mass before the run of equal keys that each place is in."""
    before = torch.zeros_like(mass)
    before[:, 1:] = mass[:, :-1]
    if not bool(equal.any()):
        return before
    # The mass never falls, so the start of the run is the largest start seen so far.
    before[:, 1:].masked_fill_(equal, 0.0)
    return before.cummax(1).values


def _up_to_run_end(mass: Tensor, equal: Tensor) -> Tensor:
    if not bool(equal.any()):
        return mass
    ends = mass.clone()
    ends[:, :-1].masked_fill_(equal, torch.inf)
    return ends.flip(1).cummin(1).values.flip(1)
