"""Pairs: a loss of the order of every positive and every negative."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.pair_sums import SURROGATES, Surrogate, pair_sums
from margins.engine.reduction import RowLosses
from margins.errors import MarginsError
from margins.losses.forms.base import Loss, in_range, known_weights, prepared, refuse_shares
from margins.targets import Targets

Scope = Literal["row", "column", "global"]


class PairsLoss(Loss):
    """Mean over positive/negative pairs of a surrogate of their score difference.

    The denominator is the number of pairs (the sum of their weights) of a group, and then the number of
    groups that have a pair. There is no loss of an anchor: a pair belongs to two items.

    Args:
        surrogate: of the 0/1 loss of a pair.
        temperature: divides the difference, > 0.
        scope: pairs within a row (a query), within a column (a class against the rest), or all together.
        reduction: over the groups: "mean", "weighted_mean" (same as mean), "sum" or "none".
    """

    form = "pairs"

    def __init__(
        self, *, surrogate: Surrogate, temperature: float, scope: Scope, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        if surrogate not in SURROGATES:
            raise MarginsError("surrogate", expected=f"one of {sorted(SURROGATES)}", received=repr(surrogate))
        if scope not in get_args(Scope):
            raise MarginsError("scope", expected=f"one of {get_args(Scope)}", received=repr(scope))
        self.surrogate: Surrogate = surrogate
        self.temperature = in_range("temperature", temperature, low=0, open_low=True)
        self.scope: Scope = scope

    def forward(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The mean over groups.

        Args:
            scores: [B, C], or [B] for one binary problem.
            targets: as for other losses; with [B] scores, [B] labels 0 or 1.
            denominator: number of groups of the whole step.
        """
        return self.groups(scores, targets).reduce(self.reduction, denominator)

    def groups(self, scores: Float[Tensor, "anchors *candidates"], targets: Targets | Tensor) -> RowLosses:
        """The mean over the pairs of each group, and which groups have any."""
        matrix, known_targets = prepared(scores, targets)
        refuse_shares(known_targets)
        positive = known_targets.positive(0, known_targets.num_candidates)
        weight = known_weights(known_targets, matrix.dtype)
        sums, pairs = pair_sums(
            *(self._grouped(x) for x in (matrix, positive, weight)),
            surrogate=self.surrogate,
            temperature=self.temperature,
        )
        there = pairs > 0
        return RowLosses(torch.where(there, sums / torch.where(there, pairs, 1.0), 0.0), counts=there)

    def _grouped(self, matrix: Tensor) -> Tensor:
        if self.scope == "row":
            return matrix
        return matrix.T if self.scope == "column" else matrix.reshape(1, -1)
