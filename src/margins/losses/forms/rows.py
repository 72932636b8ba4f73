"""Rows: a function of the whole row of scores, in the order of its candidates."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.engine.reduction import RowLosses
from margins.losses.forms.base import Loss, prepared, refuse_entry_weights
from margins.targets import Targets


class RowsLoss(Loss):
    """A loss of rows whose candidates have an order (grades, levels, ranks), so that all are seen at once.

    Dense only: no statistic of a row knows which of two candidates comes first. Entries have no weights; an
    unknown one is told, and the loss leaves it out.

    Args:
        reduction: see `margins.engine.reduction`; a row without a positive does not count.
    """

    form = "rows"
    reads_order = True

    @abstractmethod
    def of_rows(
        self,
        scores: Float[Tensor, "anchors candidates"],
        grades: Float[Tensor, "anchors candidates"],
        known: Bool[Tensor, "anchors candidates"] | None,
    ) -> Float[Tensor, " anchors"]:
        """The loss of each row: finite for finite scores, whatever is known.

        Args:
            scores: with their margins subtracted.
            grades: 0 where an entry is unknown.
            known: which entries are known; None when all are.
        """

    def forward(
        self,
        scores: Float[Tensor, "anchors candidates"],
        targets: Targets | Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss of a matrix of scores.

        Args:
            scores: [B, C], candidates in their order.
            targets: [B] class ids, [B, C] floats, or `Targets`.
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
        refuse_entry_weights(known_targets)
        num_candidates = known_targets.num_candidates
        known = known_targets.known(0, num_candidates)
        known = None if known is None else known.expand(matrix.shape)
        grades = known_targets.grades(0, num_candidates).to(matrix.dtype)
        if known is not None:
            grades = torch.where(known, grades, 0.0)
        counts, rows_known = (grades > 0).any(1), known_targets.known_rows()
        if rows_known is not None:
            counts = counts & rows_known
        values = self.of_rows(matrix, grades, known)
        return RowLosses(torch.where(counts, values, 0.0), counts=counts, weight=known_targets.row_weight)
