"""The threshold of a soft top k: t with sum_j sigmoid(y_j + t) = k, from few readings of the values y.

f(t) = sum_j sigmoid(y_j + t) - k rises, and its slope changes by a factor of at most e^d over a distance d,
since |f''| <= f'. So a Newton step n = -f / f' says where the root is: at least log(1 + |n|) away, and at
most -log(1 - |n|) when |n| < 1. Ranks say it from afar: with a and b the k-th and the next largest of m
values, -a - log(m - k) <= t <= -b + log(k).

With sigmoid(-|z|) for an entry's distance from its side (0 or 1), f is an integer plus terms that do not
cancel, so the flat parts between well separated values keep their root; between values so far apart that all
terms vanish (a deep gap), every term is scaled by exp(half_gap), and the ratio of the terms decides.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DEEP = 40.0
"""A gap between the k-th and the next value beyond which terms are scaled."""

Row = Float[Tensor, " rows"]


class Search(NamedTuple):
    """Where the root of each row is looked for: at `threshold`, known to be in [low, high]."""

    threshold: Row
    low: Row
    high: Row
    half_gap: Row  # log of the factor on all terms; 0 but in a deep gap


class Seen(NamedTuple):
    """What one reading at a threshold says of each row; z = y + threshold.

    Args:
        num_above: entries with z > 0.
        residual: sum of sigmoid(z) over z <= 0, minus sum of sigmoid(-z) over z > 0; scaled.
        slope: sum of sigmoid'(z); scaled.
        bend: sum of sigmoid''(z); scaled.
        above: smallest y with z > 0, or a bound: y > -threshold is known without looking.
        below: largest y with z <= 0, or a bound.
    """

    num_above: Row
    residual: Row
    slope: Row
    bend: Row
    above: Row
    below: Row

    @property
    def gap(self) -> Row:
        """Distance of the entries next to the threshold; 0 where they were not looked for."""
        return torch.nan_to_num(self.above - self.below, posinf=0.0, nan=0.0)

    def off(self, search: Search, k: Row) -> Row:
        """f, scaled."""
        excess = self.num_above - k
        return self.residual + torch.where(excess == 0, 0.0, excess * search.half_gap.exp())

    def newton(self, search: Search, k: Row) -> Row:
        """The Newton step."""
        tiny = torch.finfo(k.dtype).tiny
        return (-self.off(search, k) / self.slope.clamp(min=tiny)).clamp(-1e30, 1e30)

    def is_at_root(self, search: Search, k: Row) -> Bool[Tensor, " rows"]:
        """Whether the threshold is the root, to rounding and to what differentiating there needs."""
        newton = self.newton(search, k).abs()
        grain = torch.finfo(k.dtype).eps
        silent = (self.num_above == k) & (self.slope < _vanishing(k))
        to_be_scaled = (self.num_above == k) & (self.gap > DEEP) & (search.half_gap == 0)
        close = newton <= torch.maximum(newton.new_full((), grain**0.75), 4 * grain * search.threshold.abs())
        return close & ~silent & ~to_be_scaled


def start(top: Row, bottom: Row, k: Row, num_known: Row) -> Search:
    """The bracket that the extremes give, exact when all values are equal, and its middle.

    Rows with k >= num_known have everything in their top k: they get a threshold that puts every value
    far above 0, and no bracket.
    """
    full = k >= num_known
    share = torch.where(full, 0.5, k / num_known.clamp(min=1))
    even = share.logit()
    low, high = even - top, even - bottom
    beyond = 200.0 - bottom
    threshold = torch.where(full, beyond, (low + high) / 2)
    return Search(
        threshold, torch.where(full, beyond, low), torch.where(full, beyond, high), torch.zeros_like(k)
    )


def guessed(search: Search, mean: Row, variance: Row, k: Row, num_known: Row) -> Search:
    """The threshold that would be right, nearly, if the values were normally distributed."""
    share = (k / num_known.clamp(min=1)).clamp(1e-7, 1 - 1e-7)
    # A logistic curve is nearly a normal one of variance 1.7 squared; the two add up.
    threshold = (variance + 2.9).sqrt() * torch.special.ndtri(share) - mean
    return search._replace(threshold=threshold.clamp(search.low, search.high))


def ranked(
    search: Search, levels: Float[Tensor, "rows levels"], counts: Float[Tensor, "rows levels"],
    k: Row, num_known: Row,
) -> Search:  # fmt: skip
    """The bracket that counts of entries above some levels leave, and its middle or that of a gap."""
    few, many = counts < k[:, None], counts > k[:, None]
    low = torch.where(few, -levels, -torch.inf).amax(1) - (num_known - k).clamp(min=1).log()
    high = torch.where(many, -levels, torch.inf).amin(1) + k.log()
    low, high = torch.maximum(search.low, low), torch.minimum(search.high, high)
    low = torch.minimum(low, high)
    exact = ~few & ~many
    inside = (
        torch.where(exact, levels, -torch.inf).amax(1) + torch.where(exact, levels, torch.inf).amin(1)
    ) / 2
    threshold = torch.where(exact.any(1), -inside, (low + high) / 2)
    return Search(threshold, low, high, torch.zeros_like(low))


def narrowed(search: Search, seen: Seen, k: Row, num_known: Row) -> Search:
    """The bracket with what a reading adds to it."""
    t, low, high, half_gap = search
    newton = seen.newton(search, k)
    size = newton.abs()
    near = torch.log1p(size)
    far = torch.where(size < 0.9, -torch.log1p(-size.clamp(max=0.9)), torch.inf)  # rounding decides near 1
    below = seen.off(search, k) < 0  # the root is above
    # Terms that all vanish say nothing of the sign.
    silent = (seen.num_above == k) & (seen.slope < _vanishing(k))
    low = torch.where(silent, low, torch.maximum(low, torch.where(below, t + near, t - far)))
    high = torch.where(silent, high, torch.minimum(high, torch.where(below, t + far, t - near)))
    log_k, log_rest = k.log(), (num_known - k).clamp(min=1).log()
    few, many = seen.num_above <= k, seen.num_above >= k
    # The k-th largest is at most `below`, or `above` when exactly k are above; the next likewise.
    kth_at_most = torch.where(seen.num_above == k, seen.above, seen.below)
    next_at_least = torch.where(seen.num_above == k, seen.below, seen.above)
    low = torch.where(few, torch.maximum(low, -kth_at_most - log_rest), low)
    high = torch.where(many, torch.minimum(high, -next_at_least + log_k), high)
    low = torch.minimum(low, high)  # by rounding they may have crossed
    return Search(t, low, high, half_gap)


def advanced(search: Search, seen: Seen, k: Row, num_known: Row) -> Search:
    """The next threshold to read at, inside the narrowed bracket."""
    t, low, high, half_gap = narrowed(search, seen, k, num_known)
    newton = seen.newton(search, k)
    # The slope as an exponential through slope and bend: exact where all terms grow or fall alike.
    rate = (seen.bend / seen.slope.clamp(min=torch.finfo(k.dtype).tiny)).clamp(-1.0, 1.0)
    vague = torch.where(half_gap > 0, 0.0, 2 * seen.slope)  # by how much the terms are no exponentials
    bent = torch.maximum(rate * newton, -1 + vague.clamp(1e-4, 0.01))
    safe_rate = torch.where(rate.abs() > 1e-3, rate, 1.0)
    step = torch.where(bent.abs() > 1e-3, torch.log1p(bent) / safe_rate, newton * (1 - bent / 2))
    # Between the k-th and the next value: falling terms against growing ones, whose ratio decides.
    grain = torch.finfo(k.dtype).eps
    on_flat = (seen.num_above == k) & (newton.abs() < 1 - torch.maximum(vague, 2 * vague.new_full((), grain)))
    on_flat &= vague < 0.1
    step = torch.where(on_flat, torch.atanh(newton.clamp(-1 + grain, 1 - grain)), step)
    target = t + step
    lost = ((target < low) | (target > high)) & (newton.abs() > 0.5)
    target = torch.where(lost, (low + high) / 2, target.clamp(low, high))
    deep = (seen.num_above == k) & (seen.gap > DEEP)
    centred = half_gap > 0
    target = torch.where(deep & ~centred, -(seen.above + seen.below) / 2, target)
    half_gap = torch.where(deep & ~centred, (seen.above - seen.below) / 2, half_gap)
    full, found = k >= num_known, Search(target, low, high, half_gap)
    return Search(*(torch.where(full, old, new) for old, new in zip(search, found, strict=True)))


def _vanishing(k: Row) -> float:
    limits = torch.finfo(k.dtype)
    return limits.tiny / limits.eps**2


def remaining_error(search: Search, seen: Seen, k: Row, num_known: Row) -> Row:
    """How far `advanced` may still be from the root, in units of y; rounding of the threshold left out."""
    newton = seen.newton(search, k).abs()
    unscaled = (seen.num_above == k) & (seen.gap > DEEP) & (search.half_gap == 0)
    unscaled |= (seen.num_above == k) & (seen.slope < _vanishing(k))
    error = torch.where(unscaled, torch.inf, newton**3)
    return torch.where(k >= num_known, 0.0, error)
