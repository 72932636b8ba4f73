"""Orthogonal projection: closed forms, the form with centres, and attention over the batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from margins.errors import MarginsError
from margins.losses import OrthogonalProjection, PrototypeOrthogonalProjection
from margins.training import Recipe
from reference.closed_forms import orthogonal_prototypes


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(7, 4, generator=rng, dtype=torch.float64), torch.tensor([0, 0, 1, 2, 1, 0, 3])


@pytest.mark.parametrize("angle", [0.3, math.pi / 2, 2.5])
def test_two_tight_classes_give_gamma_times_the_cosine_between_them(angle: float):
    directions = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1])
    lengths = torch.tensor([1.0, 5.0, 0.1, 2.0, 3.0], dtype=torch.float64)[:, None]
    cosine = math.cos(angle)
    forms = {"abs_mean": abs(cosine), "mean": cosine, "mean_abs": abs(cosine), "mean_square": cosine**2}
    for apart, between in forms.items():
        found = OrthogonalProjection(0.7, apart=apart)(lengths * directions[labels], labels)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(0.7 * between, abs=1e-12)


def test_two_classes_are_judged_by_their_mean_directions_alone():
    """With n_k rows and mean directions m_k: s from |m_k|^2 without the diagonal, n from m_0 m_1."""
    rng = torch.Generator().manual_seed(3)
    x, labels = (
        torch.randn(9, 5, generator=rng, dtype=torch.float64),
        torch.tensor([0, 1, 1, 0, 1, 1, 0, 1, 0]),
    )
    units = x / x.norm(dim=1, keepdim=True)
    sums = torch.stack([units[labels == k].sum(0) for k in (0, 1)])
    counts = torch.tensor([4.0, 5.0], dtype=torch.float64)
    within = (sums.square().sum(1) - counts).sum() / (counts * (counts - 1)).sum()
    between = (sums[0] @ sums[1]) / (counts[0] * counts[1])
    torch.testing.assert_close(OrthogonalProjection(0.7)(x, labels), 1 - within + 0.7 * between.abs())


def test_means_of_cosines_may_cancel_and_means_of_their_size_may_not():
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    cosines = torch.tensor([0.6, -0.6, 0.28], dtype=torch.float64)
    for apart, expected in (("mean", cosines.mean()), ("mean_abs", cosines.abs().mean())):
        found = OrthogonalProjection(1.0, apart=apart)(x, labels)  # type: ignore[arg-type]
        torch.testing.assert_close(found, 1 + expected)


def test_attention_replaces_each_embedding_by_a_mean_of_the_batch():
    x, labels = batch()
    attended = torch.zeros_like(x)
    for i in range(len(x)):
        weights = [math.exp(float(x[i] @ x[j])) for j in range(len(x))]
        attended[i] = sum(w * x[j] for j, w in enumerate(weights)) / sum(weights)
    found = OrthogonalProjection(attention=True)(x, labels)
    torch.testing.assert_close(found, OrthogonalProjection()(attended, labels))
    assert abs(found - OrthogonalProjection()(x, labels)) > 1e-3
    far_apart = 5 * torch.eye(4, dtype=torch.float64)[labels] + 0.1 * x
    plain, with_it = (OrthogonalProjection(attention=a)(far_apart, labels) for a in (False, True))
    assert with_it < plain, "within a class they move together"
    loss = OrthogonalProjection(attention=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), (x.requires_grad_(),))


def prototypes(**options: Any) -> PrototypeOrthogonalProjection:
    return PrototypeOrthogonalProjection(4, 4, **options).double()


def test_the_form_with_centres_equals_the_reference():
    x, labels = batch()
    expected = orthogonal_prototypes(x.numpy(), labels.numpy(), prototypes().centres.detach().numpy())
    assert prototypes()(x, labels).item() == pytest.approx(expected)
    parts = [prototypes(gamma=gamma)(x, labels).item() for gamma in (0.0, 0.3, 1.0)]
    assert parts[1] == pytest.approx(0.7 * parts[0] + 0.3 * parts[2])
    assert parts[2] > parts[0] + 1e-3, "vacuous: other centres are orthogonal already"


def test_centres_do_not_care_who_else_is_in_the_batch():
    x, labels = batch()
    loss = prototypes(gamma=0.0)
    alone = torch.stack([loss(x[i : i + 1], labels[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(loss(x, labels), alone.mean())
    assert alone.std() > 0.01
    pairs = OrthogonalProjection(0.0)
    assert float(pairs(x[:1], labels[:1])) == 1.0, "pairs say nothing of one row"


def test_orthonormal_centres_with_features_on_their_own_give_zero():
    _, labels = batch()
    loss = prototypes()
    with torch.no_grad():
        loss.centres.copy_(3 * torch.eye(4))
    assert loss(2 * torch.eye(4, dtype=torch.float64)[labels], labels).item() == 0.0
    assert loss(torch.eye(4, dtype=torch.float64)[labels.roll(1)], labels).item() > 0.1


def test_centres_and_features_have_the_gradient_of_the_value():
    x, labels = batch()
    loss = prototypes(gamma=0.7)

    def value(embeddings: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(loss, {"centres": centres}, (embeddings, labels))

    inputs = (x.requires_grad_(), loss.centres.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_centres_are_drawn_from_the_seed_and_saved():
    before = torch.get_rng_state()
    one, same, other = (PrototypeOrthogonalProjection(3, 5, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.centres, same.centres)
    assert not torch.equal(one.centres, other.centres)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.centres, other.centres)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype):
    x, labels = batch()
    half = (100 * x).to(dtype).requires_grad_()
    for loss in (PrototypeOrthogonalProjection(4, 4), OrthogonalProjection(attention=True)):
        found = loss(half, labels)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(half.detach().float(), labels))
        assert bool(torch.isfinite(torch.autograd.grad(found, half)[0]).all())


def test_degenerate_batches_give_a_constant_on_the_graph():
    x = torch.zeros(2, 4, requires_grad=True)
    for rows in (0, 2):
        found = PrototypeOrthogonalProjection(4, 4)(x[:rows], torch.zeros(rows, dtype=torch.long))
        assert found.item() == 0.5
        (grad,) = torch.autograd.grad(found, x, allow_unused=True)
        assert grad is None or bool((grad == 0).all())
    assert PrototypeOrthogonalProjection(1, 4)(torch.ones(2, 4), torch.zeros(2).long()).item() <= 1


def test_both_are_penalties_of_recipes():
    plain = {"task": "classes", "encoder": {"name": "tabular"}, "metric": "accuracy"}
    for card in (OrthogonalProjection.card, PrototypeOrthogonalProjection.card):
        assert card.entry == 107
    penalties = [
        {"loss": "orthogonal_projection", "settings": {"attention": True}},
        {"loss": "prototype_orthogonal_projection", "settings": {"num_classes": 3, "width": 32}},
    ]
    Recipe.model_validate({**plain, "objective": {"penalties": penalties}})


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: OrthogonalProjection(-0.1), ("gamma", "[0, inf]")),
        (lambda: PrototypeOrthogonalProjection(0, 4), ("num_classes", "[1, inf]")),
        (lambda: PrototypeOrthogonalProjection(3, 5)(*batch()), ("embeddings", "[B, 5]")),
        (lambda: PrototypeOrthogonalProjection(3, 4)(*batch()), ("labels", "[0, 3)")),
    ],
)
def test_what_makes_no_loss_is_refused(act: Any, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        act()
    for word in words:
        assert word in str(refused.value)
