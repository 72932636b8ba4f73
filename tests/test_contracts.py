"""Three proofs that the contracts carry what the field needs, each a real training step or several.

State by row id (ALDR-KL with memory), a method defined by its gradient (EnsLoss), and a bilevel step whose
second derivatives run through the dense evaluator (meta loss rescaling).
"""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call

from margins.engine import Blockwise
from margins.engine.sources import factored
from margins.errors import OnceDifferentiableError
from margins.losses import ALDRKL, ALDRKLMemory, CrossEntropy, EnsLoss
from margins.targets import Targets


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data / 16.0, dtype=torch.float32), torch.tensor(data.target)


def _noisy(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(labels), generator=rng) < share
    shift = torch.randint(1, 10, labels.shape, generator=rng)
    return torch.where(wrong, (labels + shift) % 10, labels), wrong


def _network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def test_state_by_row_id_follows_its_rows_through_shuffled_batches_and_a_checkpoint(digits):
    inputs, labels = digits[0][:400], _noisy(digits[1][:400], 0.4, 0)[0]
    network, loss = _network(0), ALDRKLMemory(400, 10.0)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    rng = torch.Generator().manual_seed(1)
    for _ in range(12):
        for ids in torch.randperm(400, generator=rng).split(50):
            optimiser.zero_grad()
            loss(network(inputs[ids]), labels[ids], ids=ids).backward()
            optimiser.step()
    assert bool((loss.lam != 10.0).all()), "a row that was visited keeps its first temperature"
    assert loss.lam.std() > 1e-3, "vacuous: every row has the same temperature"

    # The state belongs to the row, not to its place in the batch.
    loss.eval()
    with torch.no_grad():
        loss.lam.copy_(torch.linspace(2.0, 20.0, 400))
    scores = network(inputs).detach()
    order = torch.randperm(400, generator=rng)
    plain = loss(scores, labels, ids=torch.arange(400))
    torch.testing.assert_close(loss(scores[order], labels[order], ids=order), plain)
    assert not torch.isclose(loss(scores, labels, ids=order), plain), "vacuous: ids do not matter"

    # It survives a checkpoint, and evaluation mode leaves it alone.
    copy = ALDRKLMemory(400, 10.0)
    copy.load_state_dict(loss.state_dict())
    assert torch.equal(copy.lam, loss.lam)
    copy.eval()
    torch.testing.assert_close(copy(scores, labels, ids=torch.arange(400)), plain, rtol=0, atol=0)
    assert torch.equal(copy.lam, loss.lam)

    # With scores that stand still the memory arrives at the exact temperature.
    copy.train()
    for _ in range(60):
        found = copy(scores, labels, ids=torch.arange(400))
    torch.testing.assert_close(found, ALDRKL(10.0)(scores, labels), rtol=1e-5, atol=1e-5)


def test_a_row_that_does_not_count_keeps_its_state():
    loss = ALDRKLMemory(4, 10.0)
    with torch.no_grad():
        loss.lam.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    loss(torch.randn(2, 3), torch.tensor([-100, 1]), ids=torch.tensor([2, 3]))
    assert loss.lam[:3].tolist() == [1.0, 2.0, 3.0]
    assert loss.lam[3] != 4.0


def test_a_method_defined_by_its_gradient_trains_a_binary_classifier(digits):
    inputs, odd = digits[0], (digits[1] % 2).float()
    torch.manual_seed(0)
    network = nn.Linear(64, 1)
    loss = EnsLoss(seed=3)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)
    rng = torch.Generator().manual_seed(0)
    for _ in range(15):
        for ids in torch.randperm(1200, generator=rng).split(64):
            optimiser.zero_grad()
            loss(network(inputs[ids])[:, 0], odd[ids]).backward()
            optimiser.step()
    accuracy = ((network(inputs[1200:])[:, 0] > 0) == (odd[1200:] > 0.5)).float().mean()
    assert odd[1200:].mean() < 0.6
    assert accuracy > 0.84  # logistic regression reaches about 0.87 on this split; chance is 0.5


