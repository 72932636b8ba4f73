"""Pairs: a loss of the order of every positive and every negative."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.engine.pairs.sums import SURROGATES, Method, PairSums, Surrogate, methods_of, pair_sums
from margins.engine.reduction import RowLosses
from margins.engine.sources import at_least_float32
from margins.errors import MarginsError, describe
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
        method: how the pairs are summed, see `margins.engine.pairs.sums`; "auto" takes the fastest.
        reduction: over the groups: "mean", "weighted_mean" (same as mean), "sum" or "none".
    """

    form = "pairs"

    def __init__(
        self,
        *,
        surrogate: Surrogate,
        temperature: float,
        scope: Scope,
        method: Method = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if surrogate not in SURROGATES:
            raise MarginsError("surrogate", expected=f"one of {sorted(SURROGATES)}", received=repr(surrogate))
        if scope not in get_args(Scope):
            raise MarginsError("scope", expected=f"one of {get_args(Scope)}", received=repr(scope))
        if method not in methods_of(surrogate):
            expected = f"one of {methods_of(surrogate)} for {surrogate!r}"
            raise MarginsError("method", expected=expected, received=repr(method))
        self.surrogate: Surrogate = surrogate
        self.method: Method = method
        self.temperature = in_range("temperature", temperature, low=0, open_low=True)
        self.scope: Scope = scope

    def forward(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        groups: Int[Tensor, " ids"] | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The mean over groups.

        Args:
            scores: [B, C], or [B] for one binary problem.
            targets: as for other losses; with [B] scores, [B] labels 0 or 1.
            groups: with scope "row", ids of the queries that the anchors belong to: anchors of one id are one
                group. Groups of any sizes, in any order; the result of reduction "none" follows rising ids.
            denominator: number of groups of the whole step.
        """
        return self.groups(scores, targets, groups=groups).reduce(self.reduction, denominator)

    def groups(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        groups: Int[Tensor, " ids"] | None = None,
    ) -> RowLosses:
        """The mean over the pairs of each group, and which groups have any."""
        found = self.sums(scores, targets, groups=groups)
        there = found.pairs > 0
        means = found.values / torch.where(there, found.pairs, 1.0)
        return RowLosses(torch.where(there, means, 0.0).to(at_least_float32(scores).dtype), counts=there)

    def sums(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        groups: Int[Tensor, " ids"] | None = None,
    ) -> PairSums:
        """The sums over the pairs of each group, and by which methods they were found."""
        matrix, known_targets = prepared(scores, targets)
        refuse_shares(known_targets)
        positive = known_targets.positive(0, known_targets.num_candidates)
        items = matrix, positive, known_weights(known_targets, matrix.dtype)
        if groups is None:
            items = tuple(self._grouped(x) for x in items)
        else:
            self._check_groups(groups, matrix)
            items = tuple(x.reshape(1, -1) for x in items)
            groups = groups.repeat_interleave(matrix.shape[1])
        return pair_sums(
            *items,
            surrogate=self.surrogate,
            temperature=self.temperature,
            groups=groups,
            method=self.method,
        )

    def _check_groups(self, groups: Tensor, matrix: Tensor) -> None:
        if self.scope != "row":
            raise MarginsError(
                "groups", expected="no ids of groups with this scope", received=f"scope {self.scope!r}",
                fix='pass scope="row"',
            )  # fmt: skip
        if groups.shape[0] != matrix.shape[0]:
            raise MarginsError(
                "groups", expected=f"[B] ids with B = {matrix.shape[0]}", received=describe(groups)
            )

    def _grouped(self, matrix: Tensor) -> Tensor:
        if self.scope == "row":
            return matrix
        return matrix.T if self.scope == "column" else matrix.reshape(1, -1)
