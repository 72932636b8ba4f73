"""Blocks that learn alone: the law of the noise, whose gradient is whose, and what is held at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import margins
from made_up_training import recipe
from margins.encoders import linear
from margins.errors import MarginsError
from margins.heads import NoProp, NoPropHead, class_prototypes
from margins.heads.noise_schedule import posterior_coefficients, signal_shares
from reference.closed_forms import block_weights
from reference.closed_forms import posterior_coefficients as expected_coefficients

NUM_IN, WIDTH, CLASSES = 4, 8, 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_encoder(generator: torch.Generator) -> nn.Module:
    return nn.Sequential(linear(NUM_IN, WIDTH, generator=generator), nn.ReLU())


def model(num_blocks: int = 4, **changes: Any) -> NoProp:
    return NoProp(make_encoder, WIDTH, CLASSES, num_blocks=num_blocks, generator=seeded(), **changes)


def blobs(num: int = 240, seed: int = 1) -> tuple[Tensor, Tensor]:
    labels = torch.arange(num) % CLASSES
    return 3 * torch.eye(CLASSES, NUM_IN)[labels] + torch.randn(num, NUM_IN, generator=seeded(seed)), labels


@pytest.mark.parametrize(("first", "last"), [(0.01, 0.99), (0.2, 0.7)])
def test_coefficients_are_the_reference_and_keep_the_law_of_the_noise(first: float, last: float) -> None:
    shares = signal_shares(10, first=first, last=last)
    assert bool((shares.diff() > 0).all())
    assert [float(shares[0]), float(shares[-1])] == pytest.approx([first, last])
    a, b, c = posterior_coefficients(shares)
    np.testing.assert_allclose(torch.stack([a, b, c], 1), expected_coefficients(shares.tolist()), rtol=1e-10)
    before, now = shares[:-1], shares[1:]
    # Of a label u that is known: the mean is sqrt(now) u and the variance 1 - now.
    torch.testing.assert_close(a + b * before.sqrt(), now.sqrt())
    torch.testing.assert_close(b.square() * (1 - before) + c, 1 - now)
    weights = model(10, signal=(first, last), strength=0.3).weights
    np.testing.assert_allclose(weights, block_weights(shares.tolist(), strength=0.3), rtol=1e-5)


class _Knows(nn.Module):
    """A block that has the label of its input in it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        return 1e4 * features.expand(*label.shape[:-1], -1)


def test_a_label_that_is_known_goes_through_all_blocks_as_its_marginals_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.0]])
    chain = model(6, embeddings=vectors, signal=(1e-6, 0.9))
    seen: list[Tensor] = []
    for number, block in enumerate(chain.blocks):
        knows = _Knows(nn.Identity())
        forward = knows.forward
        monkeypatch.setattr(
            knows, "forward", lambda x, z, forward=forward: (seen.append(z.clone()), forward(x, z))[1]
        )
        chain.blocks[number] = knows
        assert block is not knows
    monkeypatch.setattr("margins.heads.no_prop.DenoisingBlock", _Knows)
    monkeypatch.setattr(chain.readout, "forward", lambda z: (seen.append(z.clone()), z)[1])
    labels = torch.tensor([0, 1, 2])
    chain.predicted(torch.eye(3), num_draws=20_000, seed=4)
    assert len(seen) == 7
    for share, noisy in zip(chain.alpha_bar, seen, strict=True):
        mean = share.sqrt() * vectors[labels]
        torch.testing.assert_close(noisy.mean(0), mean, atol=0.03, rtol=0)
        torch.testing.assert_close(noisy.var(0), (1 - share).expand(3, 2), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("learn_embeddings", [False, True])
def test_the_loss_of_a_block_gives_no_other_block_a_gradient(learn_embeddings: bool) -> None:
    chain, (x, y) = model(learn_embeddings=learn_embeddings), blobs(30)
    for t in range(1, 5):
        chain.zero_grad()
        chain.block_loss(t, x, y, generator=seeded(t)).backward()
        for s, block in enumerate(chain.blocks, start=1):
            touched = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in block.parameters()]
            assert all(touched) if s == t else not any(touched)
        assert all(p.grad is None for p in chain.readout.parameters())
        assert (chain.embeddings.grad is not None) == learn_embeddings
    chain.zero_grad()
    chain.readout_loss(y, generator=seeded()).backward()
    assert all(p.grad is None for p in chain.blocks.parameters())


