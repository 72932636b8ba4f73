"""Candidates that are divided over processes: the same values and gradients as in one process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

from gloo_workers import Pool
from harness.cases import BY_NAME, CASES
from harness.sharded import DTYPES, INNER, RULES, evaluated, sharded_equals_dense
from harness.sharded_batches import (
    encoder_and_head,
    loss_for,
    points_for,
    precisely,
    targets_that_learn,
    tempered,
)
from harness.sharded_refusals import HardestPair, dense_of, posed, tied_scores, tied_targets
from made_up_targets import STORAGES, all_made, assert_same, layers_of, made, written
from margins.engine import Dense, Sharded, before_averaging
from margins.engine.sources import ScoreMatrix
from margins.errors import MarginsError
from margins.heads import ShardedCandidates, shard_range
from margins.losses import CrossEntropy, InfoNCE, SupCon
from margins.targets import Targets

STATISTICS = [case.name for case in CASES if case.form == "statistics"]
WHOLE = slice(None)
both_worlds = pytest.mark.parametrize("world", [2, 3])
every_storage = pytest.mark.parametrize("storage", STORAGES)
same = torch.testing.assert_close


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grad_of(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


# ------------------------------------------------------------------------------------- losses of rows


@both_worlds
@pytest.mark.parametrize("name", STATISTICS)
def test_sharded_equals_dense(pools: dict[int, Pool], world: int, name: str) -> None:
    sharded_equals_dense(name, pools[world])


def test_sharded_equals_dense_from_half_precision(pools: dict[int, Pool]) -> None:
    for name in ("CrossEntropy", "MultiSimilarity"):
        sharded_equals_dense(name, pools[3], dtype="bfloat16", kinds=("label sets",))


@pytest.mark.parametrize("name", ["CrossEntropy", "BinaryFocal"])
def test_a_join_that_forgets_parts_breaks_the_law(pools: dict[int, Pool], name: str) -> None:
    job = "sharded_kinds_badly"
    if name == "BinaryFocal":  # it has no logsumexp, so nothing is wrong
        sharded_equals_dense(name, pools[2], kinds=("classes",), job=job)
        return
    with pytest.raises(AssertionError):
        sharded_equals_dense(name, pools[2], kinds=("classes",), job=job)


@every_storage
def test_every_storage_and_layer_may_be_divided(pools: dict[int, Pool], storage: str) -> None:
    layers = tuple(layers_of(storage))
    num_candidates = made(storage).num_candidates
    sizes = (2, num_candidates - 3, 1)
    answers = pools[3].run("over_targets", [storage] * 3, [layers] * 3, [sizes] * 3)
    for place, layer in enumerate(layers):
        targets = precisely(storage, layer)
        anchors, candidates = (t.requires_grad_() for t in points_for(targets))
        loss = loss_for(storage)
        loss.reduction = "none"
        rows = loss.on_candidates(anchors, candidates, targets)
        (rows @ (torch.arange(len(rows)) - 1.5).double()).backward()
        for found, _, _ in (a[place] for a in answers):
            same(found, rows.detach(), rtol=1e-9, atol=1e-12)
        same(sum(a[place][1] for a in answers), grad_of(anchors), rtol=1e-9, atol=1e-12)
        same(torch.cat([a[place][2] for a in answers]), grad_of(candidates), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sparse", [True, False], ids=["listed", "scanned"])
@pytest.mark.parametrize("sizes", [(3, 3), (5, 1), (0, 6), (2, 3, 1), (0, 5, 1)], ids=str)
def test_extremes_share_their_gradient_among_ties_wherever_they_live(
    pools: dict[int, Pool], sizes: tuple[int, ...], sparse: bool
) -> None:
    world = len(sizes)
    answers = pools[world].run("tied", [sizes] * world, [sparse] * world)
    scores = tied_scores().requires_grad_()
    targets = tied_targets() if sparse else dense_of(tied_targets())
    rows = HardestPair().evaluate(ScoreMatrix(scores), targets, Dense()).weighted()
    (rows @ torch.tensor([1.0, 2.0, -1.0, 0.5])).backward()
    assert ((grad_of(scores) != 0).sum(1) > 2).any(), "vacuous: no ties"
    for found, _ in answers:
        same(found, rows.detach())
    same(torch.cat([g for _, g in answers], 1), grad_of(scores))


@both_worlds
def test_the_gradient_is_that_of_the_mean_of_what_ranks_back_propagate(
    pools: dict[int, Pool], world: int
) -> None:
    upstreams = (3.0, -1.0, 0.5)[:world]
    answers = pools[world].run("own_share", [upstreams] * world)
    anchors = torch.arange(8.0).reshape(4, 2).cos().requires_grad_()
    own = torch.cat([torch.ones(3, 2) * (rank + 1) for rank in range(world)]).requires_grad_()
    (posed(anchors=anchors, own=own) * (sum(upstreams) / world)).backward()
    same(sum(a for a, _ in answers), grad_of(anchors))
    same(torch.cat([o for _, o in answers]), grad_of(own))


@both_worlds
def test_gradients_of_learned_targets_are_parts_of_the_whole(pools: dict[int, Pool], world: int) -> None:
    answers = pools[world].run("learned_targets", [6 // world] * world)
    targets, leaves = targets_that_learn()
    loss = SupCon(0.5, reduction="weighted_mean").double()
    value = loss.on_candidates(*points_for(targets), targets)
    value.backward()
    assert all(grad_of(leaf).abs().max() > 1e-3 for leaf in leaves)
    for place, leaf in enumerate(leaves, 1):
        same(sum(a[place] for a in answers), grad_of(leaf))
    for found, *_ in answers:
        same(found, value.detach())


@both_worlds
def test_without_anchors_the_loss_is_zero(pools: dict[int, Pool], world: int) -> None:
    for value, gradient in pools[world].run("no_anchors"):
        assert float(value) == 0
        assert not gradient.any()


@both_worlds
def test_a_second_derivative_is_refused_by_name(pools: dict[int, Pool], world: int) -> None:
    assert all("first derivatives only" in m for m in pools[world].run("twice_sharded"))


@pytest.mark.parametrize("inner", INNER)
def test_one_process_is_exactly_its_inner_evaluator(inner: str) -> None:
    case = BY_NAME["InfoNCE[learned]"]
    pair = [
        evaluated(case, "matches", evaluator, RULES[inner], WHOLE, DTYPES["float64"])
        for evaluator in (INNER[inner], Sharded(INNER[inner]))
    ]
    for a, b in zip(*(_pytree.tree_leaves(vars(p)) for p in pair), strict=True):
        assert torch.equal(a, b)
    tensor = drawn(2, 2)
    assert before_averaging(tensor) is tensor
    with pytest.raises(MarginsError, match="inner"):
        Sharded(Sharded())


# ---------------------------------------------------------------------------------- columns of targets


@every_storage
def test_columns_say_what_the_whole_says_about_them(storage: str) -> None:
    for targets in all_made(storage):
        num_candidates = targets.num_candidates
        for start, stop in ((0, num_candidates), (1, 4), (4, num_candidates), (3, 3)):
            view = targets.columns(start, stop)
            assert view.is_sparse == targets.is_sparse
            for a, b in zip(written(view), written(targets, start, stop), strict=True):
                assert torch.equal(a, b)
            again = view.take(torch.tensor([2, 0, 2]))
            assert_same(again, targets.take(torch.tensor([2, 0, 2])).columns(start, stop))
            assert_same(type(view).cat([view, view]), targets.cat([targets, targets]).columns(start, stop))
            leaves, spec = _pytree.tree_flatten(view)
            assert_same(_pytree.tree_unflatten(leaves, spec), view)


@pytest.mark.parametrize("storage", [s for s in STORAGES if s != "values"])
def test_listed_positives_of_columns_are_those_of_the_whole_inside(storage: str) -> None:
    targets = made(storage)
    listed, inside = targets.positives(), targets.columns(1, 4).positives()
    kept = (listed.columns >= 1) & (listed.columns < 4)
    for a, b in zip(inside, (listed.rows[kept], listed.columns[kept] - 1, listed.values[kept]), strict=True):
        assert torch.equal(a, b)


def test_columns_outside_are_refused() -> None:
    for start, stop in ((-1, 2), (3, 2), (0, 8)):
        with pytest.raises(MarginsError, match="columns"):
            made("classes").columns(start, stop)


# --------------------------------------------------------------------------------- contrastive batches


@pytest.mark.parametrize("sizes", [[3, 5], [6, 0], [2, 4, 3], [0, 5, 4]], ids=str)
@pytest.mark.parametrize("with_ids", [False, True], ids=["plain", "ids"])
def test_pairs_of_all_ranks_are_one_batch(pools: dict[int, Pool], sizes: list[int], with_ids: bool) -> None:
    world, num, extra = len(sizes), sum(sizes), 2
    queries, documents = drawn(num, 3), drawn(num + extra * world, 3, seed=1)
    ids = torch.arange(num + extra * world) % 7
    widths = [n + extra for n in sizes]
    answers = pools[world].run(
        "pairs_of_all", list(queries.split(sizes)), list(documents.split(widths)), list(ids.split(widths)),
        [with_ids] * world,
    )  # fmt: skip
    # One process: the paired documents first, the extra ones of every rank after them.
    starts = torch.tensor([0, *widths]).cumsum(0)[:-1]
    own = torch.cat([start + torch.arange(n) for start, n in zip(starts, sizes, strict=True)])
    rest = torch.tensor([c for c in range(len(documents)) if c not in own.tolist()])
    order = torch.cat([own, rest])
    loss, q, d = tempered("InfoNCE"), queries.requires_grad_(), documents.requires_grad_()
    value = loss.on_pairs(q, d[order], item_ids=ids[order] if with_ids else None)
    value.backward()
    for found, _, _, _ in answers:
        same(found, value.detach())
    same(torch.cat([a[1] for a in answers]), grad_of(q))
    same(torch.cat([a[2] for a in answers]), grad_of(d))
    same(sum(a[3] for a in answers), grad_of(next(loss.parameters())))


@pytest.mark.parametrize("sizes", [[3, 5], [6, 0], [2, 4, 3], [0, 5, 4]], ids=str)
def test_items_of_all_ranks_are_one_batch(pools: dict[int, Pool], sizes: list[int]) -> None:
    world, num = len(sizes), sum(sizes)
    embeddings, labels, weight = drawn(num, 3), torch.arange(num) % 3, drawn(num, seed=2).abs()
    parts = [list(t.split(sizes)) for t in (embeddings, labels, weight)]
    answers = pools[world].run("items_of_all", *parts)
    loss, whole = tempered("SupCon"), embeddings.requires_grad_()
    value = loss.on_embeddings(whole, Targets.of_matches(labels).weigh(rows=weight))
    value.backward()
    for found, _, _ in answers:
        same(found, value.detach())
    same(torch.cat([a[1] for a in answers]), grad_of(whole))
    same(sum(a[2] for a in answers), grad_of(next(loss.parameters())))


def test_groups_of_ranks_are_batches_of_their_own(pools: dict[int, Pool]) -> None:
    queries, documents = (list(drawn(9, 3, seed=s).split([2, 4, 3])) for s in (3, 4))
    answers = pools[3].run("pairs_of_a_group", queries, documents)
    for ranks in ((0, 1), (2,)):
        q = torch.cat([queries[r] for r in ranks])
        d = torch.cat([documents[r] for r in ranks]).requires_grad_()
        value = InfoNCE(0.5).on_pairs(q, d)
        value.backward()
        assert all(torch.allclose(answers[r][0], value.detach()) for r in ranks)
        same(torch.cat([answers[r][1] for r in ranks]), grad_of(d))


@pytest.mark.parametrize("name", ["InfoNCE", "SupCon"])
def test_no_rank_holds_the_scores_of_all_pairs(pools: dict[int, Pool], name: str) -> None:
    own, dim = 64, 3
    batch = own * 3
    kept, divided = (
        pools[3].run("largest_tensor", [name] * 3, [own] * 3, [dim] * 3, [k] * 3) for k in (True, False)
    )
    assert min(kept) >= batch * batch, "vacuous: the watcher does not see the matrix"
    assert max(divided) <= batch * 8


# ------------------------------------------------------------------------ class vectors and checkpoints


def test_shares_cover_all_candidates_once() -> None:
    for num, ranks in ((7, 3), (2, 5), (0, 2), (12, 4)):
        ends = [shard_range(num, rank, ranks) for rank in range(ranks)]
        assert [c for a, b in ends for c in range(a, b)] == list(range(num))
        assert max(b - a for a, b in ends) - min(b - a for a, b in ends) <= 1
    with pytest.raises(MarginsError, match="rank"):
        shard_range(3, 2, 2)


def test_candidates_of_three_ranks_load_on_two_and_on_one(pools: dict[int, Pool]) -> None:
    first, *others = pools[3].run("saved_candidates")
    weight, bias = first
    assert others == [None, None]
    head = ShardedCandidates(4, 10, generator=torch.Generator().manual_seed(0))
    same(weight, head.weight.detach() + 1)
    assert torch.equal(bias, torch.arange(10.0))
    answers = pools[2].run("loaded_candidates", [weight] * 2, [bias] * 2)
    assert torch.equal(torch.cat([a[0] for a in answers]), head.weight.detach())
    assert torch.equal(torch.cat([a[1] for a in answers]), weight)
    assert torch.equal(torch.cat([a[2] for a in answers]), bias)
    assert all(bool(a[3]) for a in answers), "a state of another shape changed a rank"
    head.load_whole({"weight": weight, "bias": bias})
    assert torch.equal(head.weight, weight)
    state = head.whole_state()
    assert state is not None
    assert torch.equal(state["bias"], bias)


@pytest.mark.parametrize("with_fabric", [False, True], ids=["torch", "fabric"])
def test_an_averaged_network_and_divided_class_vectors_train_as_one(
    pools: dict[int, Pool], with_fabric: bool
) -> None:
    inputs, labels = drawn(8, 3, seed=6), torch.arange(8) % 10
    parts = [list(t.split([5, 3])) for t in (inputs, labels)]
    answers = pools[2].run("trained", *parts, [with_fabric] * 2)
    encoder, head = encoder_and_head()
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = CrossEntropy().on_candidates(encoder(inputs), head.weight, labels, bias=head.bias)
        loss.backward()
        optimizer.step()
    for found in answers:
        same(found[0], loss.detach())
        same(found[1], encoder.weight.detach())
    same(torch.cat([a[2] for a in answers]), head.weight.detach())
    same(torch.cat([a[3] for a in answers]), head.bias.detach())
