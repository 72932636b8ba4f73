"""Sampled: right on average, nearer with more samples, positives exact, no more memory than what is drawn."""

import itertools

import pytest
import torch
from torch import Tensor

from harness.blockwise import LargestTensor
from harness.sampled import sampled
from margins.engine import Dense, Sampled
from margins.engine.sampling.proposals import Draw, probabilities, with_replacement, without_replacement
from margins.engine.sources import matrix_of
from margins.errors import MarginsError
from margins.losses import BinaryCrossEntropy, CrossEntropy, DecoupledSoftmax, InfoNCE, SoftTopK
from margins.targets import Targets

C = 9
CHANCES = torch.tensor([5.0, 1, 2, 1, 8, 1, 1, 3, 2])
WAYS = tuple(itertools.product((False, True), ("uniform", "zipf", CHANCES)))


def _problem(num_candidates: int = C) -> tuple[Tensor, Tensor, Targets]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=rng, dtype=torch.float64).requires_grad_()
    w = torch.randn(num_candidates, 3, generator=rng, dtype=torch.float64).requires_grad_()
    return x, w, Targets.of_label_sets([[0], [1, 4], [8], [2, 3, 7]], num_candidates)


def _draws(replacement: bool, proposal, number: int, size: int = 4) -> list[Draw]:
    chance, rng = probabilities(proposal, C, torch.device("cpu")), torch.Generator().manual_seed(1)
    draw = with_replacement if replacement else without_replacement
    return [draw(chance, size, rng) for _ in range(number)]


@pytest.mark.parametrize(("replacement", "proposal"), WAYS)
def test_a_candidate_is_drawn_as_often_as_its_weight_says(replacement, proposal) -> None:
    total = torch.zeros(C, dtype=torch.float64)
    for draw in _draws(replacement, proposal, 4000):
        total.index_add_(0, draw.candidates, draw.log_weight.exp())
    # Each mean has a standard error of sqrt((1 / expected - 1) / 4000) at most, 0.06 for the rarest.
    torch.testing.assert_close(total / 4000, torch.ones(C).double(), rtol=0, atol=0.2)
    if proposal is CHANCES:
        counts = torch.zeros(C)
        for draw in _draws(replacement, proposal, 1000):
            counts[draw.candidates] += 1
        assert counts[4] > 2 * counts[1], "vacuous: the proposal does not matter"


@pytest.mark.parametrize("proposal", ["uniform", "zipf", CHANCES])
def test_without_replacement_exactly_as_many_are_drawn_and_none_twice(proposal) -> None:
    for size in (1, 4, 8, C):
        for draw in _draws(False, proposal, 50, size):
            assert draw.candidates.unique().shape == (size,)
    assert torch.equal(draw.log_weight, torch.zeros(C).double())


@pytest.mark.parametrize(("replacement", "proposal"), WAYS)
def test_a_sum_is_right_on_average_and_so_is_its_gradient(replacement, proposal) -> None:
    x, w, targets = _problem()
    loss, evaluator = BinaryCrossEntropy(), sampled(4, proposal=proposal, replacement=replacement)
    exact = loss.on_candidates(x, w, targets)
    expected = torch.autograd.grad(exact, (x, w))
    values, gradients = [], []
    for _ in range(200):
        found = loss.on_candidates(x, w, targets, evaluator=evaluator)
        values.append(found.detach())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(found, (x, w))]))
    for draws, wanted in (
        (torch.stack(values)[:, None], exact.detach()[None]),
        (torch.stack(gradients), torch.cat([g.flatten() for g in expected])),
    ):
        error = (draws.mean(0) - wanted).abs()
        assert bool((error <= 5 * draws.std(0) / 200**0.5 + 1e-12).all())
        assert draws.std(0).max() > 1e-3, "vacuous: nothing is drawn"


@pytest.mark.parametrize(("replacement", "proposal"), [(False, "uniform"), (True, "zipf")])
def test_a_logsumexp_comes_nearer_with_more_samples(replacement, proposal) -> None:
    rng = torch.Generator().manual_seed(3)
    x, w = torch.randn(8, 6, generator=rng), torch.randn(2000, 6, generator=rng)
    labels = torch.randint(0, 2000, (8,), generator=rng)
    loss = CrossEntropy(reduction="none")
    exact = loss.on_candidates(x, w, labels)
    errors = []
    for size in (20, 200, 1800):
        evaluator = sampled(size, proposal=proposal, replacement=replacement)
        found = torch.stack([loss.on_candidates(x, w, labels, evaluator=evaluator) for _ in range(40)])
        errors.append((found - exact).abs().mean().item())
    assert errors[0] > 2 * errors[1] > 3 * errors[2]
    assert errors[2] < 0.3