def test_the_loss_of_a_block_is_its_weight_times_the_distance_from_the_label() -> None:
    chain, (x, y) = model(3, strength=0.7), blobs(12)
    found = chain.block_loss(2, x, y, generator=seeded(5))
    noise = torch.randn(12, CLASSES, generator=seeded(5))
    true, share = torch.eye(CLASSES)[y], chain.alpha_bar[1]
    block: Any = chain.blocks[1]
    said = block(block.encoder(x), share.sqrt() * true + (1 - share).sqrt() * noise).softmax(1)
    weight = block_weights(chain.alpha_bar.tolist(), strength=0.7)[1]
    torch.testing.assert_close(found, weight * (said - true).square().sum(1).mean(), rtol=1e-5, atol=0)


def test_learned_embeddings_pay_for_their_divergence_from_noise() -> None:
    chain, (_, y) = (
        model(learn_embeddings=True, embeddings=2 * torch.eye(CLASSES), signal=(0.3, 0.9)),
        blobs(9),
    )
    plain = model(embeddings=2 * torch.eye(CLASSES), signal=(0.3, 0.9))
    both = [m.readout_loss(y, generator=seeded(1)) for m in (chain, plain)]
    first = torch.distributions.MultivariateNormal(
        0.3**0.5 * 2 * torch.eye(CLASSES)[0], 0.7 * torch.eye(CLASSES)
    )
    noise = torch.distributions.MultivariateNormal(torch.zeros(CLASSES), torch.eye(CLASSES))
    expected = torch.distributions.kl_divergence(first, noise)
    torch.testing.assert_close(both[0] - both[1], expected)


