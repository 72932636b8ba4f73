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
from margins.engine.sources import Factored
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
        inputs = _Inputs.of(here)
        return list(_Scan.apply(statistics, inputs, self.block_size, *inputs.tensors))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class _Inputs:
    """Every tensor that the gradient may reach, in one flat list, and how to put them back.

    `axes` says along which axis a tensor runs with the candidates, and so is cut into blocks.
    """

    source: Factored
    targets: Targets
    tensors: tuple[Tensor, ...]
    axes: tuple[int | None, ...]
    side: tuple[str, ...]
    rows: tuple[str, ...]
    num_leaves: int  # all but the parameters of the loss: phi reads those itself, so they stay as they are

    @classmethod
    def of(cls, here: Pass) -> _Inputs:
        source = here.source
        assert isinstance(source, Factored)  # noqa: S101  (checked by the evaluator)
        bias = () if source.bias is None else (source.bias,)
        graded = tensors_with_gradient(here.targets)
        rest = (*here.rows.values(), *graded, *here.params)
        side = tuple(here.side.values())
        axes = (None, 0, *(0 for _ in bias), *(None if b.shape[1] == 1 else 1 for b in side))
        tensors = (source.embeddings, source.candidates, *bias, *side, *rest)
        return cls(
            source=source,
            targets=here.targets,
            tensors=tensors,
            axes=axes + (None,) * len(rest),
            side=tuple(here.side),
            rows=tuple(here.rows),
            num_leaves=len(tensors) - len(here.params),
        )

    def block(self, tensors: Sequence[Tensor], start: int, stop: int) -> BlockEntries:
        """The entries of some columns, made of `tensors` that are cut to them already."""
        place = iter(tensors)
        bias = None if self.source.bias is None else tensors[2]
        cut = Factored(self.source.rule, next(place), next(place), bias)
        if bias is not None:
            next(place)
        side = {name: next(place) for name in self.side}
        rows = {name: next(place) for name in self.rows}
        targets = self.targets
        swap = {id(t): next(place) for t in tensors_with_gradient(targets)}
        if swap:
            targets = targets.map_tensors(lambda t: swap.get(id(t), t))
        return BlockEntries(cut.matrix(), targets, start, stop, side=side, rows=rows)

    def cut(self, tensors: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
        """The part of every tensor that some columns need."""
        return [
            t if axis is None else t.narrow(axis, start, stop - start)
            for t, axis in zip(tensors, self.axes, strict=True)
        ]


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
        ctx: Any, statistics: tuple[Statistic, ...], inputs: _Inputs, block_size: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        running = [_Running.start(s, tensors[0]) for s in statistics]
        for start, stop in column_blocks(tensors[1].shape[0], block_size):
            entries = inputs.block(inputs.cut(tensors, start, stop), start, stop)
            running = [r.add(entries.terms(r.statistic)) for r in running]
        found = tuple(r.value for r in running)
        ctx.statistics, ctx.inputs, ctx.block_size = statistics, inputs, block_size
        ctx.save_for_backward(*tensors, *found, *(r.ties for r in running))
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise OnceDifferentiableError(
                "the blockwise evaluator gives first derivatives only: a step that needs second ones "
                "(bilevel, gradient penalty) must use the dense evaluator"
            )
        num_tensors, num_found = len(ctx.inputs.tensors), len(ctx.statistics)
        tensors, rest = ctx.saved_tensors[:num_tensors], ctx.saved_tensors[num_tensors:]
        # Constants of the block's own small graph: what was saved still remembers the whole one.
        rest = [t.detach() for t in rest]
        rows = list(zip(upstream, rest[:num_found], rest[num_found:], strict=True))
        gradients = [
            torch.zeros_like(t) if w else None for t, w in zip(tensors, ctx.needs_input_grad[3:], strict=True)
        ]
        device = tensors[0].device.type
        with torch.enable_grad(), torch.autocast(device, enabled=False):
            for start, stop in column_blocks(tensors[1].shape[0], ctx.block_size):
                _add_block(ctx, tensors, gradients, rows, (start, stop))
        return (None, None, None, *gradients)


def _add_block(
    ctx: Any,
    tensors: Sequence[Tensor],
    gradients: list[Tensor | None],
    rows: list[tuple[Tensor, Tensor, Tensor]],
    columns: tuple[int, int],
) -> None:
    """Makes the block again and adds its share to the gradients."""
    inputs: _Inputs = ctx.inputs
    leaves = inputs.cut(tensors, *columns)
    for i in range(inputs.num_leaves):
        leaves[i] = leaves[i].detach().requires_grad_(gradients[i] is not None)
    entries = inputs.block(leaves, *columns)
    pieces: list[Tensor] = []
    for statistic, row in zip(ctx.statistics, rows, strict=True):
        terms = entries.terms(statistic)
        if terms.requires_grad:
            pieces.append((_upstream_of_terms(statistic, terms.detach(), *row) * terms).sum())
    if not pieces:
        return
    active = [i for i, g in enumerate(gradients) if g is not None]
    parts: Sequence[Tensor | None] = torch.autograd.grad(
        pieces, [leaves[i] for i in active], allow_unused=True
    )
    for i, part in zip(active, parts, strict=True):
        total, axis = gradients[i], inputs.axes[i]
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
