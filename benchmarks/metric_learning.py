"""Metric-learning losses of a batch, mining included, against pytorch-metric-learning.

PML is pytorch-metric-learning. Embeddings of four items a class, positives a little closer than negatives, as
early in a training. The limit is that of three B x B x d products.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from contest import OURS, Contest, Inputs, LossOf, Way, run_all
from limits import Run, three_products
from margins import losses
from margins.engine import Blockwise

DIM, ITEMS = 128, 4
SUP_CON_TEMPERATURE, NT_XENT_TEMPERATURE = 0.1, 0.07
TRIPLET_MARGIN = 0.2
PEER = "pytorch-metric-learning"


def labelled(num_rows: int) -> Inputs:
    """Unit-length-ish embeddings around class centres, and labels."""
    labels = torch.randperm(num_rows) // ITEMS
    centres = torch.randn(num_rows // ITEMS + 1, DIM)
    return 0.5 * centres[labels] + torch.randn(num_rows, DIM), labels


def our_sup_con(temperature: float) -> LossOf:
    """Every positive against all others."""
    loss, evaluator = losses.SupCon(temperature), Blockwise()
    return lambda x, labels: loss.on_embeddings(x, labels, evaluator=evaluator)


def our_decoupled() -> LossOf:
    """Every positive against the negatives alone."""
    loss, evaluator = losses.DecoupledSoftmax(NT_XENT_TEMPERATURE), Blockwise()
    return lambda x, labels: loss.on_embeddings(x, labels, evaluator=evaluator)


def our_multi_similarity() -> LossOf:
    """Mining and loss in one."""
    loss, evaluator = losses.MultiSimilarity(), Blockwise()
    return lambda x, labels: loss.on_embeddings(x, labels, evaluator=evaluator)


def our_triplet() -> LossOf:
    """Semi-hard mining and loss in one."""
    return losses.SemiHardTriplet(margin=TRIPLET_MARGIN).on_embeddings


def dense_sup_con() -> LossOf:
    """The formula by hand in torch."""

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        unit = functional.normalize(x)
        scores = unit @ unit.T / SUP_CON_TEMPERATURE
        itself = torch.eye(len(labels), dtype=torch.bool, device=x.device)
        positive = (labels[:, None] == labels) & ~itself
        partition = scores.masked_fill(itself, -torch.inf).logsumexp(1)
        return (partition - (scores * positive).sum(1) / positive.sum(1)).mean()

    return loss


def peer_sup_con() -> LossOf:
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(temperature=SUP_CON_TEMPERATURE)


def peer_nt_xent() -> LossOf:
    from pytorch_metric_learning.losses import NTXentLoss

    return NTXentLoss(temperature=NT_XENT_TEMPERATURE)


def peer_multi_similarity() -> LossOf:
    from pytorch_metric_learning.losses import MultiSimilarityLoss
    from pytorch_metric_learning.miners import MultiSimilarityMiner

    loss, miner = MultiSimilarityLoss(alpha=2, beta=50, base=0.5), MultiSimilarityMiner(epsilon=0.1)
    return lambda x, labels: loss(x, labels, miner(x, labels))


def peer_triplet() -> LossOf:
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner

    loss = TripletMarginLoss(margin=TRIPLET_MARGIN)
    miner = TripletMarginMiner(margin=TRIPLET_MARGIN, type_of_triplets="semihard")
    return lambda x, labels: loss(x, labels, miner(x, labels))


def limit(x: Tensor, _: Tensor) -> Run:
    """The products of the batch with itself."""
    return three_products(x, x)


def contest(name: str, num_rows: int, ways: dict[str, Way], rounds: int = 9) -> Contest:
    """A contest at a size."""
    return Contest(
        name=name, size=f"B {num_rows}, d {DIM}, {ITEMS} a class", inputs=partial(labelled, num_rows),
        small=partial(labelled, 32), num_learned=1, limit=limit, rounds=rounds, ways=ways,
    )  # fmt: skip


def sup_con(num_rows: int, ratio: float | None) -> Contest:
    """SupCon."""
    return contest("SupCon", num_rows, {
        OURS: Way(make=partial(our_sup_con, SUP_CON_TEMPERATURE)),
        "PML SupConLoss": Way(make=peer_sup_con, ratio=ratio, package=PEER),
        "torch by hand": Way(make=dense_sup_con),
    })  # fmt: skip


def multi_similarity(num_rows: int, ratio: float) -> Contest:
    """Multi-similarity with its mining."""
    return contest("MultiSimilarity, mined", num_rows, {
        OURS: Way(make=our_multi_similarity),
        "PML MultiSimilarity + miner": Way(make=peer_multi_similarity, ratio=ratio, package=PEER),
    })  # fmt: skip


def triplet(num_rows: int, ratio: float, alone: int) -> Contest:
    """Triplets with semi-hard mining."""
    return contest("triplet, semi-hard", num_rows, {
        OURS: Way(make=our_triplet),
        "PML TripletMargin + miner": Way(
            make=peer_triplet, ratio=ratio, alone=alone, package=PEER
        ),
    })  # fmt: skip


def nt_xent(num_rows: int) -> Contest:
    """NT-Xent with labels: a softmax of every positive among the negatives."""
    return contest("NT-Xent, labels", num_rows, {
        OURS: Way(make=our_decoupled),
        "PML NTXentLoss": Way(make=peer_nt_xent, package=PEER, alone=3, address_space_gib=13.0),
    })  # fmt: skip


CONTESTS = [
    *(sup_con(1024, None), sup_con(4096, 1 / 3)),
    *(multi_similarity(1024, 1 / 4), multi_similarity(4096, 1 / 6)),
    *(triplet(1024, 1 / 50, 0), triplet(4096, 1 / 20, 3)),
    *(nt_xent(256), nt_xent(1024), nt_xent(4096)),
]

if __name__ == "__main__":
    sys.exit(run_all(CONTESTS))