class _Held:
    """Counts the bytes that graphs hold for their backward pass, and the most that they ever held."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> Any:
        held = self

        class Kept:
            def __init__(self) -> None:
                self.tensor = tensor
                held.now += tensor.numel() * tensor.element_size()
                held.most = max(held.most, held.now)

            def __del__(self) -> None:
                held.now -= self.tensor.numel() * self.tensor.element_size()

        return Kept()


def _most_held(step: Any) -> int:
    held = _Held()
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept.tensor):
        step()
    return held.most


def test_the_memory_of_a_step_does_not_grow_with_the_number_of_blocks() -> None:
    x, y = blobs(60)

    def step(num_blocks: int) -> Any:
        chain = model(num_blocks)
        optimizer = torch.optim.SGD(chain.parameters(), 0.1)
        return lambda: chain.take_step(optimizer, x, y, generator=seeded())

    def at_once(num_blocks: int) -> Any:
        chain = model(num_blocks)
        return lambda: sum(chain.block_loss(t, x, y, generator=seeded()) for t in range(1, num_blocks + 1))

    few, many = _most_held(step(2)), _most_held(step(12))
    assert few == many > 60 * WIDTH * 4
    assert _most_held(at_once(12)) > 5 * _most_held(at_once(2)), "vacuous: nothing would grow"


@pytest.mark.parametrize("kind", ["one-hot", "learned", "prototypes"])
def test_a_chain_learns_and_says_the_same_again(kind: str) -> None:
    x, y = blobs()
    vectors = None if kind == "one-hot" else torch.randn(CLASSES, 5, generator=seeded(9))
    vectors = class_prototypes(x, y, CLASSES) if kind == "prototypes" else vectors
    chain = model(embeddings=vectors, learn_embeddings=kind == "learned")
    before = torch.get_rng_state()
    history = chain.fit(x, y, epochs=16, batch_size=40, learning_rate=1e-2)
    other, truth = blobs(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert history[-1] < 0.7 * history[0]
    assert float((chain.predict(other, num_draws=5) == truth).float().mean()) > 0.9
    assert torch.equal(chain.predict_proba(other), chain.predict_proba(other))
    assert not torch.equal(chain.predict_proba(other), chain.predict_proba(other, seed=1))
    fresh = model(embeddings=vectors, learn_embeddings=kind == "learned")
    fresh.load_state_dict(chain.state_dict())
    assert torch.equal(fresh.predict_proba(other), chain.predict_proba(other))
    again = model(embeddings=vectors, learn_embeddings=kind == "learned")
    assert again.fit(x, y, epochs=2, batch_size=40, learning_rate=1e-2) == history[:2]


def test_every_block_gives_an_answer_and_draws_say_how_sure_it_is() -> None:
    x, y = blobs()
    chain = model()
    chain.fit(x, y, epochs=16, batch_size=40, learning_rate=1e-2)
    between = torch.tensor([[1.5, 1.5, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])
    found = chain.predicted(between, num_draws=200)
    assert found.by_block.shape == (4, 2, CLASSES)
    torch.testing.assert_close(found.by_block.sum(2), torch.ones(4, 2))
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(2))
    assert found.spread[0].max() > 3 * found.spread[1].max()
    assert bool((chain.predicted(between).spread == 0).all())
    other, truth = blobs(seed=3)
    for said in chain.predicted(other).by_block:
        assert float((said.argmax(1) == truth).float().mean()) > 0.85


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: model(0), "num_blocks"),
        (lambda: model(signal=(0.5, 0.5)), "signal"),
        (lambda: model(signal=(0.0, 0.9)), "signal"),
        (lambda: model(strength=0.0), "strength"),
        (lambda: model(embeddings=torch.eye(2)), r"\[3, D\]"),
        (lambda: model().predicted(torch.zeros(2, NUM_IN), num_draws=0), "num_draws"),
        (lambda: model().fit(torch.zeros(2, NUM_IN), torch.tensor([0]), epochs=1), "labels"),
        (lambda: model().fit(torch.zeros(1, NUM_IN), torch.tensor([3]), epochs=1), "labels"),
        (lambda: model().fit(torch.zeros(1, NUM_IN), torch.tensor([0]), epochs=0), "epochs"),
        (lambda: class_prototypes(torch.zeros(2, 1), torch.tensor([0, 0]), 2), "class 1"),
    ],
)
def test_what_a_chain_cannot_be_or_learn_is_refused(use: Any, words: str) -> None:
    with pytest.raises(MarginsError, match=words):
        use()


# --- as a head in recipes ---------------------------------------------------------------------------------

PARTS = {"encoder": {"name": "embeddings"}, "head": {"name": "no_prop"}, "step": {"name": "no_prop"}}


def test_what_the_head_says_of_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    head = NoPropHead(NUM_IN, CLASSES, hidden=WIDTH, num_blocks=3, generator=seeded())
    x, _ = blobs(20)
    whole = head(x)
    assert torch.equal(whole, head(x))
    torch.testing.assert_close(torch.cat([head(x[:1]), head(x[1:7]), head(x[7:])]), whole)
    torch.testing.assert_close(whole.exp().sum(1), torch.ones(20))
    alone = head.predicted(x[:1], num_draws=head.num_draws)
    torch.testing.assert_close(alone.probabilities.log(), whole[:1])


def test_weights_of_rows_weigh_their_losses() -> None:
    chain, (x, y) = model(learn_embeddings=True), blobs(12)
    weight = torch.arange(12.0) % 3
    for loss in (
        lambda w: chain.block_loss(2, x, y, generator=seeded(1), weight=w),
        lambda w: chain.readout_loss(y, generator=seeded(1), weight=w),
    ):
        ones = [loss(torch.eye(12)[k]) for k in range(12)]
        torch.testing.assert_close(loss(weight), sum(w * one for w, one in zip(weight, ones, strict=True)))
        torch.testing.assert_close(loss(None), sum(ones))


def test_a_recipe_trains_blocks_and_leaves_the_encoder_alone() -> None:
    x, y = blobs()
    table = {"vector": (x / x.norm(dim=1, keepdim=True)).tolist(), "label": [f"k{k}" for k in y.tolist()]}
    optimizer = {"name": "adamw", "learning_rate": 0.01}
    how = {**PARTS, "max_epochs": 14, "patience": None, "optimizer": optimizer}
    trained, again = (
        margins.train(table, target="label", inputs=["vector"], recipe=how, device="cpu") for _ in range(2)
    )
    losses = [record.loss for record in trained.fitted[0].history]
    assert losses[-1] < 0.7 * losses[0]
    assert losses == [record.loss for record in again.fitted[0].history]
    assert trained.scores["report"]["accuracy"] > 0.85
    assert isinstance(trained.model.network.head, NoPropHead)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": {"name": "standard"}}, "head no_prop with step no_prop"),
        ({"head": {"name": "linear"}}, "head no_prop with step no_prop"),
        ({"encoder": {"name": "tabular"}}, "one that is not trained"),
        ({"encoder": {"name": "embeddings", "depth": 1}}, "one that is not trained"),
        ({"objective": {"loss": "focal"}}, "losses of their own"),
        ({"mix": {"name": "feature_mixup"}}, "none"),
        ({"task": "label_sets", "metric": "micro_f1"}, "outputs of the task label_sets"),
    ],
)
def test_parts_that_blocks_have_no_use_for_are_refused(changes: dict[str, Any], words: str) -> None:
    assert recipe(**PARTS).head.name == "no_prop"
    with pytest.raises(ValueError, match=words):
        recipe(**{**PARTS, **changes})
