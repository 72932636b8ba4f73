"""Cross-entropy over very many classes: blocks against the whole matrix of logits.

The limit is that of three B x C x d products. Blocks hold no B x C tensor: what they need beyond the inputs
and their gradients is claimed too.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from contest import DEVICE, OURS, Contest, Inputs, LossOf, Way, run_all
from limits import Run, three_products
from margins.engine import Blockwise
from margins.losses import CrossEntropy

DIM = 128
MEMORY_LIMIT = 1 / 20
ON_CPU = DEVICE == "cpu"  # where the claims are made


def classes(num_rows: int, num_classes: int) -> Inputs:
    """Embeddings, class vectors, labels."""
    vectors = torch.randn(num_classes, DIM) / DIM**0.5
    return torch.randn(num_rows, DIM), vectors, torch.randint(num_classes, (num_rows,))


def half_classes(num_rows: int, num_classes: int) -> Inputs:
    """The same with vectors in bfloat16."""
    x, w, labels = classes(num_rows, num_classes)
    return x.bfloat16(), w.bfloat16(), labels


def ours() -> LossOf:
    """Blocks of classes, recomputed in the backward pass."""
    loss, evaluator = CrossEntropy(), Blockwise()
    return lambda x, w, y: loss.on_candidates(x, w, y, bias=None, evaluator=evaluator)


def dense() -> LossOf:
    """A linear layer and torch's fused function."""
    return lambda x, w, y: functional.cross_entropy(functional.linear(x, w).float(), y)


def liger() -> LossOf:
    """Linear layer and cross-entropy in one kernel of Triton, over pieces of the batch."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    return lambda x, w, y: loss(w, x, y)


def cut() -> LossOf:
    """Cross-entropy that never holds the logits, in Triton."""
    from cut_cross_entropy import linear_cross_entropy

    return lambda x, w, y: linear_cross_entropy(x, w, y)


def limit(x: Tensor, w: Tensor, _: Tensor) -> Run:
    """The products."""
    return three_products(x, w)


def contest(
    num_rows: int, num_classes: int, named: str, *, ratio: float, alone: int = 0, rounds: int = 9
) -> Contest:
    """The contest at a size; `alone` timed runs a process where the logits take gigabytes."""
    return Contest(
        name="many classes", size=f"B {num_rows}, C {named}, d {DIM}",
        inputs=partial(classes, num_rows, num_classes), small=partial(classes, 16, 64), num_learned=2,
        limit=limit, rounds=rounds, warm_up=1 if alone else 2,
        ways={
            OURS: Way(make=ours),
            "torch linear + cross_entropy": Way(
                make=dense, alone=alone, ratio=ratio if ON_CPU else None,
                memory_ratio=MEMORY_LIMIT if ON_CPU else None,
            ),
            "Liger kernel": Way(make=liger, package="liger-kernel", needs_cuda=True),
        },
    )  # fmt: skip


def half_contest(num_rows: int, num_classes: int, named: str) -> Contest:
    """The contest in bfloat16, on an accelerator, where cut cross-entropy takes part."""
    return Contest(
        name="many classes, bfloat16", size=f"B {num_rows}, C {named}, d {DIM}",
        inputs=partial(half_classes, num_rows, num_classes), small=partial(half_classes, 128, 512),
        num_learned=2, limit=limit, tolerance=2e-2,
        ways={
            OURS: Way(make=ours),
            "torch linear + cross_entropy": Way(make=dense),
            "Liger kernel": Way(make=liger, package="liger-kernel", needs_cuda=True),
            "cut cross-entropy": Way(make=cut, package="cut-cross-entropy", needs_cuda=True),
        },
    )  # fmt: skip


CONTESTS = [
    contest(256, 100_000, "100 k", ratio=1.0),
    contest(1024, 100_000, "100 k", ratio=1.0),
    contest(256, 1_000_000, "1 M", ratio=0.5, alone=3, rounds=7),
    contest(1024, 1_000_000, "1 M", ratio=0.5, alone=1, rounds=3),
]
if not ON_CPU:
    CONTESTS += [half_contest(1024, 100_000, "100 k"), half_contest(4096, 1_000_000, "1 M")]

if __name__ == "__main__":
    sys.exit(run_all(CONTESTS))
