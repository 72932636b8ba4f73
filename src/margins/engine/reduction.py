"""The one place where the losses of rows become a number.

mean           sum of weight * loss / number of rows that count
weighted_mean  sum of weight * loss / sum of weights of the rows that count
sum            sum of weight * loss
none           weight * loss, row by row

A row counts when its targets and weights give the loss what it needs; a row emptied later, by mining,
gives 0 and counts. For a loss that averages over entries (binary cross-entropy) a row counts as often as
it has known entries. `denominator` replaces the divisor: a trainer passes that of the whole step, so that
accumulation and several ranks equal one big batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.errors import MarginsError

Reduction = Literal["mean", "weighted_mean", "sum", "none"]


@dataclass(frozen=True)
class RowLosses:
    """Losses of rows before reduction.

    Args:
        values: loss of each row; exactly 0, on the graph, where the row does not count.
        counts: which rows count; None when all do.
        weight: row weights; None when all are 1.
        units: how often a row counts; None when once.
    """

    values: Float[Tensor, " anchors"]
    counts: Bool[Tensor, " anchors"] | None = None
    weight: Float[Tensor, " anchors"] | None = None
    units: Float[Tensor, " anchors"] | None = None

    @property
    def num_degenerate(self) -> int:
        """Rows that lack what the loss needs, ignored ones included."""
        return 0 if self.counts is None else int((~self.counts).sum())

    def weighted(self) -> Float[Tensor, " anchors"]:
        """Row losses times row weights."""
        return self.values if self.weight is None else self.values * self.weight

    def denominator(self, reduction: Reduction) -> Tensor:
        """What `mean` or `weighted_mean` divides by; the trainer adds it up over a step."""
        is_weighted = reduction == "weighted_mean" and self.weight is not None
        if self.counts is None and self.units is None and not is_weighted:
            return self.values.new_full((), self.values.shape[0])
        share = torch.ones_like(self.values) if self.units is None else self.units.to(self.values.dtype)
        if is_weighted and self.weight is not None:
            share = share * self.weight
        return (share if self.counts is None else torch.where(self.counts, share, 0.0)).sum()

    def reduce(self, reduction: Reduction, denominator: Tensor | float | None = None) -> Tensor:
        """The number, or with 'none' the rows."""
        check_denominator(reduction, denominator)
        if reduction == "none":
            return self.weighted()
        is_plain = denominator is None and reduction == "mean" and self.counts is None and self.units is None
        if is_plain and self.values.shape[0]:
            return self.weighted().mean()
        if reduction == "sum":
            return self.weighted().sum()
        divisor = self.denominator(reduction) if denominator is None else denominator
        return divided(self.weighted().sum(), divisor)


def check_denominator(reduction: Reduction, denominator: Tensor | float | None) -> None:
    """Raises MarginsError for a denominator where nothing is divided."""
    if denominator is not None and reduction in ("none", "sum"):
        raise MarginsError(
            "denominator",
            expected="reduction 'mean' or 'weighted_mean' with it",
            received=repr(reduction),
        )


def divided(total: Tensor, divisor: Tensor | float) -> Tensor:
    """Total / divisor, and 0 on the graph when nothing counts."""
    if isinstance(divisor, Tensor):
        return total / torch.where(divisor > 0, divisor, 1.0)
    return total / (divisor if divisor > 0 else 1.0)


def check_reduction(reduction: str) -> Reduction:
    """The reduction, or an error that lists those there are."""
    if reduction not in get_args(Reduction):
        raise MarginsError("reduction", expected=f"one of {get_args(Reduction)}", received=repr(reduction))
    return cast("Reduction", reduction)