@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy(), DecoupledSoftmax(0.5)])
def test_the_gradient_is_that_of_the_estimated_value(loss) -> None:
    x, w, targets = _problem()

    def value(a: Tensor, b: Tensor) -> Tensor:
        return loss.on_candidates(a, b, targets, evaluator=sampled(4, proposal="zipf", replacement=True))

    assert torch.autograd.gradcheck(value, (x, w))


def test_a_positive_that_is_drawn_is_no_negative_and_one_that_is_not_is_exact() -> None:
    x, w, _ = _problem()
    every = Targets.of_label_sets([list(range(C))] * 4, C)
    dense = BinaryCrossEntropy().on_candidates(x, w, every)
    found = BinaryCrossEntropy().on_candidates(x, w, every, evaluator=sampled(2))
    torch.testing.assert_close(found, dense)


def test_draws_come_from_the_given_generator_alone() -> None:
    x, w, targets = _problem()
    before = torch.get_rng_state()
    first, second, third = (
        CrossEntropy().on_candidates(x, w, targets, evaluator=evaluator)
        for evaluator in (sampled(3, 5), sampled(3, 5), sampled(3, 6))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_one_evaluator_draws_anew_in_every_call() -> None:
    x, w, targets = _problem()
    evaluator = sampled(3)
    first, second = (CrossEntropy().on_candidates(x, w, targets, evaluator=evaluator) for _ in range(2))
    assert not torch.equal(first, second)


def test_no_matrix_of_anchors_and_candidates_is_held() -> None:
    x, w = torch.randn(24, 4, requires_grad=True), torch.randn(4000, 4, requires_grad=True)
    labels, limit = torch.randint(0, 4000, (24,)), 24 * 4000

    def largest(evaluator) -> int:
        with LargestTensor() as seen:
            CrossEntropy().on_candidates(x, w, labels, evaluator=evaluator).backward()
        return seen.elements

    assert largest(Dense()) >= limit, "vacuous: the watcher does not see the dense matrix"
    assert largest(sampled(50)) <= 4000 * 4  # the gradient of the candidates


def test_sparse_gradients_hold_the_rows_that_were_read_and_equal_the_dense_ones() -> None:
    x, w, targets = _problem()
    results = []
    for sparse in (False, True):
        leaf = w.detach().clone().requires_grad_()
        evaluator = sampled(3, 4, sparse_gradients=sparse)
        InfoNCE(0.5).on_candidates(x, leaf, targets, evaluator=evaluator).backward()
        results.append(leaf.grad)
    assert results[1].is_sparse
    torch.testing.assert_close(results[1].to_dense(), results[0])
    assert results[1].coalesce().indices().unique().numel() < C + 1


def test_a_matrix_of_scores_may_be_sampled_too() -> None:
    x, w, targets = _problem()
    loss = CrossEntropy()
    a = loss.on_candidates(x, w, targets, evaluator=sampled(3, 2))
    b = loss.evaluate(matrix_of(x @ w.T), targets, sampled(3, 2)).reduce("mean")
    torch.testing.assert_close(a, b)


def _sample(evaluator: Sampled, loss=None, targets: Targets | Tensor | None = None) -> Tensor:
    x, w, sets = _problem()
    return (loss or CrossEntropy()).on_candidates(
        x, w, targets if targets is not None else sets, evaluator=evaluator
    )


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("num_samples", lambda: sampled(0)),
        ("num_samples", lambda: _sample(sampled(C + 1))),
        ("proposal", lambda: _sample(sampled(3, proposal=torch.zeros(C)))),
        ("proposal", lambda: _sample(sampled(3, proposal=torch.ones(C + 1)))),
        ("evaluator", lambda: _sample(sampled(4), SoftTopK(2))),
        ("targets", lambda: _sample(sampled(3), targets=torch.full((4, C), 0.1))),
    ],
)
def test_what_cannot_be_estimated_is_refused_by_name(argument, call) -> None:
    with pytest.raises(MarginsError) as raised:
        call()
    assert raised.value.argument == argument


def test_a_generator_must_be_given() -> None:
    with pytest.raises(TypeError, match="generator"):
        Sampled(3)  # type: ignore[call-arg]
