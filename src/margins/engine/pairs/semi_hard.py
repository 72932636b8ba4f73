"""Sums over the semi-hard (positive, negative) pairs of each row, from whole rows of scores.

A pair of a row is semi-hard when its negative scores below its positive, but by less than the margin. Some
rows are taken at a time, with all their candidates: their scores, sums and gradient are found together, so
that embeddings and candidates meet in three matrix products and nothing of the size of the matrix is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.engine.blocks.layout import Layout
from margins.engine.blocks.plan import BlockPlan
from margins.engine.blocks.scores import BlockScores
from margins.engine.entries import BlockEntries, Holes, terms_in
from margins.engine.evaluators import Pass
from margins.engine.scratch import Scratch
from margins.engine.sources import Factored, Source, accumulator, at_least_float32, full_precision
from margins.engine.statistics import maximum
from margins.errors import OnceDifferentiableError
from margins.targets import Targets

_ELEMENTS = 1 << 20  # scores held at a time
_FEWEST_ROWS, _MOST_ROWS = 32, 512
_FEW_POSITIVES = 64  # a row: up to these, going through them is faster than sorting the negatives
_RIVALS = maximum("negatives")  # its terms are the scores of negatives, and -inf elsewhere


class PairTotals(NamedTuple):
    """Sum of the hinges of all semi-hard pairs, and the number of these; both weighted."""

    hinge: Float[Tensor, ""]
    pairs: Float[Tensor, ""]


def semi_hard_totals(source: Source, targets: Targets, margin: float) -> PairTotals:
    """Totals over rows and their known positives p and negatives n with s_n < s_p < s_n + margin.

    The hinge of a pair is margin - s_p + s_n. Hinges and counts are weighted by row, positive and negative.

    Args:
        source: scores, or embeddings and candidates.
        targets: same shape.
        margin: > 0, in units of scores.
    """
    if isinstance(source, Factored):
        layout, tensors = Layout.of(source, Pass(source, targets, {}, None))
    else:
        layout, tensors = None, (source.matrix(),)
    job = _Job(layout, targets, margin)
    hinge, count = _Totals.apply(job, *tensors)  # pyright: ignore[reportGeneralTypeIssues]
    return PairTotals(hinge, count)


@dataclass(frozen=True, eq=False)
class _Job:
    """Where scores come from (None: they are there), the targets and the margin."""

    layout: Layout | None
    targets: Targets
    margin: float

    def plan(self) -> BlockPlan:
        """Stripes of whole rows."""
        num_anchors, num_candidates = self.targets.shape
        rows = min(num_anchors, _MOST_ROWS, max(_FEWEST_ROWS, _ELEMENTS // max(num_candidates, 1)))
        return BlockPlan(num_anchors, num_candidates, rows, num_candidates, 5 * 8 * rows * num_candidates)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        needs = ctx.needs_input_grad[1:]
        sums = [accumulator(t) if n else None for t, n in zip(tensors, needs, strict=True)]
        totals = tensors[0].new_zeros(2, dtype=torch.float64)
        with full_precision(tensors[0].device):
            _add_up(job, tensors, sums, totals)
        rounded = [s.to(t.dtype) for s, t in zip(sums, tensors, strict=True) if s is not None]
        ctx.save_for_backward(*rounded)
        hinge, count = totals.to(at_least_float32(tensors[0][:0]).dtype)
        ctx.mark_non_differentiable(count)
        return hinge, count

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise OnceDifferentiableError("sums over semi-hard pairs give first derivatives only")
        gradients = iter(ctx.saved_tensors)
        return None, *(upstream[0] * next(gradients) if n else None for n in ctx.needs_input_grad[1:])


def _add_up(job: _Job, tensors: tuple[Tensor, ...], sums: list[Tensor | None], totals: Tensor) -> None:
    """Adds the pairs of all stripes to the totals, and the slope of their hinges to the gradients."""
    plan, columns = job.plan(), (0, job.targets.num_candidates)
    made = None if job.layout is None else BlockScores.of(job.layout, tensors, plan, sums)
    if made is not None:
        made.turn_to(columns)
    like = at_least_float32(tensors[0][:0])
    listed, scratch = _Listed.of(job.targets, like.dtype), Scratch(like, plan.rows * columns[1])
    for rows in plan.row_spans():
        scores = tensors[0].detach()[rows[0] : rows[1]].clone() if made is None else made.make(rows)
        targets, own = job.targets.between(*rows), listed.between(*rows)
        entries = BlockEntries(scores, targets, *columns, side={}, rows={}, holes=own.holes)
        scratch.release_all()
        hinge, count, slopes = _Stripe.of(entries, own, scratch).sums(job.margin)
        weight = targets.row_weight
        if weight is not None:
            hinge, count = hinge * weight, count * weight
            slopes.mul_(weight[:, None])
        totals += torch.stack([hinge.double().sum(), count.double().sum()])
        if made is not None:
            made.bring_back(slopes)
        elif sums[0] is not None:
            sums[0][rows[0] : rows[1]] = slopes
    if made is not None:
        made.leave()
        made.finish()


@dataclass(frozen=True, eq=False)
class _Listed:
    """The positives of some rows that count, and their unknown entries when those are listed too.

    Args:
        rows: of each positive.
        places: of each in the flattened matrix of these rows.
        weight: of each, above 0.
        is_plain: whether all weigh 1.
        unknown: places of the unknown entries; None where only masks tell them.
        shape: of the matrix.
    """

    rows: Int[Tensor, " listed"]
    places: Int[Tensor, " listed"]
    weight: Float[Tensor, " listed"]
    is_plain: bool
    unknown: Int[Tensor, " unknown"] | None
    shape: tuple[int, int]

    @classmethod
    def of(cls, targets: Targets, dtype: torch.dtype) -> _Listed:
        """All rows."""
        rows, columns, values = targets.positives()
        counted = (values > 0).to(dtype)
        for factor in (targets.known_at(rows, columns), targets.weight_at(rows, columns)):
            counted = counted if factor is None else (counted * factor).to(dtype)
        unknown, width = targets.unknown_entries(), targets.num_candidates
        flat = None if unknown is None else unknown.rows * width + unknown.columns
        real = counted > 0
        rows, columns, counted = rows[real], columns[real], counted[real]
        is_plain = bool((counted == 1).all())
        return cls(rows, rows * width + columns, counted, is_plain, flat, targets.shape)

    def between(self, start: int, stop: int) -> _Listed:
        """Some of the rows."""
        width = self.shape[1]
        edges = torch.tensor([start, stop], device=self.rows.device)
        low, high = torch.searchsorted(self.rows, edges).tolist()
        unknown = self.unknown
        if unknown is not None:
            first, last = torch.searchsorted(unknown, edges * width).tolist()
            unknown = unknown[first:last] - start * width
        places, shape = self.places[low:high] - start * width, (stop - start, width)
        rows, weight = self.rows[low:high] - start, self.weight[low:high]
        return _Listed(rows, places, weight, self.is_plain, unknown, shape)

    @property
    def holes(self) -> Holes | None:
        """The entries that are no negatives; None where only masks tell them."""
        return None if self.unknown is None else Holes(self.places, self.unknown)


@dataclass(frozen=True, eq=False)
class _Stripe:
    """Rows with their negatives and these' weights, and their positives side by side.

    Args:
        scores: of all candidates.
        negatives: the same, -inf elsewhere.
        weight: of negatives; None when all are 1.
        positives: scores, inf where a row has fewer than others.
        positive_weight: 0 there.
        places: of the listed positives in the flattened stripe.
        slots: of the listed positives in the flattened `positives`.
        is_plain: whether all positives weigh 1.
        scratch: where more buffers are taken.
    """

    scores: Float[Tensor, "rows candidates"]
    negatives: Float[Tensor, "rows candidates"]
    weight: Float[Tensor, "rows candidates"] | None
    positives: Float[Tensor, "rows most"]
    positive_weight: Float[Tensor, "rows most"]
    places: Int[Tensor, " listed"]
    slots: Int[Tensor, " listed"]
    is_plain: bool
    scratch: Scratch

    @classmethod
    def of(cls, entries: BlockEntries, listed: _Listed, scratch: Scratch) -> _Stripe:
        """Read off the entries."""
        rows, shape = listed.rows, listed.shape
        lengths = torch.bincount(rows, minlength=shape[0])
        most = max(1, int(lengths.max())) if rows.shape[0] else 1
        slots = torch.arange(rows.shape[0], device=rows.device) + (rows * most)
        slots -= (lengths.cumsum(0) - lengths)[rows]
        positives = entries.s.new_full((shape[0], most), torch.inf)
        positives.view(-1)[slots] = entries.s.reshape(-1)[listed.places]
        weights = torch.zeros_like(positives)
        weights.view(-1)[slots] = listed.weight
        negatives = terms_in(entries, _RIVALS, scratch, may_overwrite=False)
        weight = entries.weight()
        weight = None if weight is None else weight.expand(shape)
        return cls(
            entries.s, negatives, weight, positives, weights, listed.places, slots, listed.is_plain, scratch
        )

    def sums(self, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row the hinges and the count, and the slope of the hinges by every score."""
        few = self.positives.shape[1] <= _FEW_POSITIVES
        hinge, counts, slopes = self._one_by_one(margin) if few else self._by_sorting(margin)
        pull = (counts * self.positive_weight).reshape(-1)[self.slots]
        slopes.view(-1).index_add_(0, self.places, -pull)
        return hinge, (counts * self.positive_weight).sum(1), slopes

    def _one_by_one(self, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        """Row sums of hinges; of each positive the weight of its negatives; slopes by the negatives."""
        slopes, within, above = (self.scratch.take(self.negatives.shape) for _ in range(3))
        counts = torch.zeros_like(self.positives)
        for k in range(self.positives.shape[1]):
            positive, here = self.positives[:, k : k + 1], slopes if k == 0 else within
            # As numbers: several times faster than boolean masks.
            torch.lt(self.negatives, positive, out=here)
            torch.gt(self.negatives, positive - margin, out=above)
            here.mul_(above)
            if self.weight is not None:
                here.mul_(self.weight)
            counts[:, k] = here.sum(1)
            if not self.is_plain:
                here.mul_(self.positive_weight[:, k : k + 1])
            if k > 0:
                slopes.add_(here)
        finite = self.positives.masked_fill(self.positives.isposinf(), 0.0)
        of_positives = (counts * self.positive_weight * (margin - finite)).sum(1)
        return torch.mul(slopes, self.scores, out=within).sum(1) + of_positives, counts, slopes

    def _by_sorting(self, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        """The same from sorted rows, whatever the number of positives."""
        ones = torch.ones_like(self.negatives) if self.weight is None else self.weight.contiguous()
        ordered, order = self.negatives.double().sort(1)
        weight = _running_sum(ones.double().gather(1, order))
        scored = _running_sum(ordered.masked_fill(ordered.isneginf(), 0.0) * ones.double().gather(1, order))
        positives, place = self.positives.double().sort(1)
        low = torch.searchsorted(ordered, positives - margin, right=True)
        high = torch.maximum(torch.searchsorted(ordered, positives), low)
        counts = weight.gather(1, high) - weight.gather(1, low)
        finite = positives.masked_fill(positives.isposinf(), 0.0)
        hinges = scored.gather(1, high) - scored.gather(1, low) + counts * (margin - finite)
        own = self.positive_weight.double().gather(1, place)
        before = _running_sum(own)
        last = torch.searchsorted(positives, self.negatives.double() + margin)
        first = torch.searchsorted(positives, self.negatives.double(), right=True)
        slopes = ones * (before.gather(1, last) - before.gather(1, first)).to(ones.dtype)
        back = torch.zeros_like(counts).scatter_(1, place, counts)
        return (hinges * own).sum(1).to(ones.dtype), back.to(ones.dtype), slopes


def _running_sum(values: Float[Tensor, "rows n"]) -> Float[Tensor, "rows m"]:
    """Sums of the first 0, 1, ..., n values of each row."""
    return torch.cat([values.new_zeros(values.shape[0], 1), values.cumsum(1)], 1)
