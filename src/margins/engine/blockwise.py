"""The blockwise evaluator: scores are made block by block, and again in backward; none are kept.

Memory beyond inputs and their gradients is O(anchors x block). Value and gradient equal the dense ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.entries import NEUTRAL, BlockEntries
from margins.engine.evaluators import Evaluator, Pass
from margins.engine.logsumexp import row_logsumexp
from margins.engine.score_rules import ScoreRule
from margins.engine.sources import Factored, full_precision
from margins.engine.statistics import Statistic
from margins.errors import MarginsError, OnceDifferentiableError
from margins.targets import Targets
from margins.targets.storage import column_blocks


@dataclass(frozen=True)
class Blockwise(Evaluator):
    """Scores made in blocks of columns from embeddings and candidates, recomputed in backward.

    Args:
        block_size: columns a block, at least 1.
    """

    block_size: int = 2048

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise MarginsError("block_size", expected="at least 1", received=str(self.block_size))

    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Float[Tensor, " anchors"]]:
        """The statistics, accumulated over blocks."""
        if not isinstance(here.source, Factored):
            raise MarginsError(
                "evaluator",
                expected="embeddings and candidates for the blockwise evaluator",
                received="a matrix of scores",
                fix="call loss.on_candidates(...) or loss.on_embeddings(...), or use Dense()",
            )
        layout, tensors = _laid_out(here)
        outside = layout.outside_tensors(statistics, tensors) if torch.is_grad_enabled() else ()
        found = _Scan.apply(statistics, layout, self.block_size, len(tensors), *tensors, *outside)
        return list(found)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class _Layout:
    """How the flat list of a pass's tensors is put back together; it holds none of those itself.

    `axes` says along which axis a tensor runs with the candidates, and so is cut into blocks.
    """

    rule: ScoreRule
    has_bias: bool
    side: tuple[str, ...]
    rows: tuple[str, ...]
    targets: Targets
    axes: tuple[int | None, ...]

    def block(self, tensors: Sequence[Tensor], start: int, stop: int) -> BlockEntries:
        """The entries of some columns, made of `tensors` that are cut to them already."""
        place = iter(tensors)
        embeddings, candidates = next(place), next(place)
        source = Factored(self.rule, embeddings, candidates, next(place) if self.has_bias else None)
        side = {name: next(place) for name in self.side}
        rows = {name: next(place) for name in self.rows}
        targets = self.targets
        swap = {id(t): next(place) for t in tensors_with_gradient(targets)}
        if swap:
            targets = targets.map_tensors(lambda t: swap.get(id(t), t))
        return BlockEntries(source.matrix(), targets, start, stop, side=side, rows=rows)

    def cut(self, tensors: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
        """The part of every tensor that some columns need."""
        return [
            t if axis is None else t.narrow(axis, start, stop - start)
            for t, axis in zip(tensors, self.axes, strict=True)
        ]

    def outside_tensors(
        self, statistics: Sequence[Statistic], tensors: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Learned tensors that phi or the score rule read by themselves: parameters of a loss or a gate.

        One column is scored from constants; what still asks for a gradient came from elsewhere.
        """
        constants = [t.detach() for t in self.cut(tensors, 0, 1)]
        with torch.enable_grad():
            entries = self.block(constants, 0, 1)
            terms = [entries.terms(s) for s in statistics]
        found: dict[int, Tensor] = {}
        waiting, seen = [t.grad_fn for t in terms if t.grad_fn is not None], set[Any]()
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)  # of the nodes that gather a leaf's gradient
            if leaf is not None:
                found[id(leaf)] = leaf
            waiting.extend(parent for parent, _ in node.next_functions if parent is not None)
        return tuple(found.values())


def _laid_out(here: Pass) -> tuple[_Layout, tuple[Tensor, ...]]:
    source = here.source
    assert isinstance(source, Factored)  # noqa: S101  (checked by the evaluator)
    bias = () if source.bias is None else (source.bias,)
    side = tuple(here.side.values())
    rest = (*here.rows.values(), *tensors_with_gradient(here.targets))
    axes = (None, 0, *(0 for _ in bias), *(None if b.shape[1] == 1 else 1 for b in side))
    layout = _Layout(
        source.rule, bool(bias), tuple(here.side), tuple(here.rows), here.targets, axes + (None,) * len(rest)
    )
    return layout, (source.embeddings, source.candidates, *bias, *side, *rest)


def tensors_with_gradient(targets: Targets) -> list[Tensor]:
    """Tensors inside targets that ask for a gradient (learned or distilled grades, margins, weights)."""
    found: dict[int, Tensor] = {}

    def look(tensor: Tensor) -> Tensor:
        if tensor.requires_grad:
            found.setdefault(id(tensor), tensor)
        return tensor

    targets.map_tensors(look)
    return list(found.values())


