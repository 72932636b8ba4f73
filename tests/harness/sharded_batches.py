"""Jobs of ranks that share a contrastive batch, class vectors, checkpoints or a trained network."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.blockwise import LargestTensor
from made_up_targets import made
from margins.engine import Blockwise, Sharded, before_averaging, gather_rows
from margins.engine.across_ranks.ranks import Ranks
from margins.heads import ShardedCandidates
from margins.losses import CrossEntropy, InfoNCE, LearnedTemperature, SquaredError, SupCon
from margins.losses.forms import EmbeddingLoss, StatisticsLoss
from margins.targets import Targets


def rank_of() -> int:
    return Ranks.of().rank


def tempered(name: str) -> InfoNCE | SupCon:
    """A loss with a learned temperature."""
    return {"InfoNCE": InfoNCE, "SupCon": SupCon}[name](LearnedTemperature(0.5)).double()


def pairs_of_all(queries: Tensor, documents: Tensor, ids: Tensor, with_ids: bool) -> tuple[Tensor, ...]:
    """InfoNCE of the pairs of all ranks, and this rank's gradients."""
    loss = tempered("InfoNCE")
    queries.requires_grad_()
    documents.requires_grad_()
    value = loss.on_pairs(
        queries, documents, item_ids=ids if with_ids else None, evaluator=Sharded(Blockwise(3))
    )
    value.backward()
    return value.detach(), queries.grad, documents.grad, next(loss.parameters()).grad  # type: ignore[return-value]


