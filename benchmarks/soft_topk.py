"""The soft top 100 of 256 rows of 100,000 scores, forward and backward, beside a bisection and a hard top k.

The bisection is 32 steps written by hand in torch, with the same gradient. torch.topk finds the hard top k of
the same matrix, forward only: the cost of looking at the scores once, more or less. The readings of the
scores, forward and backward together, are counted and noted; more than twelve break the claim.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from dense_losses import Step, take_turns
from margins.engine import soft_topk
from margins.engine.topk.tiles import Readings
from recording import Row, compared, record

NUM_ROWS, NUM_COLUMNS, K, SHARPNESS = 256, 100_000, 100, 2.0
NUM_STEPS, NUM_ROUNDS = 32, 5
LIMIT_OF_READINGS = 12
LIMIT_OF_BISECTION = 0.25


class Bisection(torch.autograd.Function):
    """The soft top k by bisection, and its gradient by the implicit function theorem."""

    @staticmethod
    def forward(ctx, scores: Tensor) -> Tensor:
        y = scores * SHARPNESS
        low, high = -y.amax(1, keepdim=True) - 10, -y.amin(1, keepdim=True) + 10
        for _ in range(NUM_STEPS):
            middle = (low + high) / 2
            too_few = torch.sigmoid(y + middle).sum(1, keepdim=True) < K
            low, high = torch.where(too_few, middle, low), torch.where(too_few, high, middle)
        found = torch.sigmoid(y + (low + high) / 2)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx, *upstream: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        slopes = SHARPNESS * found * (1 - found)
        own = slopes * upstream[0]
        return own - slopes * (own.sum(1, keepdim=True) / slopes.sum(1, keepdim=True))


def steps_on(scores: Tensor, upstream: Tensor, readings: Readings) -> dict[str, Step]:
    """The contenders on one matrix."""

    def ours() -> Tensor:
        scores.grad, readings.entries = None, 0
        found = soft_topk(scores, K, sharpness=SHARPNESS, readings=readings)
        found.backward(upstream)
        return found.detach()

    def bisection() -> Tensor:
        scores.grad = None
        found = Bisection.apply(scores)
        found.backward(upstream)
        return found.detach()

    def hard() -> Tensor:
        return scores.detach().topk(K).values

    return {"margins": ours, "bisection by hand": bisection, "torch.topk, forward": hard}


def main() -> int:
    """Measures, records, and says by the exit code whether the limits hold."""
    rng, readings = torch.Generator().manual_seed(0), Readings()
    scores = torch.randn(NUM_ROWS, NUM_COLUMNS, generator=rng).requires_grad_()
    upstream = torch.randn(NUM_ROWS, NUM_COLUMNS, generator=rng)
    steps = steps_on(scores, upstream, readings)
    torch.testing.assert_close(steps["margins"](), steps["bisection by hand"](), rtol=1e-3, atol=1e-5)
    times = take_turns(steps, NUM_ROUNDS, 1)
    rows = [
        Row(
            name="soft top k", size=f"B {NUM_ROWS}, C {NUM_COLUMNS}, k {K}", peer=peer,
            limit=LIMIT_OF_BISECTION if peer == "bisection by hand" else None,
            limit_of="ratio" if peer == "bisection by hand" else "",
            note=f"{readings.passes:.1f} readings of the scores",
            **compared(times["margins"], times[peer]),
        )
        for peer in steps
        if peer != "margins"
    ]  # fmt: skip
    record(rows)
    return 0 if all(row.holds for row in rows) and readings.passes <= LIMIT_OF_READINGS else 1


if __name__ == "__main__":
    sys.exit(main())