def test_the_draws_of_a_random_loss_resume_where_they_stopped():
    scores, labels = torch.randn(32), (torch.arange(32) % 2).float()
    first = EnsLoss(lam_range=(-1.0, 1.0), period=1)
    first.start_epoch(0)
    first(scores, labels)
    second = EnsLoss(lam_range=(-1.0, 1.0), period=1)
    second.load_state_dict(first.state_dict())
    for epoch in range(3):
        first.start_epoch(epoch)
        second.start_epoch(epoch)
        assert torch.equal(first(scores, labels), second(scores, labels))
    assert not torch.equal(first(scores, labels), first(scores, labels)), "vacuous: nothing is drawn"


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum"])
def test_a_row_that_weighs_nothing_changes_no_slope_of_a_random_loss(reduction):
    labels = (torch.arange(12) % 2).double()[:, None]
    weight = 0.5 + torch.rand(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[4] = 0.0
    targets = Targets.of_scores(labels).weigh(rows=weight)
    base = torch.randn(12, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = []
    for extreme in (-50.0, 0.3):
        scores = base.clone()
        scores[4] = extreme
        scores.requires_grad_()
        EnsLoss(reduction=reduction, seed=5)(scores, targets).backward()
        gradients.append(scores.grad)
    assert torch.equal(*gradients)
    assert gradients[0][4] == 0
    assert gradients[0].abs().max() > 1e-3


def test_the_mean_of_a_random_loss_divides_by_its_weights_only_when_asked():
    scores, labels = torch.randn(16, 1), (torch.arange(16) % 2).float()[:, None]
    targets = Targets.of_scores(labels).weigh(rows=torch.full((16,), 10.0))
    plain, weighted = (EnsLoss(reduction=r)(scores, targets) for r in ("mean", "weighted_mean"))
    torch.testing.assert_close(plain, 10 * weighted)
    assert weighted.abs() > 1e-3


class _MetaStep:
    """One step of meta loss rescaling: weights of rows by a small network, judged after a virtual step."""

    def __init__(self, network: nn.Module, rescaler: nn.Module, rate: float) -> None:
        self.network, self.rescaler, self.rate = network, rescaler, rate
        self.loss = CrossEntropy(reduction="sum")

    def outer(self, inner: tuple[Tensor, Tensor], judged: tuple[Tensor, Tensor]) -> Tensor:
        params = dict(self.network.named_parameters())
        inputs, labels = inner
        weight = self.weights(inputs, labels)
        targets = Targets.of_classes(labels, 10).weigh(rows=weight)
        value = self.loss(functional_call(self.network, params, (inputs,)), targets) / len(labels)
        grads = torch.autograd.grad(value, list(params.values()), create_graph=True)
        moved = {n: p - self.rate * g for (n, p), g in zip(params.items(), grads, strict=True)}
        return CrossEntropy()(functional_call(self.network, moved, (judged[0],)), judged[1])

    def weights(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            scores = self.network(inputs)
            features = torch.stack([CrossEntropy().per_anchor(scores, labels), scores.softmax(1).amax(1)], 1)
        raw = torch.sigmoid(self.rescaler(features)[:, 0])
        return len(raw) * raw / raw.sum()


def test_a_bilevel_step_has_the_right_second_derivative(digits):
    inputs, labels = digits[0][:24].double(), digits[1][:24]
    torch.manual_seed(0)
    step = _MetaStep(nn.Linear(64, 10).double(), nn.Linear(2, 1).double(), rate=0.5)
    weight = step.rescaler.weight
    inner, judged = (inputs[:16], labels[:16]), (inputs[16:], labels[16:])
    (meta,) = torch.autograd.grad(step.outer(inner, judged), weight)
    numeric = torch.zeros_like(weight)
    for k in range(2):
        for sign in (1, -1):
            with torch.no_grad():
                weight[0, k] += sign * 1e-4
            numeric[0, k] += sign * step.outer(inner, judged).detach() / 2e-4
            with torch.no_grad():
                weight[0, k] -= sign * 1e-4
    torch.testing.assert_close(meta, numeric, rtol=1e-5, atol=1e-9)
    assert meta.abs().max() > 1e-6, "vacuous: the weights do not matter"

    assert abs(float(step.weights(*inner).detach().mean()) - 1) < 1e-12


def test_bilevel_training_gives_wrong_labels_less_weight(digits):
    labels, wrong = _noisy(digits[1][:600], 0.4, 2)
    inputs = digits[0][:600]
    clean = digits[0][600:800], digits[1][600:800]
    network = _network(1)
    torch.manual_seed(0)
    step = _MetaStep(network, nn.Linear(2, 1), rate=0.5)
    model_optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    meta_optimiser = torch.optim.Adam(step.rescaler.parameters(), lr=0.05)
    rng = torch.Generator().manual_seed(0)
    for _ in range(8):
        for ids in torch.randperm(600, generator=rng).split(100):
            meta_optimiser.zero_grad()
            step.outer((inputs[ids], labels[ids]), clean).backward()
            meta_optimiser.step()
            targets = Targets.of_classes(labels[ids], 10).weigh(
                rows=step.weights(inputs[ids], labels[ids]).detach()
            )
            model_optimiser.zero_grad()
            CrossEntropy()(network(inputs[ids]), targets).backward()
            model_optimiser.step()
    weight = step.weights(inputs, labels).detach()
    assert 0.3 < wrong.float().mean() < 0.5
    assert weight[wrong].mean() < 0.6 * weight[~wrong].mean()


def test_the_blockwise_evaluator_refuses_a_bilevel_step_by_name(digits):
    inputs, labels = digits[0][:8], digits[1][:8]
    vectors = torch.randn(10, 64, requires_grad=True)
    loss = CrossEntropy()
    source = factored(loss.score_rule, inputs, vectors)
    rows = loss.evaluate(source, Targets.of_classes(labels, 10), Blockwise(4))
    with pytest.raises(OnceDifferentiableError, match="second ones"):
        torch.autograd.grad(rows.values.sum(), vectors, create_graph=True)


class _Declared(CrossEntropy):
    """A subclass, which takes the way of its declaration."""


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_class_ids_is_what_it_declares(reduction: str, weighted: bool):
    draws = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 4, generator=draws, dtype=torch.float64) * 20
    targets = Targets.of_classes(torch.tensor([0, 3, 1, 1, 2, 0]), 4)
    if weighted:
        targets = targets.weigh(rows=torch.tensor([1.0, 0.25, 2.0, 0.5, 3.0, 1.0]))
    upstream = torch.rand(6, generator=draws, dtype=torch.float64)
    found = []
    for loss in (CrossEntropy(reduction=reduction), _Declared(reduction=reduction)):
        own = scores.clone().requires_grad_()
        value = loss(own, targets)
        (value * upstream).sum().backward()
        found.append((value.detach(), own.grad, loss.rows(scores, targets).num_degenerate))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-12)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-12)
    assert found[0][1].abs().max() > 0.01
