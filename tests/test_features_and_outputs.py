"""Laws of the two forms that have no scores against candidates."""

import numpy as np
import pytest
import torch

from margins.losses import ALDRKLMemory, CrossEntropy, MultiHead, OrthogonalProjection, SquaredError
from margins.targets import Targets
from reference.features import orthogonal_projection

APART = ("abs_mean", "mean", "mean_abs", "mean_square")


def _batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(7, 4, generator=rng, dtype=torch.float64), torch.tensor([0, 0, 1, 2, 1, 0, 3])


@pytest.mark.parametrize("apart", APART)
def test_orthogonal_projection_equals_the_reference(apart):
    embeddings, labels = _batch()
    found = OrthogonalProjection(0.7, apart=apart)(embeddings, labels)
    expected = orthogonal_projection(embeddings.numpy(), labels.numpy(), gamma=0.7, neg=apart)
    # The reference keeps the published 1e-6 in its denominators.
    np.testing.assert_allclose(float(found), expected, rtol=2e-6)


@pytest.mark.parametrize("apart", APART)
def test_orthogonal_projection_has_the_gradient_of_its_value(apart):
    embeddings, labels = _batch(1)
    loss = OrthogonalProjection(0.7, apart=apart)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (embeddings.requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda x: loss(x, labels), (embeddings,))


def test_orthogonal_projection_does_not_see_the_order_of_items():
    embeddings, labels = _batch(2)
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    loss = OrthogonalProjection()
    torch.testing.assert_close(loss(embeddings[order], labels[order]), loss(embeddings, labels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_orthogonal_projection_computes_half_precision_in_float32(dtype):
    embeddings, labels = _batch(3)
    half = (100 * embeddings).to(dtype).requires_grad_()
    found = OrthogonalProjection()(half, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, OrthogonalProjection()(half.detach().float(), labels))
    (grad,) = torch.autograd.grad(found, half)
    assert bool(torch.isfinite(grad).all())


@pytest.mark.parametrize("rows", [0, 1])
def test_orthogonal_projection_of_a_batch_without_pairs_is_a_constant_on_the_graph(rows):
    embeddings = torch.randn(rows, 3).requires_grad_()
    found = OrthogonalProjection()(embeddings, torch.zeros(rows, dtype=torch.long))
    assert found.item() == 1.0
    (grad,) = torch.autograd.grad(found, embeddings)
    assert bool((grad == 0).all())


def test_orthogonal_projection_gives_a_zero_vector_no_gradient():
    embeddings, labels = _batch(4)
    embeddings[2] = 0.0
    (grad,) = torch.autograd.grad(OrthogonalProjection()(embeddings.requires_grad_(), labels), embeddings)
    assert bool(torch.isfinite(grad).all())
    assert bool((grad[2] == 0).all())
    assert grad.abs().max() > 1e-3


def test_multi_head_is_the_weighted_sum_of_its_heads():
    torch.manual_seed(0)
    outputs = {"kind": torch.randn(4, 3, requires_grad=True), "price": torch.randn(4, 1, requires_grad=True)}
    targets = {"kind": torch.tensor([0, 1, 2, 1]), "price": Targets.of_values(torch.randn(4))}
    heads = {"kind": CrossEntropy(), "price": SquaredError()}
    found = MultiHead(heads, weights={"price": 0.25})(outputs, targets)
    parts = [heads[name](outputs[name], targets[name]) for name in heads]
    torch.testing.assert_close(found, parts[0] + 0.25 * parts[1])
    grads = torch.autograd.grad(found, list(outputs.values()))
    alone = torch.autograd.grad(parts[1], outputs["price"])
    torch.testing.assert_close(grads[1], 0.25 * alone[0])
    assert alone[0].abs().max() > 1e-3


def test_multi_head_moves_and_saves_the_state_of_its_heads():
    state = MultiHead({"noisy": ALDRKLMemory(5)}).state_dict()
    assert set(state) == {"heads.noisy.lam"}
