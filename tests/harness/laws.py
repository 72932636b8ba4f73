"""The laws of losses of scores and targets, and which of them each form must keep.

Every law takes a case and raises AssertionError when it is broken.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.cases import Case
from harness.problems import Problem, make_problem
from margins.losses import Loss
from margins.losses.forms import StatisticsLoss
from margins.targets import Targets

ROW_WISE = ("statistics", "list", "rows")
OF_BATCHES = ("counts", "ordered counts")  # no sum of rows, so no reduction to choose


def problem_of(case: Case, kind: str, seed: int = 0, **options: Any) -> Problem:
    options = {"entry_weights": case.entry_weights, "side_names": case.side_names, **options}
    return make_problem(kind, seed, **options)


def extras(case: Case, problem: Problem) -> dict[str, Any]:
    """Keyword arguments of a call beside scores and targets."""
    given: dict[str, Any] = {"ids": problem.ids} if case.takes_ids else {}
    return {**given, **({"side": problem.side} if problem.side else {})}


def value(case: Case, loss: Loss, problem: Problem, scores: Tensor | None = None) -> Tensor:
    scores = problem.scores if scores is None else scores
    return loss(scores, problem.targets, **extras(case, problem))


def rows(case: Case, loss: Loss, problem: Problem, scores: Tensor | None = None) -> Tensor:
    scores = problem.scores if scores is None else scores
    return loss.per_anchor(scores, problem.targets, **extras(case, problem))


def equals_the_reference(case: Case) -> None:
    for kind in case.kinds:
        for layers in (False, True):
            for seed in range(3):
                problem = problem_of(case, kind, seed, layers=layers)
                expected = np.asarray(case.expected(problem))
                assert np.abs(expected).max() > 1e-6, "vacuous: the reference is zero"
                loss = case.make().double()
                found = rows(case, loss, problem) if case.form in ROW_WISE else value(case, loss, problem)
                # A learned temperature is a float32 parameter.
                tolerance = 1e-6 if "learned" in case.name else 1e-9
                np.testing.assert_allclose(found.detach(), expected, rtol=tolerance, atol=1e-11)


def gradient_is_that_of_the_value(case: Case) -> None:
    for kind in case.kinds:
        problem = problem_of(case, kind, seed=1)
        loss = case.make(reduction="sum") if case.form not in OF_BATCHES else case.make()
        loss = loss.double()

        def function(scores: Tensor, loss: Loss = loss, problem: Problem = problem) -> Tensor:
            return value(case, copy.deepcopy(loss), problem, scores)

        scores = problem.scores.clone().requires_grad_()
        assert torch.autograd.gradcheck(function, (scores,), fast_mode=True)
        gradient = torch.autograd.grad(function(scores), scores)[0]
        assert gradient.abs().max() > 1e-6, "vacuous: no gradient"


def second_derivative_is_that_of_the_gradient(case: Case) -> None:
    problem = problem_of(case, case.kinds[0], seed=1)
    loss = case.make(reduction="sum").double()
    scores = problem.scores.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda s: value(case, loss, problem, s), (scores,), fast_mode=True)


def weights_of_one_change_nothing(case: Case) -> None:
    problem = problem_of(case, case.kinds[0], layers=False)
    ones = torch.ones(problem.scores.shape, dtype=torch.float64)
    targets = problem.targets.weigh(rows=ones[:, 0])
    if case.entry_weights:
        targets = targets.weigh(entries=ones)
    weighted = Problem(**{**vars(problem), "targets": targets})
    names = ("mean", "weighted_mean", "sum") if case.form in ROW_WISE else (None,)
    for name in names:
        options = {} if name is None else {"reduction": name}
        plain, same = (value(case, case.make(**options), p) for p in (problem, weighted))
        torch.testing.assert_close(plain, same, rtol=1e-12, atol=1e-12)


def doubled_weight_equals_a_repeated_row(case: Case) -> None:
    if "row]" in case.name:
        return  # the groups of scope 'row' are rows: a repeated group is not a heavier one
    for kind in [k for k in case.kinds if k != "matches"]:
        problem = problem_of(case, kind, seed=2, layers=False)
        heavy = 0
        if case.form in ROW_WISE:  # a row that says something
            heavy = int(rows(case, case.make(), problem).abs().argmax())
        repeated = problem.take(torch.tensor([heavy, *range(7)]))
        weight = torch.ones(7, dtype=torch.float64)
        weight[heavy] = 2
        doubled = Problem(**{**vars(problem), "targets": problem.targets.weigh(rows=weight)})
        names = ("sum", "weighted_mean") if case.form in ROW_WISE else (None,)
        for name in names:
            options = {} if name is None else {"reduction": name}
            a, b, c = (value(case, case.make(**options), p) for p in (doubled, repeated, problem))
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
            assert (a - c).abs() > 1e-9, "vacuous: the weight changes nothing"


def rows_and_candidates_may_be_permuted(case: Case) -> None:
    for kind in [k for k in case.kinds if k != "matches"]:
        problem = problem_of(case, kind, seed=3, layers=False)
        order, columns = torch.randperm(7), torch.randperm(6)
        shuffled = problem.take(order)
        dense = Targets.of_scores(torch.as_tensor(problem.grades)[:, columns])
        side = {name: block[:, columns] for name, block in problem.side.items()}
        moved = Problem(
            **{**vars(problem), "scores": problem.scores[:, columns], "targets": dense, "side": side}
        )
        if case.form in ROW_WISE:
            base = rows(case, case.make(), problem)
            torch.testing.assert_close(rows(case, case.make(), shuffled), base[order])
            torch.testing.assert_close(rows(case, case.make(), moved), base)
        else:
            base = value(case, case.make(), problem)
            torch.testing.assert_close(value(case, case.make(), shuffled), base)
            torch.testing.assert_close(value(case, case.make(), moved), base)


def rows_may_be_permuted(case: Case) -> None:
    """For candidates that have an order: a guard shows that it matters."""
    for kind in [k for k in case.kinds if k != "matches"]:
        problem = problem_of(case, kind, seed=3, layers=False)
        order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
        turned = Targets.of_scores(torch.as_tensor(problem.grades).flip(1).roll(1, 1))
        moved = Problem(**{**vars(problem), "scores": problem.scores.flip(1).roll(1, 1), "targets": turned})
        if case.form in ROW_WISE:
            base = rows(case, case.make(), problem)
            torch.testing.assert_close(rows(case, case.make(), problem.take(order)), base[order])
        else:
            base = value(case, case.make(), problem)
            torch.testing.assert_close(value(case, case.make(), problem.take(order)), base)
        other = rows(case, case.make(), moved) if case.form in ROW_WISE else value(case, case.make(), moved)
        assert (other - base).abs().max() > 1e-6, "vacuous: the order of candidates does not matter"


def half_precision_computes_in_float32(case: Case) -> None:
    for kind in case.kinds:
        problem = problem_of(case, kind, seed=4, layers=False, spread=50.0)
        for dtype in (torch.bfloat16, torch.float16):
            half = problem.scores.clamp(-100, 100).to(dtype).requires_grad_()
            full = half.detach().float().requires_grad_()
            assert full.detach().abs().max() > 60, "vacuous: the scores are small"
            found, expected = (value(case, case.make(), problem, s) for s in (half, full))
            assert found.dtype == torch.float32
            assert bool(torch.isfinite(found))
            torch.testing.assert_close(found, expected)
            (grad,) = torch.autograd.grad(found, half)
            (wanted,) = torch.autograd.grad(expected, full)
            assert grad.dtype == dtype
            assert bool(torch.isfinite(grad).all())
            torch.testing.assert_close(grad, wanted.to(dtype), rtol=1e-2, atol=1e-6)


def degenerate_batches() -> dict[str, tuple[tuple[int, int], Any]]:
    """Shape and targets of batches in which nothing can be learned."""
    zero = torch.zeros
    return {
        "no rows": ((0, 4), lambda: Targets.of_classes(zero(0, dtype=torch.long), 4)),
        "all rows ignored": ((3, 4), lambda: torch.full((3,), -100)),
        "all rows weigh nothing": (
            (3, 4),
            lambda: Targets.of_classes(zero(3, dtype=torch.long), 4).weigh(rows=zero(3)),
        ),
        "all entries unknown": (
            (3, 4),
            lambda: Targets.of_classes(zero(3, dtype=torch.long), 4).ignore(
                entries=torch.ones(3, 4, dtype=torch.bool)
            ),
        ),
    }


def degenerate_batches_give_an_attached_zero(case: Case) -> None:
    for name, (shape, make_targets) in degenerate_batches().items():
        scores = torch.randn(shape, dtype=torch.float64).requires_grad_()
        side = {n: torch.randn(shape, dtype=torch.float64) for n in case.side_names}
        problem = Problem(scores, make_targets(), *(np.zeros(shape),) * 4, side, torch.arange(shape[0]))
        found = value(case, case.make(), problem)
        assert found.item() == 0.0, name
        (grad,) = torch.autograd.grad(found, scores)
        assert bool((grad == 0).all()), name


def rows_without_what_is_needed_do_not_count(case: Case) -> None:
    """No positive, or no negative: exactly zero where the loss is a statement about it, and finite always."""
    loss = case.make()
    assert isinstance(loss, StatisticsLoss)
    for needed, sets in (("positives", [[], [0], [1, 2]]), ("negatives", [[0, 1, 2, 3], [0], [1, 2]])):
        if case.kinds[0] == "classes" and len(case.kinds) == 1:
            continue
        scores = torch.randn(3, 4, dtype=torch.float64).requires_grad_()
        side = {n: torch.randn(3, 4, dtype=torch.float64) for n in case.side_names}
        problem = Problem(
            scores, Targets.of_label_sets(sets, 4), *(np.zeros((3, 4)),) * 4, side, torch.arange(3)
        )
        losses = loss.rows(scores, problem.targets, **extras(case, problem))
        (grad,) = torch.autograd.grad(losses.values.sum(), scores)
        assert bool(torch.isfinite(losses.values).all())
        assert bool(torch.isfinite(grad).all())
        if needed in loss.needs:
            assert losses.num_degenerate == 1
            assert losses.values[0].item() == 0.0
            assert bool((grad[0] == 0).all())
            torch.testing.assert_close(losses.reduce("mean"), losses.values[1:].mean())
        else:
            assert losses.num_degenerate == 0


def reductions_agree_and_batches_add_up(case: Case) -> None:
    problem = problem_of(case, case.kinds[0], seed=5, layers=False)
    weight = 0.5 + torch.rand(7, dtype=torch.float64)
    weight[3] = 0.0
    problem = Problem(**{**vars(problem), "targets": problem.targets.weigh(rows=weight)})
    none = value(case, case.make(reduction="none").double(), problem)
    total = value(case, case.make(reduction="sum").double(), problem)
    torch.testing.assert_close(none.sum(), total)
    plain = case.make().rows(problem.scores, problem.targets, **extras(case, problem))
    for name in ("mean", "weighted_mean"):
        whole = value(case, case.make(reduction=name).double(), problem)
        divisor = plain.denominator(name)
        units = torch.ones(7) if plain.units is None else plain.units
        counted = units.double() * (weight > 0) * (weight if name == "weighted_mean" else 1.0)
        needs = getattr(case.make(), "needs", {"positives"})
        positive, known = torch.as_tensor(problem.grades > 0), torch.as_tensor(problem.known)
        counted = counted * ((positive & known).any(1) if "positives" in needs else 1)
        counted = counted * ((~positive & known).any(1) if "negatives" in needs else 1)
        torch.testing.assert_close(divisor.double(), counted.sum(), rtol=1e-6, atol=0)
        torch.testing.assert_close(whole, total / divisor)
        parts = [problem.take(torch.arange(0, 3)), problem.take(torch.arange(3, 7))]
        loss = case.make(reduction=name).double()
        added = sum(loss(p.scores, p.targets, **extras(case, p), denominator=divisor) for p in parts)
        torch.testing.assert_close(added, whole)
        assert not torch.isclose(whole, total), "vacuous: the reduction changes nothing"


def inputs_are_left_alone(case: Case) -> None:
    problem = problem_of(case, case.kinds[0], seed=6)
    before = problem.scores.clone(), problem.targets.map_tensors(torch.clone)
    scores = problem.scores.requires_grad_()
    value(case, case.make(), problem, scores).backward()
    assert torch.equal(problem.scores.detach(), before[0])
    for a, b in zip(problem.targets.block(0, 6), before[1].block(0, 6), strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def state_survives_save_and_load(case: Case) -> None:
    problem = problem_of(case, case.kinds[0], seed=7)
    first = case.make()
    value(case, first, problem)
    second = case.make()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(value(case, second, problem), value(case, first, problem), rtol=0, atol=0)


def large_offsets_stay_finite(case: Case) -> None:
    for offset in (-1e4, 1e4):
        problem = problem_of(case, case.kinds[0], seed=8)
        scores = (problem.scores + offset).float().requires_grad_()
        found = value(case, case.make(), problem, scores)
        (grad,) = torch.autograd.grad(found, scores)
        assert bool(torch.isfinite(found))
        assert bool(torch.isfinite(grad).all())


def coefficients_are_those_of_the_reference(case: Case) -> None:
    problem = problem_of(case, "label sets", seed=9, layers=False)
    loss = case.make()
    draws = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    sign = 2 * problem.grades - 1
    expected = np.zeros((7, 6))
    for j in range(6):
        margins = sign[:, j] * problem.scores[:, j].numpy()
        expected[:, j] = case.reference(margins, draws[:, j], lam=loss.lam, clip=loss.clip)
    scores = problem.scores.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(scores, problem.targets), scores)
    np.testing.assert_allclose(grad, expected * sign / 42, rtol=1e-9)
    assert np.abs(expected).max() > 0.1, "vacuous: no slopes"
