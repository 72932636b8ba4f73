"""Sampled with all candidates drawn equals dense, in value and gradient; the rest is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.cases import Case
from harness.laws import extras, problem_of
from margins.engine import Cosine, Dense, Dot, Evaluator, Sampled
from margins.engine.sources import factored
from margins.errors import MarginsError
from margins.losses.forms import StatisticsLoss

SPARSE = {"classes", "label sets"}
NEED_EXTREMES = {"MultiSimilarity", "SoftTopK"}


def sampled(num_samples: int, seed: int = 0, **options: object) -> Sampled:
    return Sampled(num_samples, generator=torch.Generator().manual_seed(seed), **options)  # type: ignore[arg-type]


def sampled_in_full_equals_dense(case: Case) -> None:
    assert SPARSE & set(case.kinds)
    for index, kind in enumerate(case.kinds):
        if kind in SPARSE:
            _compare(case, kind, ("uniform", "zipf")[index % 2])
        else:
            _refused(case, kind, "targets")
    if case.name in NEED_EXTREMES:
        _refused(case, "label sets", "evaluator")


def _compare(case: Case, kind: str, proposal: str) -> None:
    problem = problem_of(case, kind, seed=21)
    rng = torch.Generator().manual_seed(22)
    loss = case.make().double()
    assert isinstance(loss, StatisticsLoss)
    inputs = [torch.randn(n, 3, generator=rng, dtype=torch.float64).requires_grad_() for n in (7, 6)]
    bias = torch.randn(6, generator=rng, dtype=torch.float64).requires_grad_()
    upstream = torch.rand(7, generator=rng, dtype=torch.float64) - 0.3
    rule = Dot() if proposal == "uniform" else Cosine()

    def run(evaluator: Evaluator) -> tuple[Tensor, tuple[Tensor, ...]]:
        fresh = case.make().double()
        fresh.load_state_dict(loss.state_dict())
        source = factored(rule, *inputs, bias)
        rows = fresh.evaluate(source, problem.targets, evaluator, **extras(case, problem)).weighted()
        return rows.detach(), torch.autograd.grad(rows @ upstream, [*inputs, bias, *fresh.parameters()])

    value, gradients = run(Dense())
    found, found_gradients = run(sampled(6, proposal=proposal))
    torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)
    for a, b in zip(found_gradients, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    assert gradients[0].abs().max() > 1e-9, "vacuous: no gradient"


def _refused(case: Case, kind: str, argument: str) -> None:
    problem, loss = problem_of(case, kind, seed=23), case.make()
    assert isinstance(loss, StatisticsLoss)
    x, w = torch.randn(7, 3), torch.randn(6, 3)
    with pytest.raises(MarginsError) as raised:
        loss.on_candidates(x, w, problem.targets, evaluator=sampled(4), **extras(case, problem))
    assert raised.value.argument == argument
