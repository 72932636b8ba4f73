"""Statistics of the blocks so far: what a block adds to each, and what the result is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.blocks.fused import more_logsumexp
from margins.engine.entries import NEUTRAL
from margins.engine.statistics import Statistic


class Running:
    """A statistic, accumulated over blocks. A logsumexp is kept as a shift and a sum of shifted exponentials.

    Args:
        statistic: which.
        num_anchors: B.
        like: dtype and device.
    """

    def __init__(self, statistic: Statistic, num_anchors: int, like: Tensor) -> None:
        self.statistic = statistic
        # Of a logsumexp this is the shift: the largest term so far.
        self._value = like.new_full((num_anchors,), NEUTRAL[statistic.reduce])
        self._sum = like.new_zeros(num_anchors)
        self.ties = like.new_zeros(num_anchors)
        """How many terms equal a max or min, which share its gradient."""

    def add(self, terms: Float[Tensor, "rows block"], start: int, stop: int) -> None:
        """Takes in a block of the anchors start to stop; overwrites the terms."""
        value, total, ties = (t[start:stop] for t in (self._value, self._sum, self.ties))
        if self.statistic.reduce == "sum":
            value += terms.sum(1)
        elif self.statistic.reduce == "logsumexp":
            shift, sums = more_logsumexp(value, total, terms)
            value.copy_(shift)
            total.copy_(sums)
        else:
            is_max = self.statistic.reduce == "max"
            best = torch.maximum(value, terms.amax(1)) if is_max else torch.minimum(value, terms.amin(1))
            ties.mul_(value == best).add_(torch.eq(terms, best[:, None], out=terms).sum(1))
            value.copy_(best)

    def result(self) -> Float[Tensor, " anchors"]:
        """The statistic."""
        if self.statistic.reduce != "logsumexp":
            return self._value
        empty = self._value.isneginf()
        return torch.where(empty, self._value, torch.where(empty, 1.0, self._sum).log() + self._value)
