"""The sum of row losses and its gradient found together, some whole rows of scores at a time.

The scores of these rows are kept until their gradient is found: embeddings and candidates meet in three
matrix products, however many stages a loss has. The gradient is that of the sum; what multiplies the sum
later multiplies the gradient. So it serves a loss that is reduced to one number, not rows with weights of
their own from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.blocks.layout import leaves_of, narrowed
from margins.engine.blocks.scores import add_part
from margins.engine.evaluators import Evaluator, Side, ValueOfRows
from margins.engine.sources import Factored, accumulator, at_least_float32
from margins.errors import refuse_second_derivative
from margins.targets import Targets


def summed(
    value_of: ValueOfRows, evaluator: Evaluator, source: Factored, targets: Targets, side: Side, rows: int
) -> Float[Tensor, ""]:
    """The value of all rows, once differentiable, by the learned tensors that `value_of` reads as well.

    Args:
        value_of: the sum over the rows that it is given; independent of other rows.
        evaluator: of these rows.
        source: of the scores.
        targets: same shape; without tensors that ask for a gradient.
        side: blocks beside the scores.
        rows: so many at a time.
    """
    bias = () if source.bias is None else (source.bias,)
    own = (source.embeddings, source.candidates, *bias, *side.values())
    job = _Job(value_of, evaluator, source, targets, tuple(side), rows)
    # One row, scored from constants: what still asks for a gradient came from elsewhere.
    with torch.enable_grad():
        constants = [narrowed(t, a, (0, 1), (0, 0)).detach() for t, a in zip(own, job.axes(own), strict=True)]
        outside = tuple(leaves_of([job.value(constants, 0, 1)]))
    return _Summed.apply(replace(job, outside=outside), *own, *outside)  # pyright: ignore[reportReturnType, reportGeneralTypeIssues]


@dataclass(frozen=True, eq=False)
class _Job:
    """See `summed`; `outside` are the learned tensors that are no part of the source or beside it."""

    value_of: ValueOfRows
    evaluator: Evaluator
    source: Factored
    targets: Targets
    side: tuple[str, ...]
    rows: int
    outside: tuple[Tensor, ...] = ()

    def axes(self, tensors: Sequence[Tensor]) -> list[tuple[int | None, int | None]]:
        """Of embeddings, candidates, bias and side blocks the axis that runs with the rows."""
        num_factors = len(tensors) - len(self.side)
        beside = [(None if t.shape[0] == 1 else 0, None) for t in tensors[num_factors:]]
        return [(0, None), *((None, None) for _ in tensors[1:num_factors]), *beside]

    def value(self, leaves: Sequence[Tensor], start: int, stop: int) -> Tensor:
        """The sum over some rows."""
        num_factors = len(leaves) - len(self.side)
        source = Factored(self.source.rule, *leaves[:num_factors])
        side = dict(zip(self.side, leaves[num_factors:], strict=True))
        return self.value_of(source, self.targets.between(start, stop), side, self.evaluator)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> Tensor:
        needs = ctx.needs_input_grad[1:]
        sums = [accumulator(t) if n else None for t, n in zip(tensors, needs, strict=True)]
        own = tensors[: len(tensors) - len(job.outside)]
        axes, num_anchors = job.axes(own), own[0].shape[0]
        total = own[0].new_zeros((), dtype=torch.float64)
        for start in range(0, num_anchors, job.rows):
            rows = (start, min(start + job.rows, num_anchors))
            with torch.enable_grad():
                leaves = [
                    narrowed(t, a, rows, (0, 0)).detach().requires_grad_(n)
                    for t, a, n in zip(own, axes, needs, strict=False)
                ]
                value = job.value(leaves, *rows)
            total += value.detach()
            wanted = [i for i, n in enumerate(needs) if n]
            reached = [*leaves, *job.outside]
            parts = torch.autograd.grad(value, [reached[i] for i in wanted], allow_unused=True)
            for i, part in zip(wanted, parts, strict=True):
                add_part(sums[i], part, axes[i] if i < len(own) else (None, None), rows, (0, 0))
        ctx.save_for_backward(*(s for s in sums if s is not None))
        ctx.dtypes = [t.dtype for t, n in zip(tensors, needs, strict=True) if n]
        return total.to(at_least_float32(own[0][:0]).dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative("blockwise")
        found = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        # Most often the sum is the loss: then what was found is handed on without a copy.
        is_loss = bool(upstream[0] == 1)
        gradients = ((g if is_loss else upstream[0] * g).to(dtype) for g, dtype in found)
        return None, *(next(gradients) if n else None for n in ctx.needs_input_grad[1:])
