"""The formulas that a compiler fuses on an accelerator, against torch's own functions."""

import math

import torch

from margins.engine import Blockwise
from margins.engine.blocks import fused


def _terms() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    terms = 30 * torch.randn(5, 40, generator=rng, dtype=torch.float64)
    terms[1], terms[2, :30] = -torch.inf, -torch.inf
    terms[3] += 1e4
    return terms


def _streamed(step) -> torch.Tensor:
    shift = torch.full((5,), -torch.inf, dtype=torch.float64)
    total = torch.zeros(5, dtype=torch.float64)
    for block in _terms().split(7, 1):
        shift, total = step(shift, total, block.clone())
    return torch.where(total > 0, shift + total.log(), -torch.inf)


def test_a_streamed_logsumexp_is_that_of_all_terms_whichever_way_it_is_run():
    expected = torch.logsumexp(_terms(), 1)
    assert math.isinf(expected[1])
    assert expected[0].abs() > 1
    for step in (fused.more_logsumexp, fused._more):
        torch.testing.assert_close(_streamed(step), expected, rtol=1e-13, atol=0)


def test_exponentials_of_differences_are_alike_whichever_way_they_are_made():
    terms = _terms()
    shift = torch.tensor([0.0, 3.0, torch.inf, 1e4, -5.0], dtype=torch.float64)
    expected = (terms - shift[:, None]).exp()
    assert (expected[2] == 0).all(), "a shift of inf leaves nothing"
    for step in (fused.exp_of_difference, fused._shifted_exp):
        torch.testing.assert_close(step(terms.clone(), shift), expected, rtol=1e-12, atol=0)


def test_exponentials_may_be_scaled_and_rounded_as_they_are_made():
    terms = _terms()
    shift, factor = (torch.linspace(a, b, 5, dtype=torch.float64) for a, b in ((1, 4), (-2, 3)))
    expected = (factor[:, None] * (terms - shift[:, None]).exp()).float()
    like = torch.empty(0)
    for found in (
        fused.exp_of_difference(terms.clone(), shift, factor, torch.float32),
        fused._scaled_exp(terms, shift, factor, like),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_a_plan_tells_how_its_steps_run():
    assert Blockwise().plan(8, 100, 4).kernels == "torch"
