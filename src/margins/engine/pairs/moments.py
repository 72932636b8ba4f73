"""Pair sums of a polynomial: means and variances of the two sides, O(n)."""

from __future__ import annotations

import torch
from torch import Tensor

from margins.engine.pairs.functions import Polynomial
from margins.engine.pairs.problem import PairProblem, Swept


def moment_sums(problem: PairProblem, function: Polynomial, *, with_slopes: bool) -> Swept:
    """E (shift + x)^2 = (shift + E x)^2 + var of the negatives + var of the positives, in units of x.

    Scores are taken from the first of their row and spreads from their own mean, so that an offset of the
    scores costs no digits.
    """
    scores = problem.scores.double()
    place = (scores - scores[:, :1]) / problem.temperature
    positive, negative = problem.sides()
    masses = positive.sum(1, keepdim=True), negative.sum(1, keepdim=True)
    means = tuple(_mean(place, side, mass) for side, mass in zip((positive, negative), masses, strict=True))
    gap = function.shift + means[1] - means[0]
    pairs = masses[0] * masses[1]
    if function.degree == 1:
        mean_cost, slope = gap, torch.ones_like(place)
    else:
        spread = place - torch.where(problem.positive, means[0], means[1])
        square = spread.square()
        variances = (
            _mean(square, side, mass) for side, mass in zip((positive, negative), masses, strict=True)
        )
        mean_cost = gap.square() + sum(variances)
        slope = 2 * torch.where(problem.positive, gap - spread, gap + spread)
    sums = (mean_cost * pairs)[:, 0]
    if not with_slopes:
        return Swept(sums, None)
    weight = (negative * masses[0] - positive * masses[1]) / problem.temperature
    return Swept(sums, (slope * weight).to(problem.scores.dtype))


def _mean(values: Tensor, weight: Tensor, mass: Tensor) -> Tensor:
    return (values * weight).sum(1, keepdim=True) / torch.where(mass > 0, mass, 1.0)