class _Scan(torch.autograd.Function):
    """Statistics of all blocks; backward makes each block again and differentiates it alone."""

    @staticmethod
    def forward(
        ctx: Any,
        statistics: tuple[Statistic, ...],
        layout: _Layout,
        block_size: int,
        num_tensors: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        own = tensors[:num_tensors]
        running = [_Running.start(s, own[0]) for s in statistics]
        for start, stop in column_blocks(own[1].shape[0], block_size):
            entries = layout.block(layout.cut(own, start, stop), start, stop)
            running = [r.add(entries.terms(r.statistic)) for r in running]
        found = tuple(r.value for r in running)
        ctx.statistics, ctx.layout, ctx.block_size = statistics, layout, block_size
        ctx.counts = num_tensors, len(tensors)
        ctx.save_for_backward(*tensors, *found, *(r.ties for r in running))
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise OnceDifferentiableError(
                "the blockwise evaluator gives first derivatives only: a step that needs second ones "
                "(bilevel, gradient penalty) must use the dense evaluator"
            )
        num_tensors, num_inputs = ctx.counts
        saved, num_found = ctx.saved_tensors, len(ctx.statistics)
        own, outside = saved[:num_tensors], saved[num_tensors:num_inputs]
        _check_outside(ctx, own, outside)
        # Constants of the block's own small graph: what was saved still remembers the whole one.
        rest = [t.detach() for t in saved[num_inputs:]]
        rows = list(zip(upstream, rest[:num_found], rest[num_found:], strict=True))
        wanted = ctx.needs_input_grad[4:]
        gradients = [
            torch.zeros_like(t) if w else None for t, w in zip(saved[:num_inputs], wanted, strict=True)
        ]
        with torch.enable_grad(), full_precision(own[0].device):
            for start, stop in column_blocks(own[1].shape[0], ctx.block_size):
                _add_block(ctx, own, outside, gradients, rows, (start, stop))
        return (None, None, None, None, *gradients)


def _check_outside(ctx: Any, own: Sequence[Tensor], outside: Sequence[Tensor]) -> None:
    """The parameters read now must be those of the forward pass; a functional call swaps them back."""
    now = ctx.layout.outside_tensors(ctx.statistics, own)
    if {id(t) for t in now} != {id(t) for t in outside}:
        raise MarginsError(
            "evaluator",
            expected="the same parameters in backward as in forward",
            received="others: they were swapped in between (torch.func.functional_call)",
            fix="use the dense evaluator there",
        )


def _add_block(
    ctx: Any,
    own: Sequence[Tensor],
    outside: Sequence[Tensor],
    gradients: list[Tensor | None],
    rows: list[tuple[Tensor, Tensor, Tensor]],
    columns: tuple[int, int],
) -> None:
    """Makes the block again and adds its share to the gradients."""
    layout: _Layout = ctx.layout
    leaves = [
        t.detach().requires_grad_(g is not None)
        for t, g in zip(layout.cut(own, *columns), gradients, strict=False)
    ]
    entries = layout.block(leaves, *columns)
    pieces: list[Tensor] = []
    for statistic, row in zip(ctx.statistics, rows, strict=True):
        terms = entries.terms(statistic)
        if terms.requires_grad:
            pieces.append((_upstream_of_terms(statistic, terms.detach(), *row) * terms).sum())
    if not pieces:
        return
    reached, axes = [*leaves, *outside], [*layout.axes, *(None for _ in outside)]
    active = [i for i, g in enumerate(gradients) if g is not None]
    parts: Sequence[Tensor | None] = torch.autograd.grad(
        pieces, [reached[i] for i in active], allow_unused=True
    )
    for i, part in zip(active, parts, strict=True):
        total, axis = gradients[i], axes[i]
        if part is not None and total is not None:  # pyright: ignore[reportUnnecessaryComparison]
            target = total if axis is None else total.narrow(axis, columns[0], columns[1] - columns[0])
            target += part


def _upstream_of_terms(
    statistic: Statistic, terms: Tensor, upstream: Tensor, found: Tensor, ties: Tensor
) -> Tensor:
    """Upstream gradient times the derivative of the statistic by each of its terms."""
    if statistic.reduce == "sum":
        return upstream[:, None].expand(terms.shape)
    if statistic.reduce == "logsumexp":
        finite = torch.where(found.isneginf(), 0.0, found)
        return upstream[:, None] * (terms - finite[:, None]).exp()
    return upstream[:, None] * (terms == found[:, None]) / ties[:, None]


@dataclass(frozen=True)
class _Running:
    """A statistic of the blocks so far."""

    statistic: Statistic
    value: Float[Tensor, " anchors"]
    ties: Float[Tensor, " anchors"]  # how many terms equal a max or min, which share its gradient

    @classmethod
    def start(cls, statistic: Statistic, like: Tensor) -> _Running:
        value = like.new_full((like.shape[0],), NEUTRAL[statistic.reduce])
        return cls(statistic, value, torch.zeros_like(value))

    def add(self, terms: Float[Tensor, "anchors block"]) -> _Running:
        """With one block more."""
        reduce = self.statistic.reduce
        if reduce == "sum":
            return replace(self, value=self.value + terms.sum(1))
        if reduce == "logsumexp":
            return replace(self, value=torch.logaddexp(self.value, row_logsumexp(terms)))
        block = terms.amax(1) if reduce == "max" else terms.amin(1)
        value = torch.maximum(self.value, block) if reduce == "max" else torch.minimum(self.value, block)
        kept = torch.where(value == self.value, self.ties, 0.0)
        return replace(self, value=value, ties=kept + (terms == value[:, None]).sum(1))
