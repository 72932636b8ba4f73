"""Laws of EnsLoss: slopes of a legitimate loss every time, the gradient it is defined by, and consistency."""

import math

import pytest
import torch
from torch import Tensor

from margins.losses import EnsLoss
from margins.losses.stochastic import slopes_of

LAMBDAS = (-0.5, 0.0, 0.5, 1.0)


def slopes(margins: Tensor, draws: Tensor, *, lam: float, clip: float = 1.0) -> Tensor:
    """Of one column whose entries are all known."""
    known = torch.ones_like(margins, dtype=torch.bool)
    return slopes_of(margins[:, None], draws[:, None], known[:, None], lam=lam, clip=clip)[:, 0]


def test_slopes_of_a_thousand_batches_are_those_of_a_convex_calibrated_loss_bounded_below():
    rng = torch.Generator().manual_seed(0)
    num_in_tail = 0
    for batch in range(1000):
        lam = float(4 * torch.rand((), generator=rng) - 2)
        margins = 3 * torch.randn(32, generator=rng, dtype=torch.float64)
        found = slopes(margins, torch.randn(32, generator=rng, dtype=torch.float64), lam=lam)
        in_order = found[margins.argsort()]
        assert bool((in_order.diff() >= 0).all()), f"not convex in batch {batch}"
        assert bool((found < 0).all()), f"a slope that is not negative in batch {batch}"
        assert bool((found >= -1 - 1e-6).all())
        beyond = margins > 1
        assert bool((-found[beyond] <= 1 / margins[beyond] + 1e-6).all()), f"a heavy tail in batch {batch}"
        num_in_tail += int(beyond.sum())
    assert num_in_tail > 1000, "vacuous: no margin is beyond 1"


@pytest.mark.parametrize("lam", LAMBDAS)
def test_the_gradient_is_the_slopes_times_the_label_over_the_batch(lam):
    rng = torch.Generator().manual_seed(1)
    scores = 2 * torch.randn(40, generator=rng, dtype=torch.float64)
    labels = (torch.rand(40, generator=rng) < 0.5).double()
    sign = 2 * labels - 1
    loss = EnsLoss(lam, seed=7)
    leaf = scores.clone().requires_grad_()
    loss(leaf, labels).backward()
    draws = torch.randn(40, 1, generator=torch.Generator().manual_seed(7), dtype=torch.float64)[:, 0]
    torch.testing.assert_close(leaf.grad, slopes(sign * scores, draws, lam=lam) * sign / 40)
    assert leaf.grad.abs().max() > 1e-3


def test_the_transform_of_draws_is_continuous_where_lambda_is_zero():
    draws = torch.linspace(-2.5, -0.5, 9, dtype=torch.float64)
    margins = torch.linspace(-2, 2, 9, dtype=torch.float64)
    at_zero = slopes(margins, draws, lam=0.0)
    for lam in (1e-5, -1e-5):
        torch.testing.assert_close(slopes(margins, draws, lam=lam), at_zero, rtol=1e-4, atol=1e-7)
    assert (slopes(margins, draws, lam=0.5) - at_zero).abs().max() > 1e-2, "vacuous: lambda does nothing"


def test_a_table_of_large_draws_gives_the_slopes_of_the_hinge_with_a_tail():
    margins = torch.tensor([-3.0, 0.0, 0.9, 1.0, 2.0, 4.0], dtype=torch.float64)
    found = slopes(margins, torch.full((6,), 20.0, dtype=torch.float64), lam=0.0)
    expected = torch.tensor([-1.0, -1.0, -1.0, -1.0, -1 / 2, -1 / 4], dtype=torch.float64) - 1e-6
    torch.testing.assert_close(found, expected)


def test_a_table_of_draws_is_given_to_margins_in_order():
    margins = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
    draws = torch.tensor([0.2, 0.9, 0.1], dtype=torch.float64).log()
    expected = torch.tensor([-0.1, -0.9, -0.2], dtype=torch.float64) - 1e-6
    torch.testing.assert_close(slopes(margins, draws, lam=0.0), expected)


def test_lambda_is_drawn_anew_each_period_from_its_range():
    loss = EnsLoss(lam_range=(-1.0, 1.0), period=3, seed=1)
    seen = []
    for epoch in range(9):
        loss.start_epoch(epoch)
        seen.append(loss.lam)
    assert all(-1 <= lam <= 1 for lam in seen)
    assert seen[0] == seen[1] == seen[2] != seen[3]
    assert len(set(seen)) == 3
    fixed = EnsLoss(0.25)
    fixed.start_epoch(0)
    assert fixed.lam == 0.25


def angle_to_bayes(lam: float, seed: int) -> float:
    """Degrees between the weights that a linear model learns and the best ones, under 10 % wrong labels."""
    rng = torch.Generator().manual_seed(seed)
    centre = torch.tensor([1.0, 0.5, 0.0, -0.5], dtype=torch.float64)
    root = torch.tensor([2.0, 1.0, 1.0, 0.5], dtype=torch.float64)  # deviations: the means are not the answer
    labels = (torch.rand(20_000, generator=rng) < 0.5).double()
    noise = torch.randn(20_000, 4, generator=rng, dtype=torch.float64)
    inputs = (2 * labels - 1)[:, None] * centre + root * noise
    given = torch.where(torch.rand(20_000, generator=rng) < 0.1, 1 - labels, labels)
    weight, loss = torch.zeros(4, dtype=torch.float64, requires_grad=True), EnsLoss(lam, seed=seed)
    for step, rows in enumerate(torch.randperm(20_000, generator=rng).repeat(3).split(400)):
        (grad,) = torch.autograd.grad(loss(inputs[rows] @ weight, given[rows]), weight)
        weight = (weight - 2.0 * math.cos(math.pi * step / 302) ** 2 * grad).detach().requires_grad_()
    best = centre / root.square()
    found = weight.detach()
    return math.degrees(math.acos(float(found @ best / (found.norm() * best.norm()))))


@pytest.mark.parametrize("lam", LAMBDAS)
def test_a_linear_model_learns_the_best_direction_under_label_noise(lam):
    assert angle_to_bayes(lam, seed=1000) < 3