def items_of_all(embeddings: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """SupCon of the weighted items of all ranks, and this rank's gradients."""
    loss = tempered("SupCon")
    embeddings.requires_grad_()
    targets = Targets.of_matches(labels).weigh(rows=weight)
    value = loss.on_embeddings(embeddings, targets, evaluator=Sharded(Blockwise(3)))
    value.backward()
    return value.detach(), embeddings.grad, next(loss.parameters()).grad  # type: ignore[return-value]


def pairs_of_a_group(queries: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE where ranks 0 and 1 are a group and the last one is another."""
    groups = [dist.new_group([0, 1]), dist.new_group([2])]
    documents.requires_grad_()
    value = InfoNCE(0.5).on_pairs(queries, documents, evaluator=Sharded(group=groups[rank_of() // 2]))
    value.backward()
    assert documents.grad is not None
    return value.detach(), documents.grad


def largest_tensor(name: str, own: int, dim: int, kept: bool) -> int:
    """Elements of the largest tensor made while all ranks' items are compared."""
    rng = torch.Generator().manual_seed(rank_of())
    embeddings = torch.randn(own, dim, generator=rng).requires_grad_()
    labels = torch.arange(own) % 5
    loss: EmbeddingLoss = {"InfoNCE": InfoNCE, "SupCon": SupCon}[name]()
    with LargestTensor() as seen:
        if kept:
            everyone, place = gather_rows(embeddings), torch.arange(own * Ranks.of().size)
            labels = gather_rows(labels)
            loss.on_embeddings(everyone, labels, same_items=place, references=everyone,
                               reference_labels=labels).backward()  # fmt: skip
        elif isinstance(loss, InfoNCE):
            loss.on_pairs(embeddings, embeddings + 0, evaluator=Sharded(Blockwise(8))).backward()
        else:
            loss.on_embeddings(embeddings, labels, evaluator=Sharded(Blockwise(8))).backward()
    return seen.elements


def loss_for(storage: str) -> StatisticsLoss:
    return SquaredError() if storage == "values" else CrossEntropy()


def over_targets(storage: str, layers: tuple[str, ...], sizes: tuple[int, ...]) -> Any:
    """Row losses, and the gradients of anchors and of this rank's candidates, under every layer."""
    rank, found = rank_of(), []
    for layer in layers:
        targets = precisely(storage, layer)
        anchors, candidates = points_for(targets)
        start = sum(sizes[:rank])
        own = candidates[start : start + sizes[rank]].clone().requires_grad_()
        anchors.requires_grad_()
        loss = loss_for(storage).to(anchors.dtype)
        loss.reduction = "none"
        rows = loss.on_candidates(anchors, own, targets, evaluator=Sharded(Blockwise(2)))
        (rows @ (torch.arange(len(rows)) - 1.5).double()).backward()
        found.append((rows.detach(), anchors.grad, own.grad))
    return tuple(found)


def precisely(storage: str, layer: str) -> Targets:
    """One of the cases with its numbers in float64."""
    return made(storage, layer).map_tensors(lambda t: t.double() if t.is_floating_point() else t)


def points_for(targets: Targets) -> tuple[Tensor, Tensor]:
    """Anchors and candidates for targets."""
    rng = torch.Generator().manual_seed(5)
    anchors, candidates = (torch.randn(n, 3, generator=rng, dtype=torch.float64) for n in targets.shape)
    return anchors, candidates


def learned_targets(own: int) -> tuple[Tensor, ...]:
    """The value, and this rank's parts of the gradients of grades, row weights and margins."""
    targets, leaves = targets_that_learn()
    anchors, candidates = points_for(targets)
    start = own * rank_of()
    loss = SupCon(0.5, reduction="weighted_mean").double()
    value = loss.on_candidates(anchors, candidates[start : start + own], targets, evaluator=Sharded())
    value.backward()
    return value.detach(), *(t.grad for t in leaves)  # type: ignore[return-value]


def targets_that_learn() -> tuple[Targets, tuple[Tensor, ...]]:
    rng = torch.Generator().manual_seed(8)
    grades, rows, margins = (
        torch.rand(shape, generator=rng, dtype=torch.float64).requires_grad_()
        for shape in ((4, 6), (4,), (6,))
    )
    targets = Targets.of_scores(grades).weigh(rows=rows).margin(candidates=margins)
    return targets, (grades, rows, margins)


def no_anchors() -> tuple[Tensor, Tensor]:
    """The value of nothing, and the gradient of this rank's candidates."""
    own = torch.ones(2, 3, requires_grad=True)
    labels = torch.zeros(0, dtype=torch.long)
    value = CrossEntropy().on_candidates(torch.zeros(0, 3), own, labels, evaluator=Sharded())
    value.backward()
    assert own.grad is not None
    return value.detach(), own.grad


def saved_candidates() -> Any:
    """All vectors on the first rank, made unlike their start."""
    head = ShardedCandidates(4, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.weight += 1
        head.bias += torch.arange(head.first, head.last)
    state = head.whole_state()
    return None if state is None else (state["weight"], state["bias"])


def loaded_candidates(weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """What this rank starts with, and what it has of a state; and that a state of other shape is refused."""
    head = ShardedCandidates(4, 10, generator=torch.Generator().manual_seed(0))
    start = head.weight.detach().clone()
    try:
        head.load_whole({"weight": weight[: 10 - rank_of()], "bias": bias})
        refused = False
    except ValueError:
        refused = torch.equal(head.weight, start)
    head.load_whole({"weight": weight, "bias": bias})
    assert head.bias is not None
    return start, head.weight.detach(), head.bias.detach(), torch.tensor(refused)


def trained(inputs: Tensor, labels: Tensor, with_fabric: bool) -> tuple[Tensor, ...]:
    """An encoder under DistributedDataParallel and class vectors that are divided, after some steps."""
    encoder, head = encoder_and_head()
    if with_fabric:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import TorchElasticEnvironment

        size = str(Ranks.of().size)
        os.environ.update(
            RANK=str(rank_of()), LOCAL_RANK=str(rank_of()), WORLD_SIZE=size, LOCAL_WORLD_SIZE=size
        )
        fabric = Fabric(
            accelerator="cpu", devices=int(size), strategy="ddp", plugins=[TorchElasticEnvironment()]
        )
        fabric.launch()
        network = fabric.setup_module(encoder)
    else:
        network = nn.parallel.DistributedDataParallel(encoder)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        anchors = gather_rows(before_averaging(network(inputs)))
        weight, bias = head()
        loss = CrossEntropy().on_candidates(
            anchors, weight, gather_rows(labels), bias=bias, evaluator=Sharded()
        )
        loss.backward()
        optimizer.step()
    return loss.detach(), encoder.weight.detach(), *(p.detach() for p in head.parameters())


def encoder_and_head() -> tuple[nn.Linear, ShardedCandidates]:
    """The same start on any number of ranks, in float64."""
    encoder = nn.Linear(3, 4, bias=False)
    generator = torch.Generator().manual_seed(1)
    nn.init.uniform_(encoder.weight, generator=generator)
    return encoder.double(), ShardedCandidates(4, 10, generator=generator).double()


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        *(pairs_of_all, items_of_all, pairs_of_a_group, largest_tensor, over_targets),
        *(saved_candidates, loaded_candidates, trained, learned_targets, no_anchors),
    )
}
