"""Coefficients: methods that are defined by their gradient, as constants times scores."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.engine.reduction import RowLosses
from margins.losses.forms.base import (
    Loss,
    entry_weights,
    prepared,
    refuse_grades_beyond_one,
)
from margins.targets import Targets


class CoefficientsLoss(Loss):
    """The sum of detached coefficients times scores; its gradient is the method, its value is no level.

    Log a metric, or another loss, beside it. `mean` divides by the number of known entries.
    """

    form = "coefficients"

    @abstractmethod
    def coefficients(
        self,
        scores: Float[Tensor, "anchors columns"],
        grades: Float[Tensor, "anchors columns"],
        known: Bool[Tensor, "anchors columns"],
    ) -> Float[Tensor, "anchors columns"]:
        """What multiplies each score; scores come detached."""

    def forward(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The sum of coefficients times scores, reduced over the known entries.

        Args:
            scores: [B, C], or [B] for one binary problem.
            targets: as for other losses; with [B] scores, [B] labels 0 or 1.
            denominator: number of known entries of the whole step.
        """
        return self.rows(scores, targets).reduce(self.reduction, denominator)

    def rows(self, scores: Float[Tensor, "anchors *candidates"], targets: Targets | Tensor) -> RowLosses:
        """Row sums of coefficients times scores."""
        matrix, known_targets = prepared(scores, targets)
        grades = known_targets.grades(0, known_targets.num_candidates).to(matrix.dtype)
        refuse_grades_beyond_one(known_targets)
        weight = entry_weights(known_targets, matrix.dtype)
        with torch.no_grad():
            # Weight 0 also where the row weighs nothing: such a row is not there for the others either.
            coefficients = self.coefficients(matrix.detach(), grades, weight > 0) * weight
        units = (weight > 0).sum(1)
        return RowLosses(
            (coefficients * matrix).sum(1),
            counts=units > 0,
            weight=known_targets.row_weight,
            units=units.to(matrix.dtype),
        )
