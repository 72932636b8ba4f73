"""Pair sums against all pairs in blocks written by hand in torch, and against one sort of the scores.

Forward and backward to the scores, one in ten positive, of the loss that a user calls. Small sizes take turns
and what is compared is the median of the ratios of neighbouring runs; the blocked sums of 100,000 scores take
seconds and run a few times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dense_losses import Step, take_turns
from margins.engine.pairs.sums import STEP, pair_sums
from margins.losses import MannWhitney
from recording import Row, compared, record

BLOCK_ELEMENTS = 1 << 17  # fits the caches: the fastest of 4 to 1024 positives at a time
LIMIT_OF_BLOCKED = 1 / 150
LIMIT_OF_SORT = 3.0
LIMIT_OF_STEP = 2.0
LIMIT_MS_AT_TEN_MILLION = 5000.0


@dataclass(frozen=True)
class Comparison:
    """What is compared at a size, in how many rounds, and what the ratio or the time may be."""

    name: str
    num_scores: int
    peer: str
    rounds: int
    limit: float
    limit_of: str = "ratio"


COMPARISONS = (
    Comparison("pairs logistic", 32_000, "blocked by hand", 15, 1 / 25),
    Comparison("pairs logistic", 100_000, "blocked by hand", 3, LIMIT_OF_BLOCKED),
    Comparison("pairs logistic", 1_000_000, "one sort", 15, LIMIT_OF_SORT),
    Comparison("pairs squared hinge", 100_000, "one sort", 31, LIMIT_OF_SORT),
    Comparison("pairs squared hinge", 1_000_000, "one sort", 11, LIMIT_OF_SORT),
    Comparison("pairs step", 1_000_000, "one sort", 11, LIMIT_OF_STEP),
    # Last: what follows it pays for memory that it gave back.
    Comparison("pairs logistic", 10_000_000, "one sort", 3, LIMIT_MS_AT_TEN_MILLION, "ms"),
)


class BlockedLogistic(torch.autograd.Function):
    """Sum of softplus(negative - positive), block by block in both passes; nothing of size P x N is kept."""

    @staticmethod
    def forward(ctx, positives: Tensor, negatives: Tensor) -> Tensor:
        ctx.save_for_backward(positives, negatives)
        ctx.size = max(1, BLOCK_ELEMENTS // len(negatives))
        blocks = positives.split(ctx.size)
        return torch.stack([softplus(negatives - block[:, None]).sum() for block in blocks]).sum()

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, Tensor]:
        positives, negatives = ctx.saved_tensors
        of_positives, of_negatives = [], torch.zeros_like(negatives)
        for block in positives.split(ctx.size):
            slopes = torch.sigmoid(negatives - block[:, None])
            of_positives.append(-slopes.sum(1))
            of_negatives += slopes.sum(0)
        return upstream * torch.cat(of_positives), upstream * of_negatives


def blocked_by_hand(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over the pairs."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    return BlockedLogistic.apply(positives, negatives) / (len(positives) * len(negatives))


def step_sum(scores: Tensor, labels: Tensor) -> Tensor:
    """One minus the area under the ROC curve; there is no gradient."""
    found = pair_sums(scores[None], labels[None] == 1, surrogate=STEP)
    return (found.values / found.pairs)[0]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pairs logistic": MannWhitney(),
    "pairs squared hinge": MannWhitney("squared_hinge"),
    "pairs step": step_sum,
}


def steps_of(comparison: Comparison) -> tuple[Step, Step]:
    """The loss and its peer on the same scores."""
    rng = torch.Generator().manual_seed(0)
    labels = (torch.rand(comparison.num_scores, generator=rng) < 0.1).long()
    scores = torch.randn(comparison.num_scores, generator=rng) + labels
    leaf = scores.clone().requires_grad_()

    def differentiated(loss_of: Callable[[Tensor, Tensor], Tensor]) -> Step:
        def step() -> Tensor:
            leaf.grad = None
            loss = loss_of(leaf, labels)
            if loss.requires_grad:
                loss.backward()
            return loss.detach()

        return step

    ours = differentiated(LOSSES[comparison.name])
    is_sort = comparison.peer == "one sort"
    return ours, (lambda: scores.sort().values) if is_sort else differentiated(blocked_by_hand)


def row_of(comparison: Comparison) -> Row:
    """Times of one comparison; the blocked sums must agree with ours."""
    ours, peer = steps_of(comparison)
    value, other = ours(), peer()
    if comparison.peer != "one sort":
        torch.testing.assert_close(value, other, rtol=1e-4, atol=0)
    times = take_turns({"ours": ours, "peer": peer}, comparison.rounds, 0)  # warm by now
    return Row(
        name=comparison.name, size=f"n {comparison.num_scores:,}, 10 % positive", peer=comparison.peer,
        limit=comparison.limit, limit_of=comparison.limit_of,
        **compared(times["ours"], times["peer"]),
    )  # fmt: skip


def main() -> int:
    """Measures, records, and says by the exit code whether the limits hold."""
    rows = [row_of(comparison) for comparison in COMPARISONS]
    record(rows)
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
