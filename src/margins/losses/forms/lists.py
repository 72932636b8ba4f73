"""List: a function of the best-scored candidates of each row, in their order."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.engine.reduction import RowLosses
from margins.losses.forms.base import Loss, in_range, prepared, refuse_entry_weights
from margins.targets import Targets


class ListLoss(Loss):
    """A loss of at most `top` gathered candidates a row, sorted by score.

    Args:
        top: how many of the best-scored known candidates of a row take part, >= 2.
        reduction: see `margins.engine.reduction`; a row without a positive does not count.
    """

    form = "list"

    def __init__(self, *, top: int, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.top = int(in_range("top", top, low=2))

    @abstractmethod
    def of_list(
        self,
        scores: Float[Tensor, "anchors top"],
        grades: Float[Tensor, "anchors top"],
        there: Bool[Tensor, "anchors top"],
        ideal: Float[Tensor, "anchors top"],
    ) -> Float[Tensor, " anchors"]:
        """The loss of each list: scores descending, their grades, which are there, the best grades."""

    def forward(
        self,
        scores: Float[Tensor, "anchors candidates"],
        targets: Targets | Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss of a matrix of scores.

        Args:
            scores: [B, C].
            targets: graded relevance: [B, C] floats, or `Targets`.
            denominator: divisor to use instead of this batch's own.
        """
        return self.rows(scores, targets).reduce(self.reduction, denominator)

    def per_anchor(
        self, scores: Float[Tensor, "anchors candidates"], targets: Targets | Tensor
    ) -> Float[Tensor, " anchors"]:
        """The loss of each row, times its weight, not reduced."""
        return self.rows(scores, targets).weighted()

    def rows(self, scores: Float[Tensor, "anchors candidates"], targets: Targets | Tensor) -> RowLosses:
        """Row losses with all that a reduction needs."""
        matrix, known_targets = prepared(scores, targets)
        num_candidates = known_targets.num_candidates
        refuse_entry_weights(known_targets)
        known = known_targets.known(0, num_candidates)
        known = None if known is None else known.expand(matrix.shape)
        grades = known_targets.grades(0, num_candidates).to(matrix.dtype)
        if known is not None:
            grades = torch.where(known, grades, 0.0)
        top = min(self.top, num_candidates)
        order_by = matrix.detach() if known is None else matrix.detach().masked_fill(~known, -torch.inf)
        order = order_by.sort(dim=1, descending=True, stable=True).indices[:, :top]
        there = torch.ones_like(order, dtype=torch.bool) if known is None else known.gather(1, order)
        values = self.of_list(
            matrix.gather(1, order), grades.gather(1, order), there, grades.topk(top, 1).values
        )
        counts = (grades > 0).any(1)
        rows_known = known_targets.known_rows()
        counts = counts if rows_known is None else counts & rows_known
        return RowLosses(torch.where(counts, values, 0.0), counts=counts, weight=known_targets.row_weight)
