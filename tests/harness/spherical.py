"""Spherical equals dense, in value, gradient and step; what it cannot be exact for is refused by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.blockwise import LargestTensor
from harness.cases import Case
from harness.laws import extras, problem_of
from margins.engine import Dot, Spherical, SphericalLayer
from margins.engine.sources import factored
from margins.engine.spherical.evaluator import refusal_of
from margins.errors import MarginsError
from margins.losses.forms import StatisticsLoss
from margins.targets import Targets

APPLIES_TO = {"ZLoss", "SquaredError", "SphericalSoftmax", "TaylorSoftmax"}


def spherical_equals_dense(case: Case) -> None:
    """The law of a loss of sums of scores and squares; any other must be refused, and say which it is."""
    loss = case.make().double()
    assert isinstance(loss, StatisticsLoss)
    assert (refusal_of(loss.stages()) == "") == (case.component in APPLIES_TO)
    if case.component not in APPLIES_TO:
        refused(case, loss)
        return
    for kind in ("classes", "label sets", "graded", "mixed"):
        compare(loss, targets_of(kind))
    for kind in ("scores", "layers", "smoothed", "matches"):
        with pytest.raises(MarginsError, match="class ids or label sets, with weights of rows at most"):
            loss.on_source(layer_of().source(torch.zeros(7, 3)), targets_of(kind))
    never_holds_the_score_matrix(loss)


def layer_of(num_classes: int = 6, dim: int = 3) -> SphericalLayer:
    return SphericalLayer(dim, num_classes, generator=torch.Generator().manual_seed(1)).double()


def targets_of(kind: str) -> Targets:
    rng = torch.Generator().manual_seed(15)
    labels = torch.randint(0, 6, (7,), generator=rng)
    weight = 0.5 + torch.rand(7, generator=rng, dtype=torch.float64)
    weight[2] = 0.0
    plain = Targets.of_classes(torch.where(torch.arange(7) == 3, -100, labels), 6).weigh(rows=weight)
    sets = Targets.of_label_sets([[0, 3], [], [1], [0, 1, 2, 3, 4, 5], [5], [2, 4], [0]], 6)
    share = torch.tensor([0.3, 1.0, 0.0, 0.5, 0.9, 0.2, 0.6])
    return {
        "classes": lambda: plain,
        "label sets": lambda: sets.weigh(rows=weight),
        "graded": lambda: sets.mix(sets, torch.full((7,), 0.5)),
        "mixed": lambda: Targets.of_classes(labels, 6).mix(Targets.of_classes(labels.flip(0), 6), share),
        "scores": lambda: Targets.of_scores(torch.rand(7, 6, generator=rng)),
        "layers": lambda: plain.margin(candidates=torch.rand(6, generator=rng)),
        "smoothed": lambda: plain.smooth(0.1),
        "matches": lambda: Targets.of_matches(labels, labels[:6], same_items=torch.full((7,), -1)),
    }[kind]()


def compare(loss: StatisticsLoss, targets: Targets) -> None:
    rng = torch.Generator().manual_seed(12)
    layer = layer_of()
    x = torch.randn(7, 3, generator=rng, dtype=torch.float64).requires_grad_()
    weight = layer.weight().clone().requires_grad_()
    bias = layer.bias()
    assert bias is not None
    bias.requires_grad_()
    upstream = torch.rand(7, generator=rng, dtype=torch.float64) - 0.3

    def value_of(rows: Any) -> Tensor:
        return rows.weighted() @ upstream

    dense_rows = loss.rows(x @ weight.T + bias, targets)
    wanted = torch.autograd.grad(value_of(dense_rows), (x, weight, bias))
    rows = loss.evaluate(layer.source(x), targets, Spherical())
    (found,) = torch.autograd.grad(value_of(rows), x)
    torch.testing.assert_close(rows.weighted(), dense_rows.weighted(), rtol=1e-10, atol=1e-12)
    assert rows.num_degenerate == dense_rows.num_degenerate
    torch.testing.assert_close(found, wanted[0], rtol=1e-8, atol=1e-10)
    layer.step(0.1)
    torch.testing.assert_close(layer.weight(), weight - 0.1 * wanted[1], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(layer.bias(), bias - 0.1 * wanted[2], rtol=1e-9, atol=1e-11)
    assert min(g.abs().max() for g in wanted) > 1e-3, "vacuous: no gradient"


def never_holds_the_score_matrix(loss: StatisticsLoss) -> None:
    num_rows, num_classes = 24, 4000
    layer = SphericalLayer(4, num_classes)
    labels = torch.arange(num_rows)
    x = torch.randn(num_rows, 4, requires_grad=True)
    for targets in (labels, Targets.of_label_sets([[i, i + 30] for i in range(num_rows)], num_classes)):
        with LargestTensor() as seen:
            loss.on_source(layer.source(x), targets).backward()
            layer.step(0.1)
        assert seen.elements < num_classes, "as much as one number a class"
    with LargestTensor() as seen:
        loss(layer.eval()(x), labels)
    assert seen.elements >= num_rows * num_classes, "vacuous: the watcher does not see the dense matrix"


def refused(case: Case, loss: StatisticsLoss) -> None:
    problem = problem_of(case, "classes", layers=False)
    name = re.escape(type(loss).__name__)
    with pytest.raises(
        MarginsError, match=rf"for a spherical head, got {name}: its .*(every score|by score)"
    ):
        loss.on_source(layer_of().source(torch.zeros(7, 3)), problem.targets, **extras(case, problem))
    plain = factored(Dot(), torch.zeros(7, 3), torch.zeros(6, 3))
    with pytest.raises(MarginsError):
        loss.evaluate(plain, problem.targets, Spherical(), **extras(case, problem))
