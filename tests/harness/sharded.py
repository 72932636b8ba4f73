"""Sharded equals dense, in value and gradient: jobs for the ranks, and the comparison with one process.

A problem is made again on every rank from the name of its case, so little travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gloo_workers import Pool
from harness.cases import BY_NAME, Case
from harness.laws import extras, problem_of
from margins.engine import Blockwise, Cosine, Dense, Dot, Evaluator, ScoreRule, Sharded
from margins.engine.across_ranks.ranks import Ranks
from margins.engine.sources import factored
from margins.losses.forms import StatisticsLoss

NUM_ANCHORS, NUM_CANDIDATES, DIM = 7, 6, 3
SIZES = {2: ((4, 2), (0, 6)), 3: ((1, 3, 2), (5, 0, 1))}
INNER: dict[str, Evaluator] = {"dense": Dense(), "blockwise": Blockwise(2)}
RULES: dict[str, ScoreRule] = {"dense": Dot(), "blockwise": Cosine()}
DTYPES = {"float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Found:
    """Row losses, and the gradients of embeddings, candidates, bias and the loss's parameters."""

    rows: Tensor
    embeddings: Tensor
    candidates: Tensor
    bias: Tensor
    parameters: tuple[Tensor, ...]


def evaluated(
    case: Case, kind: str, evaluator: Evaluator, rule: ScoreRule, columns: slice, dtype: torch.dtype
) -> Found:
    """Two forward passes and one backward over some of the candidates."""
    layers = dtype == torch.float64
    problem = problem_of(case, kind, seed=11, layers=layers)
    rng = torch.Generator().manual_seed(12)
    embeddings, candidates = (
        torch.randn(n, DIM, generator=rng, dtype=torch.float64) for n in (NUM_ANCHORS, NUM_CANDIDATES)
    )
    bias = torch.randn(NUM_CANDIDATES, generator=rng, dtype=torch.float64)
    upstream = torch.rand(NUM_ANCHORS, generator=rng, dtype=torch.float64) - 0.3
    leaves = [t.to(dtype).requires_grad_() for t in (embeddings, candidates[columns], bias[columns])]
    loss = case.make().double()
    assert isinstance(loss, StatisticsLoss)
    given = extras(case, problem)
    if "side" in given:
        given["side"] = {name: block[:, columns] for name, block in given["side"].items()}
    source = factored(rule, *leaves)
    first = loss.evaluate(source, problem.targets, evaluator, **given).weighted()
    again = loss.evaluate(source, problem.targets, evaluator, **given).weighted()
    (first @ upstream.to(first.dtype) + 0.5 * again.sum()).backward()
    gradients = [t.grad for t in (*leaves, *loss.parameters())]
    assert all(g is not None for g in gradients)
    return Found(first.detach(), *gradients[:3], tuple(gradients[3:]))  # type: ignore[arg-type]


def sharded_kinds(name: str, kinds: tuple[str, ...], sizes: tuple[tuple[int, ...], ...], dtype: str) -> Any:
    """What this rank finds for every kind of targets, inner evaluator and division of the candidates."""
    rank, found = Ranks.of().rank, []
    for kind, inner, split in plan(kinds, sizes):
        start = sum(split[:rank])
        columns = slice(start, start + split[rank])
        one = evaluated(BY_NAME[name], kind, Sharded(INNER[inner]), RULES[inner], columns, DTYPES[dtype])
        found.append(tuple(t.float() if t.dtype == torch.bfloat16 else t for t in _flat(one)))
    return tuple(found)


def plan(kinds: Sequence[str], sizes: Sequence[tuple[int, ...]]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Every kind with both inner evaluators, the divisions in turn."""
    pairs = [(kind, inner) for kind in kinds for inner in INNER]
    return [(kind, inner, sizes[(i + i // 2) % len(sizes)]) for i, (kind, inner) in enumerate(pairs)]


def _flat(found: Found) -> tuple[Tensor, ...]:
    return (found.rows, found.embeddings, found.candidates, found.bias, *found.parameters)


def sharded_equals_dense(
    name: str, pool: Pool, *, dtype: str = "float64", kinds: tuple[str, ...] | None = None, job: str = ""
) -> None:
    """The law: every rank has the value; gradients of candidates are whole, the others parts of the whole."""
    case = BY_NAME[name]
    kinds, sizes, world = kinds or case.kinds, SIZES[pool.world_size], pool.world_size
    job = job or "sharded_kinds"
    answers = pool.run(job, [name] * world, [kinds] * world, [sizes] * world, [dtype] * world)
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 1e-2, "atol": 1e-2}
    for place, (kind, inner, _) in enumerate(plan(kinds, sizes)):
        dense = evaluated(case, kind, Dense(), RULES[inner], slice(None), DTYPES[dtype])
        ranks = [Found(*a[place][:4], tuple(a[place][4:])) for a in answers]

        def same(found: Tensor, wanted: Tensor) -> None:
            torch.testing.assert_close(found, wanted.to(found.dtype), **tolerance)

        for found in ranks:
            same(found.rows, dense.rows)
        same(torch.cat([r.candidates for r in ranks]), dense.candidates)
        same(torch.cat([r.bias for r in ranks]), dense.bias)
        same(torch.stack([r.embeddings for r in ranks]).sum(0), dense.embeddings)
        for number, wanted in enumerate(dense.parameters):
            same(torch.stack([r.parameters[number] for r in ranks]).sum(0), wanted)
        assert dense.candidates.abs().max() > 1e-9, "vacuous: no gradient"


JOBS: dict[str, Callable[..., Any]] = {"sharded_kinds": sharded_kinds}
