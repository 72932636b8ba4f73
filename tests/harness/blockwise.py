"""Blockwise equals dense, in value and gradient, and never holds a matrix of scores."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cases import Case
from harness.laws import extras, problem_of
from margins.engine import (
    Blockwise,
    Cosine,
    Dense,
    Dot,
    Euclidean,
    Evaluator,
    ScoreRule,
    SquaredEuclidean,
    UnitEuclidean,
)
from margins.engine.blocks import plan
from margins.engine.sources import factored
from margins.errors import OnceDifferentiableError
from margins.losses.forms import StatisticsLoss

RULES: tuple[ScoreRule, ...] = (Dot(), Cosine(), Euclidean(), SquaredEuclidean())


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            # A view of what was given holds nothing new.
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return result


def blockwise_equals_dense(case: Case) -> None:
    """Every kind of target and every rule of scores; they meet different parts of the code."""
    sizes = ((4, 3), (1, 7, 1 << 10), (6, 2), (50, 50))
    for index in range(max(len(case.kinds), len(RULES))):
        kind, place = case.kinds[index % len(case.kinds)], index % len(RULES)
        _compare(case, kind, RULES[place], sizes=sizes[place])


def _compare(case: Case, kind: str, rule: ScoreRule, sizes: tuple[int, ...]) -> None:
    problem = problem_of(case, kind, seed=11)
    rng = torch.Generator().manual_seed(12)
    loss = case.make().double()
    assert isinstance(loss, StatisticsLoss)
    inputs = [torch.randn(n, 3, generator=rng, dtype=torch.float64).requires_grad_() for n in (7, 6)]
    bias = torch.randn(6, generator=rng, dtype=torch.float64).requires_grad_()
    leaves = [*inputs, bias, *loss.parameters()]
    upstream = torch.linspace(-0.6, 0.7, 7, dtype=torch.float64)

    def run(evaluator: Evaluator) -> tuple[Tensor, tuple[Tensor, ...]]:
        fresh = case.make().double()
        fresh.load_state_dict(loss.state_dict())
        own = [*leaves[:3], *fresh.parameters()]
        source = factored(rule, inputs[0], inputs[1], bias)
        rows = fresh.evaluate(source, problem.targets, evaluator, **extras(case, problem)).weighted()
        again = fresh.evaluate(source, problem.targets, evaluator, **extras(case, problem)).weighted()
        gradients = torch.autograd.grad(rows @ upstream + 0.5 * again.sum(), own)
        return rows.detach(), gradients

    value, gradients = run(Dense())
    found, found_gradients = run(Blockwise(*sizes))
    torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)
    for a, b in zip(found_gradients, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert gradients[0].abs().max() > 1e-9, "vacuous: no gradient"


def whole_rows_equal_dense(case: Case) -> None:
    """Value and gradient found together, a few rows at a time, for every reduction to one number."""
    names = ("_KEPT", "_FEWEST_AT_ONCE", "_LONG", "_AT_ONCE")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(names, (0, 2, 1, 3 * 6 * 8), strict=True):  # three rows of six float64
            patch.setattr(plan, name, value)
        assert Blockwise().plan(7, 6, 3, dtype=torch.float64).rows_at_once == 3
        for index, kind in enumerate(case.kinds):
            reduction = ("mean", "weighted_mean", "sum")[index % 3]
            _compare_reduced(case, kind, (Dot(), Cosine(), UnitEuclidean())[index % 3], reduction)


def _compare_reduced(case: Case, kind: str, rule: ScoreRule, reduction: str) -> None:
    problem = problem_of(case, kind, seed=15)
    rng = torch.Generator().manual_seed(16)
    inputs = [torch.randn(n, 3, generator=rng, dtype=torch.float64).requires_grad_() for n in (7, 6)]
    bias = torch.randn(6, generator=rng, dtype=torch.float64).requires_grad_()
    first = case.make(reduction=reduction).double()
    found = []
    for evaluator in (Dense(), Blockwise()):
        loss = copy.deepcopy(first)
        value = loss.on_candidates(
            *inputs, problem.targets, bias=bias, rule=rule, evaluator=evaluator, **extras(case, problem)
        )  # fmt: skip
        leaves = [*inputs, bias, *loss.parameters()]
        found.append((value.detach(), *torch.autograd.grad(-0.7 * value, leaves)))
    for dense, whole in zip(*found, strict=True):
        torch.testing.assert_close(whole, dense, rtol=1e-9, atol=1e-11)


def half_precision_vectors_are_scored_in_float32(case: Case) -> None:
    """Of bfloat16 vectors: the rows of the same vectors in float32; the gradient rounded once a stage."""
    problem = problem_of(case, case.kinds[0], seed=17)
    rng = torch.Generator().manual_seed(18)
    halves = [torch.randn(n, 3, generator=rng).bfloat16() for n in (7, 6)]
    upstream = torch.linspace(-0.6, 0.7, 7)
    loss = case.make()
    assert isinstance(loss, StatisticsLoss)
    tolerance = 4e-3 if len(loss.stages()) == 1 else 3e-2

    def run(rule: ScoreRule, evaluator: Evaluator, dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [h.to(dtype).requires_grad_() for h in halves]
        fresh = case.make()
        rows = fresh.evaluate(factored(rule, *inputs), problem.targets, evaluator, **extras(case, problem))
        gradients = torch.autograd.grad(rows.weighted() @ upstream, inputs)
        assert all(g.dtype == dtype for g in gradients)
        return rows.values.detach(), *(g.float() for g in gradients)

    blocks = Blockwise(4, 3)
    under = ((Dot(), (Dense(), blocks, Blockwise())), (Cosine(), (blocks,)), (SquaredEuclidean(), (blocks,)))
    for rule, evaluators in under:
        for evaluator in evaluators:
            single, half = (run(rule, evaluator, dtype) for dtype in (torch.float32, torch.bfloat16))
            assert half[0].dtype == torch.float32
            torch.testing.assert_close(half[0], single[0], rtol=1e-4, atol=1e-5)
            for a, b in zip(half[1:], single[1:], strict=True):
                assert (a - b).norm() <= tolerance * b.norm()


def blockwise_never_holds_the_score_matrix(case: Case) -> None:
    num_anchors, num_candidates, dim = 24, 400, 4
    kind = next(k for k in case.kinds if k != "scores")
    problem = problem_of(
        case, kind, seed=13, num_anchors=num_anchors, num_candidates=num_candidates, layers=False
    )
    loss = case.make()
    x = torch.randn(num_anchors, dim, requires_grad=True)
    w = torch.randn(num_candidates, dim, requires_grad=True)
    limit = num_anchors * num_candidates

    def run(evaluator: Evaluator) -> int:
        with LargestTensor() as seen:
            loss.on_candidates(x, w, problem.targets, evaluator=evaluator, **extras(case, problem)).backward()
        return seen.elements

    assert run(Dense()) >= limit, "vacuous: the watcher does not see the dense matrix"
    if kind == "label sets":  # the list of positives is as long as the labels are; a short one is wanted here
        problem = problem_of(case, "classes", num_anchors=24, num_candidates=400, layers=False)
    assert run(Blockwise(16)) < limit / 2


def blockwise_refuses_a_second_derivative(case: Case) -> None:
    problem = problem_of(case, case.kinds[0], seed=14)
    x, w = (torch.randn(n, 3, dtype=torch.float64).requires_grad_() for n in (7, 6))
    loss = case.make().double()
    found = loss.on_candidates(x, w, problem.targets, evaluator=Blockwise(4), **extras(case, problem))
    with pytest.raises(OnceDifferentiableError, match="dense evaluator"):
        torch.autograd.grad(found, x, create_graph=True)
