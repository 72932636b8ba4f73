"""Sums over positive/negative pairs of a surrogate of the score difference, without a tensor of pairs.

Positives are taken in chunks against all negatives of their row; value and gradient are found in the same
sweep. Exact, in time proportional to the number of pairs and memory proportional to the chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from margins.errors import OnceDifferentiableError

Surrogate = Literal["logistic", "hinge", "square"]
_CHUNK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class PairFunction:
    """ell(x) and its derivative at x = (negative - positive) / temperature; large x is a wrong order."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


SURROGATES: dict[str, PairFunction] = {
    "logistic": PairFunction(lambda x: -logsigmoid(-x), torch.sigmoid),
    "hinge": PairFunction(lambda x: (1 + x).clamp(min=0), lambda x: (x > -1).to(x.dtype)),
    "square": PairFunction(lambda x: (1 + x).square(), lambda x: 2 * (1 + x)),
}


def pair_sums(
    scores: Float[Tensor, "groups items"],
    positive: Bool[Tensor, "groups items"],
    weight: Float[Tensor, "groups items"],
    *,
    surrogate: Surrogate,
    temperature: float,
) -> tuple[Float[Tensor, " groups"], Float[Tensor, " groups"]]:
    """For each group: the weighted sum over its (positive, negative) pairs, and the sum of their weights.

    Args:
        scores: one row a group; pairs are within a row.
        positive: which items are positive; the others are negative.
        weight: of each item, 0 for one that is not there; a pair weighs the product of its items' weights.
            A constant to the gradient.
        surrogate: "logistic" softplus(x), "hinge" max(0, 1 + x), "square" (1 + x)^2.
        temperature: > 0, divides the difference.
    """
    weight = weight.detach()  # a constant: the sweep finds the slope of scores only
    zero = torch.zeros((), dtype=weight.dtype, device=weight.device)
    positive_weight, negative_weight = (
        torch.where(positive, weight, zero),
        torch.where(positive, zero, weight),
    )
    sums = _PairSums.apply(scores, positive_weight, negative_weight, SURROGATES[surrogate], temperature)
    return sums, positive_weight.sum(1) * negative_weight.sum(1)  # pyright: ignore[reportReturnType]


class _PairSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        positive_weight: Tensor,
        negative_weight: Tensor,
        function: PairFunction,
        temperature: float,
    ) -> Tensor:
        sums = scores.new_zeros(scores.shape[0])
        slopes = torch.zeros_like(scores)
        rows, columns = positive_weight.nonzero(as_tuple=True)
        size = max(1, _CHUNK_ELEMENTS // max(1, scores.shape[1]))
        for r, c in zip(rows.split(size), columns.split(size), strict=True):
            x = (scores[r] - scores[r, c][:, None]) / temperature
            pair_weight = negative_weight[r] * positive_weight[r, c][:, None]
            sums.index_add_(0, r, (function.value(x) * pair_weight).sum(1))
            slope = function.slope(x) * pair_weight / temperature
            slopes.index_add_(0, r, slope)
            slopes[r, c] -= slope.sum(1)
        ctx.save_for_backward(slopes)
        return sums

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        if torch.is_grad_enabled():
            raise OnceDifferentiableError("pair sums give first derivatives only")
        return upstream[0][:, None] * ctx.saved_tensors[0], None, None, None, None
