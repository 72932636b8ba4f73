"""Items in groups, of which every positive meets every negative of its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class PairProblem:
    """One row a group.

    Args:
        scores: of each item.
        positive: which items are positive; the others are negative.
        weight: of each item, 0 for one that is not there; a pair weighs the product.
        temperature: > 0, divides the difference.
    """

    scores: Float[Tensor, "groups items"]
    positive: Bool[Tensor, "groups items"]
    weight: Float[Tensor, "groups items"]
    temperature: float

    def sides(self) -> tuple[Tensor, Tensor]:
        """[G, I] weights as positives and as negatives, float64."""
        weight = self.weight.double()
        as_positive = torch.where(self.positive, weight, 0.0)
        return as_positive, weight - as_positive


class Swept(NamedTuple):
    """What one way of summing found: sums of the groups in float64, and the slopes of the scores."""

    sums: Tensor  # [G]
    slopes: Tensor | None  # [G, I] in the dtype of the scores
