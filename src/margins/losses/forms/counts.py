"""Counts: a function of soft confusion counts that are summed down the batch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from margins.errors import MarginsError
from margins.losses.forms.base import Loss, known_weights, prepared, refuse_grades_beyond_one
from margins.targets import Targets

Average = Literal["macro", "micro"]
Link = Literal["sigmoid", "softmax"]


@dataclass(frozen=True)
class Confusion:
    """Soft confusion counts, one a column or one in all.

    Args:
        tp: predicted and true. fp: predicted, not true. fn: true, not predicted. tn: neither.
        squares: sum of squared predictions, for the losses that use it.
    """

    tp: Float[Tensor, " columns"]
    fp: Float[Tensor, " columns"]
    fn: Float[Tensor, " columns"]
    tn: Float[Tensor, " columns"]
    squares: Float[Tensor, " columns"]


class CountsLoss(Loss):
    """One minus a metric of the batch's soft confusion counts.

    The metric is not a mean over rows: the batch is the unit, and its denominator is the number of columns
    that are averaged. Draw batches that hold every class that matters; 128 rows or more.

    Args:
        average: "macro" takes the metric of each column that has a positive and averages; "micro" adds the
            counts of all columns first.
        link: how scores become predictions: "sigmoid" for independent labels, "softmax" for one class a row.
    """

    form = "counts"

    def __init__(self, *, average: Average, link: Link) -> None:
        super().__init__(reduction="mean")
        for name, value, kind in (("average", average, Average), ("link", link, Link)):
            if value not in get_args(kind):
                raise MarginsError(name, expected=f"one of {get_args(kind)}", received=repr(value))
        self.average: Average = average
        self.link: Link = link

    @abstractmethod
    def predicted(self, probabilities: Float[Tensor, "anchors columns"]) -> Float[Tensor, "anchors columns"]:
        """What is counted as a prediction, in [0, 1]."""

    @abstractmethod
    def loss_of(self, counts: Confusion) -> Float[Tensor, " columns"]:
        """The loss of each column's counts."""

    def forward(
        self, scores: Float[Tensor, "anchors *candidates"], targets: Targets | Tensor
    ) -> Float[Tensor, ""]:
        """The loss of the batch.

        Args:
            scores: [B, C], or [B] for one binary problem.
            targets: as for other losses; with [B] scores, [B] labels 0 or 1.
        """
        matrix, known_targets = prepared(scores, targets)
        if self.link == "softmax" and matrix.shape[1] < 2:
            raise MarginsError(
                "scores", expected="[B, C] with C >= 2 for link='softmax'", received=str(list(scores.shape)),
                fix="use link='sigmoid' for one score an item",
            )  # fmt: skip
        num_candidates = known_targets.num_candidates
        refuse_grades_beyond_one(known_targets)
        grades = known_targets.grades(0, num_candidates).to(matrix.dtype)
        weight = known_weights(known_targets, matrix.dtype)
        counts = self.count(self._predictions(matrix, known_targets), grades, weight)
        has_positive = (counts.tp + counts.fn).detach() > 0
        values = torch.where(has_positive, self.loss_of(counts), 0.0)
        return values.sum() / has_positive.sum().clamp(min=1)

    def _predictions(self, matrix: Tensor, targets: Targets) -> Tensor:
        if self.link == "sigmoid":
            return self.predicted(torch.sigmoid(matrix))
        known = targets.known(0, targets.num_candidates)
        if known is None:
            return self.predicted(torch.softmax(matrix, 1))
        # An unknown class is no rival; a row without a known class is left alone and weighs nothing.
        unknown = ~known & known.any(1, keepdim=True)
        return self.predicted(torch.softmax(matrix.masked_fill(unknown, -torch.inf), 1))

    def count(self, p: Tensor, t: Tensor, weight: Tensor) -> Confusion:
        """The soft confusion counts of predictions p and grades t."""
        total = (weight * p * t, weight * p * (1 - t), weight * (1 - p) * t, weight * (1 - p) * (1 - t))
        sums = [x.sum(0) for x in (*total, weight * p.square())]
        if self.average == "micro":
            sums = [x.sum(0, keepdim=True) for x in sums]
        return Confusion(*sums)
