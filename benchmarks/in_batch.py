"""InfoNCE over large batches of pairs: blocks against the matrix of scores and against gradient caching.

What sentence-transformers' losses do is measured on embeddings: the encoder given to them hands rows through
and puts their gradient where it belongs. Scores are cosines over a temperature of 0.05, a scale of 20. The
limit is that of three B x B x d products.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from contest import OURS, Contest, Inputs, LossOf, Way, run_all
from limits import three_products
from margins.engine import Blockwise
from margins.losses import InfoNCE

DIM = 384
TEMPERATURE = 0.05
PACKAGE = "sentence-transformers"


class Handed(torch.autograd.Function):
    """Rows as they are; their gradient goes to its place, so that a mini-batch costs nothing but itself."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, rows: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        ctx.gradient.copy_(upstream)
        return None, None, None


class Through(nn.Module):
    """The least that gradient caching takes for an encoder: what it is given are the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.handle = nn.Parameter(torch.zeros(()))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": Handed.apply(self.handle, features["input_ids"], features["gradient"])}

    def __getitem__(self, _: int) -> nn.Module:
        return self


def pairs(num_rows: int) -> Inputs:
    """Embeddings of queries and of documents that resemble them."""
    queries = torch.randn(num_rows, DIM)
    return queries, 0.5 * queries + torch.randn(num_rows, DIM)


def ours() -> LossOf:
    """Blocks of documents, recomputed in the backward pass."""
    loss, evaluator = InfoNCE(TEMPERATURE), Blockwise()
    return lambda queries, documents: loss.on_pairs(queries, documents, evaluator=evaluator)


def dense() -> LossOf:
    """The whole matrix of scores, and torch's fused cross-entropy."""

    def loss(queries: Tensor, documents: Tensor) -> Tensor:
        scores = functional.normalize(queries) @ functional.normalize(documents).T / TEMPERATURE
        return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))

    return loss


def ranking() -> LossOf:
    """sentence-transformers' loss of embeddings."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(Through(), scale=1 / TEMPERATURE)
    return lambda *embeddings: loss.compute_loss_from_embeddings(list(embeddings), None)


def cached(mini_batch: int) -> LossOf:
    """The same with gradient caching."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(Through(), scale=1 / TEMPERATURE, mini_batch_size=mini_batch)

    def of_embeddings(*embeddings: Tensor) -> Tensor:
        for x in embeddings:
            x.grad = torch.empty_like(x)
        return loss([{"input_ids": x.detach(), "gradient": x.grad} for x in embeddings], None)

    return of_embeddings


def contest(num_rows: int, *, is_large: bool) -> Contest:
    """The contest at a size; the slow ways in processes of their own where the scores take a gigabyte."""
    return Contest(
        name="InfoNCE in batch", size=f"B {num_rows}, d {DIM}",
        inputs=partial(pairs, num_rows), small=partial(pairs, 16), num_learned=2, limit=three_products,
        rounds=3 if is_large else 9, warm_up=1 if is_large else 2,
        ways={
            OURS: Way(make=ours),
            "torch dense": Way(
                make=dense, alone=2 * is_large, ratio=0.7 if is_large else None,
                memory_mib=200e6 / 2**20 if is_large else None,
            ),
            "MNRL": Way(make=ranking, is_slow=is_large, package=PACKAGE),
            "cached MNRL, mini-batch 32": Way(make=partial(cached, 32), is_slow=is_large, package=PACKAGE),
            "cached MNRL, mini-batch 256": Way(
                make=partial(cached, 256), alone=2 * is_large, ratio=0.6 if is_large else None,
                package=PACKAGE,
            ),
        },
    )  # fmt: skip


CONTESTS = [contest(4096, is_large=False), contest(16384, is_large=True)]

if __name__ == "__main__":
    sys.exit(run_all(CONTESTS))
