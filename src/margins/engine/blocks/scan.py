"""One pass over blocks of scores, and its backward, which makes every block again.

A block goes through three steps: the scores are made of embeddings and candidates; every statistic reads
its terms off them; backward, the gradient of the scores is found and brought back to what they were made
of. Buffers for a block are allocated once for the blocks of some anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from margins.engine.blocks.gradient import Upstream, gradient_by_slopes, have_slopes, pieces
from margins.engine.blocks.layout import Layout, Span
from margins.engine.blocks.listing import BlockListing
from margins.engine.blocks.plan import BlockPlan
from margins.engine.blocks.running import Running
from margins.engine.blocks.scores import BlockScores, Kept, add_part, listed_gradient
from margins.engine.entries import Holes, terms_in
from margins.engine.score_rules import as_product
from margins.engine.scratch import Scratch
from margins.engine.sources import accumulator, at_least_float32, full_precision
from margins.engine.statistics import Statistic
from margins.errors import MarginsError, refuse_second_derivative
from margins.targets import Positives, Targets


@dataclass(frozen=True, eq=False)
class ScanJob:
    """What a pass is to find.

    Args:
        statistics: at least one.
        layout: of its tensors.
        blocks: of its scores.
        listing: the positives, when they are known one by one.
        reads: whether the scores of the listed positives are wanted.
    """

    statistics: tuple[Statistic, ...]
    layout: Layout
    blocks: Blocks
    listing: Positives | None
    reads: bool


@dataclass(frozen=True, eq=False)
class Stripe:
    """Some anchors: which, their targets, their listed entries."""

    rows: Span
    targets: Targets
    listing: BlockListing | None

    def holes(self, number: int) -> Holes | None:
        """The listed entries of a block that masks would leave out."""
        return None if self.listing is None else self.listing.holes(number)


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a problem, the same for all its passes.

    Args:
        plan: of their sizes.
        stripes: the anchors, as many at a time as a block holds.
        kept: the scores of blocks that were made, by rows and columns; None where they are not kept.
    """

    plan: BlockPlan
    stripes: list[Stripe]
    kept: Kept | None

    @classmethod
    def of(cls, plan: BlockPlan, targets: Targets, listing: Positives | None) -> Blocks:
        """Those of a plan, with positives that are known one by one."""
        spans, unknown = plan.row_spans(), targets.unknown_entries()
        stripes = [
            Stripe(
                rows=span,
                targets=targets if len(spans) == 1 else targets.between(*span),
                listing=listing and BlockListing.of(listing, unknown, span, plan),
            )
            for span in spans
        ]
        return cls(plan, stripes, {} if plan.keeps_scores else None)


class Scan(torch.autograd.Function):
    """Statistics of all blocks, and the scores of the listed positives."""

    @staticmethod
    def forward(ctx: Any, job: ScanJob, *tensors: Tensor) -> tuple[Tensor, ...]:
        own = tensors[: len(job.layout.axes)]
        like = at_least_float32(own[0][:0])
        running = [Running(s, own[0].shape[0], like) for s in job.statistics]
        listed = like.new_zeros(job.listing.rows.shape[0] if job.reads and job.listing else 0)
        with full_precision(own[0].device):
            _read(job, own, running, listed)
        found = tuple(r.result() for r in running)
        ctx.job = job
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *found, *(r.ties for r in running))
        return (*found, listed)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("blockwise")
        job, saved = ctx.job, ctx.saved_tensors
        count = len(job.statistics)
        tensors = saved[: -2 * count]
        # Constants of the blocks' own small graphs: what was saved still remembers the whole one.
        found, ties = ([t.detach() for t in part] for part in (saved[-2 * count : -count], saved[-count:]))
        active = [
            Upstream.of(s, u, z, n)
            for s, u, z, n in zip(job.statistics, upstream, found, ties, strict=False)
            if u is not None
        ]
        sums = _empty_sums(job, tensors, ctx.needs_input_grad[1:], writes_all=bool(active))
        backward = _Backward(job, tensors, sums, active, upstream[-1] if job.reads else None)
        with full_precision(tensors[0].device):
            backward.run()
        return None, *backward.gradients()


def _read(job: ScanJob, tensors: Sequence[Tensor], running: list[Running], listed: Tensor) -> None:
    """Takes in all blocks."""
    blocks = job.blocks
    scores = BlockScores.of(job.layout, tensors, blocks.plan, kept=blocks.kept)
    scratch = scores.scratch()
    for number, columns in enumerate(blocks.plan.column_spans()):
        scores.turn_to(columns)
        for stripe in blocks.stripes:
            made = scores.make(stripe.rows)
            if stripe.listing is not None and job.reads:
                places = stripe.listing.places(number)
                listed[stripe.listing.numbers(number)] = made.reshape(-1)[places]
            beside = job.layout.cut_beside(tensors, stripe.rows, columns)
            entries = job.layout.entries(made, beside, stripe.targets, columns, stripe.holes(number))
            for index, one in enumerate(running):
                may = index + 1 == len(running) and not scores.keeps
                one.add(terms_in(entries, one.statistic, scratch, may_overwrite=may), *stripe.rows)
                scratch.release_all()


def _empty_sums(
    job: ScanJob, tensors: Sequence[Tensor], wanted: Sequence[bool], *, writes_all: bool
) -> list[Tensor | None]:
    """Room for the gradients: zeros, but for candidates whose every block will be written, not added to."""
    pairs = enumerate(zip(tensors, wanted, strict=True))
    sums = [accumulator(t) if w and i != 1 else None for i, (t, w) in pairs]
    if wanted[1]:
        written = writes_all and job.blocks.plan.num_anchors > 0 and as_product(job.layout.rule) is not None
        sums[1] = torch.empty_like(tensors[1]) if written else accumulator(tensors[1])
    return sums


