"""Several processes, each with its own rows, compute what one process computes on the whole batch."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import torch
from torch import Tensor

from gloo_workers import LOSSES, Pool
from margins.engine import gather_rows
from margins.engine.across_ranks.gather import rows_before
from margins.losses import InfoNCE

SIZES = {2: [[3, 5], [6, 0]], 3: [[2, 4, 3], [0, 5, 4], [4, 1, 0]]}
UNEQUAL = [(world, sizes) for world, splits in SIZES.items() for sizes in splits]
with_unequal_sizes = pytest.mark.parametrize(("world", "sizes"), UNEQUAL, ids=[str(s) for _, s in UNEQUAL])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shares(tensor: Tensor, sizes: list[int]) -> list[Tensor]:
    return list(tensor.split(sizes))


@with_unequal_sizes
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, torch.int32, torch.bool])
def test_every_rank_gets_all_rows_in_rank_order(
    pools: dict[int, Pool], world: int, sizes: list[int], dtype: torch.dtype
) -> None:
    whole = (10 * drawn(sum(sizes), 2, 3)).to(dtype)
    for rows in pools[world].run("gathered", shares(whole, sizes)):
        assert rows.dtype == dtype
        assert torch.equal(rows, whole)
    labels = torch.arange(sum(sizes)) * 7
    assert all(torch.equal(rows, labels) for rows in pools[world].run("gathered", shares(labels, sizes)))


@with_unequal_sizes
def test_rows_before_is_where_a_rank_starts(pools: dict[int, Pool], world: int, sizes: list[int]) -> None:
    starts = pools[world].run("before", shares(torch.arange(sum(sizes)), sizes))
    assert starts == [0, *accumulate(sizes)][:-1]


@with_unequal_sizes
def test_the_gradient_is_summed_over_ranks_and_brought_back(
    pools: dict[int, Pool], world: int, sizes: list[int]
) -> None:
    whole = drawn(sum(sizes), 2)
    upstream = [drawn(sum(sizes), 2, seed=rank + 1) for rank in range(world)]
    gradients = pools[world].run("weighed_gradient", shares(whole, sizes), upstream)
    torch.testing.assert_close(torch.cat(gradients), torch.stack(upstream).sum(0), rtol=0, atol=1e-14)


@with_unequal_sizes
@pytest.mark.parametrize("name", LOSSES)
def test_local_anchors_against_all_items_equal_one_big_batch(
    pools: dict[int, Pool], world: int, sizes: list[int], name: str
) -> None:
    num_anchors = sum(sizes)
    embeddings, labels = drawn(num_anchors, 4, seed=5), torch.arange(num_anchors) % 3
    answers = pools[world].run(
        "in_batch", [name] * world, shares(embeddings, sizes), shares(labels, sizes), [num_anchors] * world
    )
    whole = embeddings.clone().requires_grad_()
    value = LOSSES[name]().on_embeddings(whole, labels, denominator=float(num_anchors))
    value.backward()
    assert whole.grad is not None
    assert value > 0.01
    assert whole.grad.abs().max() > 1e-3
    torch.testing.assert_close(sum(v for v, _ in answers), value.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([g for _, g in answers]), whole.grad, rtol=0, atol=1e-12)


@with_unequal_sizes
def test_local_queries_against_all_documents_equal_one_big_batch(
    pools: dict[int, Pool], world: int, sizes: list[int]
) -> None:
    num_anchors = sum(sizes)
    queries, documents = drawn(num_anchors, 4, seed=6), drawn(num_anchors, 4, seed=7)
    answers = pools[world].run(
        "across_pairs", shares(queries, sizes), shares(documents, sizes), [num_anchors] * world
    )
    q, d = queries.clone().requires_grad_(), documents.clone().requires_grad_()
    value = InfoNCE().on_pairs(q, d)
    value.backward()
    torch.testing.assert_close(sum(v for v, _, _ in answers), value.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([g for _, g, _ in answers]), q.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([g for _, _, g in answers]), d.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(
    "odd",
    [torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64),
     torch.zeros(2, 3, dtype=torch.long)],
    ids=["dtype", "width", "axes", "integers"],
)  # fmt: skip
def test_ranks_that_disagree_are_refused_on_every_rank(
    pools: dict[int, Pool], world: int, odd: Tensor
) -> None:
    usual = torch.zeros(2, 3, dtype=torch.float64)
    messages = pools[world].run("refused", [usual] * (world - 1) + [odd])
    assert all("tensor: expected the same dtype and trailing axes on every rank" in m for m in messages)
    assert pools[world].run("refused", [usual] * world) == [""] * world  # and the group still works


@pytest.mark.parametrize("world", [2, 3])
def test_a_number_has_no_rows_to_gather(pools: dict[int, Pool], world: int) -> None:
    messages = pools[world].run("refused", [torch.tensor(1.0)] * world)
    assert all(m.startswith("tensor: expected") for m in messages)


@pytest.mark.parametrize("world", [2, 3])
def test_a_second_derivative_is_refused_by_name(pools: dict[int, Pool], world: int) -> None:
    assert pools[world].run("twice", [drawn(2, 2)] * world) == ["OnceDifferentiableError"] * world


def test_a_failing_rank_is_reported_and_the_pool_lives_on(pools: dict[int, Pool]) -> None:
    with pytest.raises(RuntimeError, match="rank"):
        pools[2].run("in_batch", ["NoLoss"] * 2, *[[torch.zeros(1, 1)] * 2] * 2, [1, 1])


def test_without_a_process_group_gathering_changes_nothing() -> None:
    tensor = drawn(3, 2).requires_grad_()
    assert gather_rows(tensor) is tensor
    assert rows_before(3, device=tensor.device) == 0


def test_a_world_of_one_gathers_its_own_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Pool(1, tmp_path_factory.mktemp("one")) as pool:
        (rows,) = pool.run("gathered", [np.arange(6.0).reshape(3, 2)])
        assert torch.equal(rows, torch.arange(6.0, dtype=torch.float64).reshape(3, 2))
        assert pool.run("before", [np.zeros(3)]) == [0]
