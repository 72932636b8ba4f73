"""Laws of losses and heads of several hypotheses."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from margins.errors import MarginsError
from margins.heads import MultiHypothesisConv, MultiHypothesisHead
from margins.losses import MinOverHypotheses
from margins.targets import Targets
from reference import hypotheses as reference

SHAPES = {"mse": (5, 3, 2, 4), "psnr": (5, 3, 6), "ce": (5, 3, 4)}


def _batch(base: str = "mse", seed: int = 0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    shape = SHAPES[base]
    hypotheses = torch.randn(shape, generator=draws, dtype=torch.float64)
    if base == "ce":
        return hypotheses, torch.randint(0, shape[2], shape[:1], generator=draws)
    return hypotheses, torch.randn(shape[0], *shape[2:], generator=draws, dtype=torch.float64)


def _as_arrays(base: str, hypotheses: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    truth = functional.one_hot(targets, hypotheses.shape[2]) if base == "ce" else targets
    return hypotheses.numpy(), truth.numpy()


@pytest.mark.parametrize("base", SHAPES)
@pytest.mark.parametrize("options", [{}, {"relax": 0.2}, {"temperature": 0.7}], ids=str)
def test_min_over_hypotheses_equals_the_reference(base, options):
    batch = _batch(base)
    loss = MinOverHypotheses(3, base=base, reduction="none", **options)
    expected = reference.min_over_heads(*_as_arrays(base, *batch), base=base, **options)
    np.testing.assert_allclose(loss(*batch), expected, rtol=1e-9)
    assert np.abs(expected).max() > 1e-2, "vacuous"
    assert loss.wins.tolist() == reference.win_counts(*_as_arrays(base, *batch), base=base)
    assert len(set(loss.wins.tolist())) > 1, "vacuous: all win alike"


@pytest.mark.parametrize("base", SHAPES)
def test_one_hypothesis_is_the_base_loss(base):
    hypotheses, targets = _batch(base)
    hypotheses = hypotheses[:, :1]
    mse = (hypotheses[:, 0] - targets).square().flatten(1).mean(1) if base != "ce" else None
    expected = {
        "mse": lambda: mse.mean(),
        "psnr": lambda: (10 * torch.log10(mse + 1e-8)).mean(),
        "ce": lambda: functional.cross_entropy(hypotheses[:, 0], targets),
    }[base]()
    for options in ({}, {"temperature": 2.0}):
        torch.testing.assert_close(MinOverHypotheses(1, base=base, **options)(hypotheses, targets), expected)
    assert expected.abs() > 1e-2, "vacuous"


def test_multiplexing_adds_the_mean_of_every_pair():
    hypotheses, targets = _batch("mse")
    for num in (1, 2, 3):
        loss = MinOverHypotheses(num, multiplex=True, reduction="none")
        each = loss.per_hypothesis(hypotheses[:, :num], targets)
        assert each.shape[1] == loss.num_outputs == num * (num + 1) // 2
        wanted = reference.head_losses(reference.multiplexed(hypotheses[:, :num].numpy()), targets.numpy())
        np.testing.assert_allclose(each.sort(1).values, np.sort(wanted, axis=1), rtol=1e-9)
    torch.testing.assert_close(each[:, :3], MinOverHypotheses(3).per_hypothesis(hypotheses, targets))
    assert MinOverHypotheses(4, multiplex=True).num_outputs == 10
    assert bool(
        (loss(hypotheses, targets) < MinOverHypotheses(3, reduction="none")(hypotheses, targets)).any()
    )


def test_only_the_winner_has_a_gradient():
    draws = torch.Generator().manual_seed(0)
    head = MultiHypothesisHead(4, 2, num_hypotheses=3, generator=draws)
    inputs, targets = torch.randn(1, 4, generator=draws), torch.randn(1, 2, generator=draws)
    loss = MinOverHypotheses(3)
    won = int(loss.per_hypothesis(head(inputs), targets).argmin())
    grads = {}
    for relax in (0.0, 0.3):
        head.zero_grad()
        MinOverHypotheses(3, relax=relax)(head(inputs), targets).backward()
        grads[relax] = head.layer.weight.grad.clone().view(3, 2, 4).abs().amax((1, 2))
    losers = [h for h in range(3) if h != won]
    assert grads[0.0][won] > 1e-3
    assert bool((grads[0.0][losers] == 0).all())
    assert bool((grads[0.3] > 1e-4).all()), "vacuous: relaxed, losers have none either"
    torch.testing.assert_close(grads[0.3][won], 0.7 * grads[0.0][won])


def test_of_equal_hypotheses_the_first_wins():
    loss = MinOverHypotheses(3)
    same = torch.ones(4, 3, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(loss(same, torch.zeros(4, 2)), same)
    assert loss.wins.tolist() == [4, 0, 0]
    assert bool((grad[:, 1:] == 0).all())
    assert grad[:, 0].abs().min() > 0


@pytest.mark.parametrize("base", SHAPES)
def test_the_gradient_is_that_of_the_weighted_losses(base):
    hypotheses, targets = _batch(base)
    loss = MinOverHypotheses(3, base=base, relax=0.2)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (hypotheses.requires_grad_(),))


def test_softened_weights_are_constants_that_sum_to_one_and_follow_the_losses():
    hypotheses, targets = _batch("mse")
    soft = MinOverHypotheses(3, temperature=0.5, relax=0.1, reduction="none")
    each = soft.per_hypothesis(hypotheses, targets)
    leaf = hypotheses.clone().requires_grad_()
    (grad,) = torch.autograd.grad(soft(leaf, targets).sum(), leaf)
    share = torch.softmax(-each / 0.5, 1)
    weight = 0.9 * share + 0.1 * (1 - share) / 2
    torch.testing.assert_close(weight.sum(1), torch.ones(5, dtype=torch.float64))
    expected = weight[:, :, None, None] * 2 * (hypotheses - targets[:, None]) / 8
    torch.testing.assert_close(grad, expected)
    hot = MinOverHypotheses(3, temperature=1e6)(hypotheses, targets)
    torch.testing.assert_close(hot, each.mean(), rtol=1e-5, atol=0)


def test_relaxation_falls_to_nothing_over_the_epochs():
    hypotheses, targets = _batch("mse")
    loss = MinOverHypotheses(3, relax=0.4, temperature=1.0, anneal_epochs=4)
    values = []
    for epoch in range(6):
        loss.start_epoch(epoch)
        values.append(float(loss(hypotheses, targets)))
    torch.testing.assert_close(
        values[0], float(MinOverHypotheses(3, relax=0.4, temperature=1.0)(hypotheses, targets))
    )
    half = MinOverHypotheses(3, relax=0.2, temperature=0.5)(hypotheses, targets)
    torch.testing.assert_close(values[2], float(half))
    hard = float(MinOverHypotheses(3)(hypotheses, targets))
    assert values[4] == values[5] == hard
    assert values[0] > values[1] > values[2] > values[3] > hard


def test_wins_count_training_rows_of_one_epoch():
    hypotheses, targets = _batch("ce")
    loss = MinOverHypotheses(3, base="ce")
    targets[2] = -100
    for _ in range(2):
        loss(hypotheses, targets)
    assert loss.wins.sum() == 8, "an ignored row wins nothing"
    other = MinOverHypotheses(3, base="ce")
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.wins, loss.wins)
    loss.eval()
    loss(hypotheses, targets)
    assert loss.wins.sum() == 8
    loss.start_epoch(1)
    assert loss.wins.sum() == 0


def test_rows_that_do_not_count_are_those_of_cross_entropy():
    hypotheses, labels = _batch("ce")
    targets = Targets.of_classes(labels, 4).weigh(rows=torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5]))
    each = MinOverHypotheses(3, base="ce", reduction="none")(hypotheses, targets)
    assert each[1] == 0
    found = MinOverHypotheses(3, base="ce", reduction="weighted_mean")(hypotheses, targets)
    torch.testing.assert_close(found, each.sum() / 4.5)


def test_the_report_tells_the_oracle_from_the_best_single_hypothesis():
    truth = torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [-1.0]])
    hypotheses = torch.stack([torch.ones(5, 1), -torch.ones(5, 1), torch.full((5, 1), 9.0)], 1)
    report = MinOverHypotheses(3).report(hypotheses, truth)
    assert report.oracle == 0.0
    assert report.best == 1
    assert report.single == pytest.approx(4 * 2 / 5)
    torch.testing.assert_close(report.win_rates, torch.tensor([0.4, 0.6, 0.0]))
    assert report.dead() == [2]
    assert report.spread == pytest.approx(float(torch.tensor([1.0, -1.0, 9.0]).std(correction=0)))
    same = MinOverHypotheses(3).report(torch.ones(5, 3, 1), truth)
    assert same.spread == 0
    assert same.dead() == [1, 2]


def test_hypotheses_of_maps_are_changes_of_the_given_map():
    draws = torch.Generator().manual_seed(0)
    head = MultiHypothesisConv(4, 2, num_hypotheses=3, generator=draws)
    features, image = torch.randn(2, 4, 6, 7, generator=draws), torch.randn(2, 2, 6, 7, generator=draws)
    found = head(features, image)
    change = functional.conv2d(features, head.layer.weight, padding=1).view(2, 3, 2, 6, 7)
    torch.testing.assert_close(found, image[:, None] + change)
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-2, "hypotheses start alike"


def test_two_hypotheses_find_both_branches_of_a_curve_and_one_finds_neither():
    errors = {}
    for num in (1, 2):
        draws = torch.Generator().manual_seed(0)
        x = 0.5 + 2 * torch.rand(256, 1, generator=draws)
        sign = torch.where(torch.rand(256, 1, generator=draws) < 0.5, 1.0, -1.0)
        y = sign * torch.sin(x) + 0.1 * torch.randn(256, 1, generator=draws)
        body = MultiHypothesisHead(1, 32, num_hypotheses=1, generator=draws)
        head = MultiHypothesisHead(32, 1, num_hypotheses=num, generator=draws)
        network = nn.ModuleList([body, head])
        loss = MinOverHypotheses(num, relax=0.1 if num > 1 else 0.0, anneal_epochs=100)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
        for step in range(150):
            loss.start_epoch(step)
            optimiser.zero_grad()
            loss(head(functional.relu(body(x)[:, 0])), y).backward()
            optimiser.step()
        errors[num] = loss.report(head(functional.relu(body(x)[:, 0])), y).oracle
    assert errors[1] > 0.5
    assert errors[2] < 0.03


def test_half_precision_is_computed_in_float32_and_an_empty_batch_is_a_zero_on_the_graph():
    hypotheses, targets = _batch("psnr")
    half = (30 * hypotheses).to(torch.bfloat16).requires_grad_()
    found = MinOverHypotheses(3, base="psnr")(half, targets.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, MinOverHypotheses(3, base="psnr")(half.detach().float(), targets.float())
    )
    assert bool(torch.isfinite(torch.autograd.grad(found, half)[0]).all())
    leaf = torch.zeros(0, 3, 2, requires_grad=True)
    empty = MinOverHypotheses(3)(leaf, torch.zeros(0, 2))
    assert empty.item() == 0
    assert empty.requires_grad


def test_hypotheses_refuse_what_does_not_fit():
    hypotheses, targets = _batch("mse")
    wrong = {
        "num_hypotheses": lambda: MinOverHypotheses(0),
        "multiplex": lambda: MinOverHypotheses(2, base="ce", multiplex=True),
        "relax.*below 1": lambda: MinOverHypotheses(1, relax=0.1),
        "relax": lambda: MinOverHypotheses(2, relax=1.5),
        "temperature": lambda: MinOverHypotheses(2, temperature=-1.0),
        "anneal_epochs": lambda: MinOverHypotheses(2, anneal_epochs=0),
        r"hypotheses.*\[B, 2": lambda: MinOverHypotheses(2)(hypotheses, targets),
        "targets.*as one hypothesis": lambda: MinOverHypotheses(3)(hypotheses, targets[:, :1]),
        "logits for base 'ce'": lambda: MinOverHypotheses(3, base="ce")(hypotheses, torch.zeros(5).long()),
        "num_outputs": lambda: MultiHypothesisHead(2, 0, generator=torch.Generator()),
        "image": lambda: MultiHypothesisConv(2, generator=torch.Generator())(
            torch.ones(1, 2, 4, 4), torch.ones(1, 1, 4, 5)
        ),
    }
    for words, call in wrong.items():
        with pytest.raises(MarginsError, match=words):
            call()