class _Backward:
    """Adds the gradients of a pass to `sums`, one for every tensor, None where none is wanted."""

    def __init__(
        self,
        job: ScanJob,
        tensors: Sequence[Tensor],
        sums: list[Tensor | None],
        active: list[Upstream],
        listed: Tensor | None,
    ) -> None:
        self._job, self._layout, self._active = job, job.layout, active
        self._tensors, self._sums = tensors, sums
        self._factors, self._num_own = job.layout.num_factors, len(job.layout.axes)
        self._listed = None if listed is None or listed.numel() == 0 else listed.detach()
        self._needs_scores, self._wanted = True, torch.float32
        self._reached: set[int] = set()

    def run(self) -> None:
        """All blocks, or the listed entries alone when those are all that is asked for."""
        job, rule = self._job, as_product(self._layout.rule)
        if not self._active and (self._listed is None or job.listing is None):
            return
        if not self._active and rule is not None:
            assert self._listed is not None  # noqa: S101  (asked just now)
            assert job.listing is not None  # noqa: S101
            factors = slice(self._factors)
            listed_gradient(rule, self._tensors[factors], self._sums[factors], job.listing, self._listed)
            return
        self._check_outside()
        self._blocks()

    def gradients(self) -> list[Tensor | None]:
        """What was found; None for what stands beside the scores and nobody reads: no stage is run for it."""
        beside = set(range(self._factors, self._num_own)) - self._reached
        found = enumerate(zip(self._sums, self._tensors, strict=True))
        return [None if s is None or i in beside else s.to(t.dtype) for i, (s, t) in found]

    def _check_outside(self) -> None:
        """The parameters read now must be those of the forward pass; a functional call swaps them back."""
        own, outside = self._tensors[: self._num_own], self._tensors[self._num_own :]
        now = self._layout.outside_tensors(self._job.statistics, own)
        if {id(t) for t in now} != {id(t) for t in outside}:
            raise MarginsError(
                "evaluator",
                expected="the same parameters in backward as in forward",
                received="others: they were swapped in between (torch.func.functional_call)",
                fix="use the dense evaluator there",
            )

    def _of_factors(self, values: Sequence[Any]) -> list[Any]:
        """Of one value a tensor, those of what scores are made of."""
        return [*values[: self._factors], *values[self._num_own :]]

    def _blocks(self) -> None:
        plan, stripes = self._job.blocks.plan, self._job.blocks.stripes
        scores = BlockScores.of(
            self._layout,
            self._of_factors(self._tensors),
            plan,
            self._of_factors(self._sums),
            kept=self._job.blocks.kept,
        )
        scratch, self._needs_scores = scores.scratch(), scores.needs_scores or scores.keeps
        self._wanted = scores.gradient_dtype
        active = [[u.of_rows(*stripe.rows) for u in self._active] for stripe in stripes]
        for number, columns in enumerate(plan.column_spans()):
            scores.turn_to(columns)
            for stripe, upstream in zip(stripes, active, strict=True):
                made = scores.make(stripe.rows)
                scratch.release_all()
                gradient = self._of_scores(made, scratch, stripe, number, columns, upstream)
                if stripe.listing is not None and self._listed is not None:
                    gradient = gradient.contiguous()
                    part = self._listed[stripe.listing.numbers(number)].to(gradient.dtype)
                    gradient.view(-1).index_add_(0, stripe.listing.places(number), part)
                scores.bring_back(gradient)
            scores.leave()
        scores.finish()

    def _of_scores(
        self,
        made: Tensor,
        scratch: Scratch,
        stripe: Stripe,
        number: int,
        columns: Span,
        active: list[Upstream],
    ) -> Tensor:
        """The gradient of a block of scores; may overwrite these where they are not needed any more."""
        layout, holes = self._layout, stripe.holes(number)
        beside = layout.cut_beside(self._tensors, stripe.rows, columns)
        if not active:
            return scratch.take(made.shape).zero_()
        if have_slopes(active) and not layout.has_learned_targets:
            entries = layout.entries(made, [t.detach() for t in beside], stripe.targets, columns, holes)
            may = not self._needs_scores
            return gradient_by_slopes(entries, active, scratch, may_overwrite=may, dtype=self._wanted)
        sums = self._sums[self._factors :]
        with torch.enable_grad():
            leaf = made.detach().requires_grad_()
            leaves = [t.detach().requires_grad_(s is not None) for t, s in zip(beside, sums, strict=False)]
            entries = layout.entries(leaf, leaves, stripe.targets, columns, holes)
            outputs, upstream = pieces(entries, active)
        reached = [leaf, *leaves, *self._tensors[self._num_own :]]
        wanted = [0, *(i + 1 for i, s in enumerate(sums) if s is not None)]
        parts = _gradients(outputs, [reached[i] for i in wanted], upstream)
        axes = [*layout.axes[self._factors :], *((None, None) for _ in self._tensors[self._num_own :])]
        for i, part in zip(wanted[1:], parts[1:], strict=True):
            add_part(sums[i - 1], part, axes[i - 1], stripe.rows, columns)
            if part is not None:
                self._reached.add(self._factors + i - 1)
        return torch.zeros_like(made) if parts[0] is None else parts[0]


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], upstream: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """As autograd gives them: None for an input that no output depends on."""
    if not outputs:
        return (None,) * len(inputs)
    return torch.autograd.grad(outputs, inputs, upstream, allow_unused=True)
