"""Counts: a function of soft confusion counts that are summed down the batch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.errors import MarginsError
from margins.losses.forms.base import Loss, known_weights, prepared, refuse_grades_beyond_one
from margins.targets import Targets

Average = Literal["macro", "micro"]
Link = Literal["sigmoid", "softmax"]


@dataclass(frozen=True)
class Confusion:
    """Soft confusion counts: one a column, one a map, or one in all.

    Args:
        tp: predicted and true. fp: predicted, not true. fn: true, not predicted. tn: neither.
        squares: sum of squared predictions; true_squares: of squared truths; for the losses that use them.
    """

    tp: Float[Tensor, "*columns"]
    fp: Float[Tensor, "*columns"]
    fn: Float[Tensor, "*columns"]
    tn: Float[Tensor, "*columns"]
    squares: Float[Tensor, "*columns"]
    true_squares: Float[Tensor, "*columns"]


def soft_confusion(
    p: Float[Tensor, "*shape"],
    y: Float[Tensor, "*shape"],
    weight: Float[Tensor, "*#shape"] | None = None,
    *,
    dims: int | tuple[int, ...] = 0,
) -> Confusion:
    """The soft confusion counts of predictions and truths.

    Args:
        p: predictions in [0, 1], of any shape.
        y: truths in [0, 1].
        weight: >= 0 of each item, 0 where the truth is unknown; None when all weigh 1.
        dims: axes that are summed; the counts keep the others. () sums nothing.

    Example:
        >>> soft_confusion(torch.tensor([0.8, 0.3]), torch.tensor([1.0, 0.0])).tp
        tensor(0.8000)
    """
    products = (p * y, p * (1 - y), (1 - p) * y, (1 - p) * (1 - y), p.square(), y.square())
    if weight is not None:
        products = tuple(weight * x for x in products)
    return Confusion(*(x if dims == () else x.sum(dims) for x in products))


@dataclass(frozen=True, eq=False)
class Items:
    """What a loss of counts sees of a batch: one item an entry.

    Args:
        scores: with their margins subtracted.
        p: their probabilities.
        y: grades.
        weight: row weight times entry weight; 0 where an entry is unknown.
    """

    scores: Float[Tensor, "anchors columns"]
    p: Float[Tensor, "anchors columns"]
    y: Float[Tensor, "anchors columns"]
    weight: Float[Tensor, "anchors columns"]


class CountsLoss(Loss):
    """One minus a metric of the batch's soft confusion counts.

    The metric is not a mean over rows: the batch is the unit, and its denominator is the number of columns
    that are averaged. Draw batches that hold every class that matters; 128 rows or more. A column without a
    positive does not count, and a batch without any gives exactly 0.

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

    @property
    def summed_dims(self) -> tuple[int, ...]:
        """The axes of [anchors, columns] that are summed."""
        return (0,) if self.average == "macro" else (0, 1)

    @abstractmethod
    def predicted(self, probabilities: Float[Tensor, "anchors columns"]) -> Float[Tensor, "anchors columns"]:
        """What is counted as a prediction, in [0, 1]."""

    @abstractmethod
    def loss_of(self, counts: Confusion) -> Float[Tensor, "*columns"]:
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
        refuse_grades_beyond_one(known_targets)
        values, has_positive = self.of_items(self.items(matrix, known_targets))
        return torch.where(has_positive, values, 0.0).sum() / has_positive.sum().clamp(min=1)

    def items(self, matrix: Float[Tensor, "anchors candidates"], targets: Targets) -> Items:
        """The items of the batch."""
        grades = targets.grades(0, targets.num_candidates).to(matrix.dtype)
        weight = known_weights(targets, matrix.dtype)
        return Items(matrix, self._probabilities(matrix, targets), grades, weight)

    def of_items(self, items: Items) -> tuple[Float[Tensor, "*columns"], Bool[Tensor, "*columns"]]:
        """The loss of each column, and which columns have a positive."""
        counts = self.count(items)
        return self.loss_of(counts), (counts.tp + counts.fn).detach() > 0

    def count(self, items: Items) -> Confusion:
        """The soft confusion counts of the batch, by column or of all columns."""
        return soft_confusion(self.predicted(items.p), items.y, items.weight, dims=self.summed_dims)

    def _probabilities(self, matrix: Tensor, targets: Targets) -> Tensor:
        if self.link == "sigmoid":
            return torch.sigmoid(matrix)
        known = targets.known(0, targets.num_candidates)
        if known is None:
            return torch.softmax(matrix, 1)
        # An unknown class is no rival; a row without a known class is left alone and weighs nothing.
        unknown = ~known & known.any(1, keepdim=True)
        return torch.softmax(matrix.masked_fill(unknown, -torch.inf), 1)
