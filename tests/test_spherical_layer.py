"""The factored output layer is the dense one: scores, gradients, steps, and what is read out of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from margins.engine import SphericalLayer
from margins.errors import MarginsError, OnceDifferentiableError
from reference.spherical_layer import Dense, Factored, Listed, forward

DECAY = 0.05


def layer_of(num_classes: int = 200, dim: int = 12, **options: Any) -> SphericalLayer:
    """A layer with V in float64, so that laws hold to rounding."""
    generator = torch.Generator().manual_seed(0)
    return SphericalLayer(dim, num_classes, generator=generator, **options).double()


def weights_of(layer: SphericalLayer) -> np.ndarray:
    return layer.dense().double().numpy().copy()


@dataclass
class Upstream:
    """Inputs of a step, and what comes back to its scores."""

    inputs: Tensor
    rows: Tensor
    columns: Tensor
    of_listed: Tensor
    of_sums: Tensor
    of_squares: Tensor

    @classmethod
    def draw(cls, seed: int, num_rows: int, *, num_classes: int = 200, dim: int = 12) -> Upstream:
        rng = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng, dtype=torch.float64)

        # Three a row, from few classes: many come twice, some twice in a row.
        columns = torch.randint(0, num_classes // 10, (3 * num_rows,), generator=rng)
        rows = torch.arange(num_rows).repeat_interleave(3)
        of_listed, of_sums = normal(3 * num_rows), 0.03 * normal(num_rows)
        return cls(normal(num_rows, dim), rows, columns, of_listed, of_sums, 0.1 * normal(num_rows))

    @property
    def listed(self) -> Listed:
        return list(zip(self.rows.tolist(), self.columns.tolist(), self.of_listed.tolist(), strict=True))

    def with_bias(self) -> np.ndarray:
        return np.concatenate([self.inputs.numpy(), np.ones((len(self.inputs), 1))], 1)

    def through(self, layer: SphericalLayer) -> Tensor:
        """Scores this, takes the upstream gradients back, and gives the gradient by the inputs."""
        inputs = self.inputs.clone().requires_grad_()
        source = layer.source(inputs)
        sums, squares = source.moments()
        listed = source.listed(self.rows, self.columns, in_order=False)
        loss = listed @ self.of_listed + sums @ self.of_sums + squares @ self.of_squares
        (gradient,) = torch.autograd.grad(loss, inputs)
        return gradient


def dense_step(weight: Tensor, upstream: Upstream, rate: float, decay: Tensor | float = 0.0) -> Tensor:
    """One step of gradient descent on all of W, by matrix products."""
    inputs = torch.from_numpy(upstream.with_bias())
    of_scores = 2 * upstream.of_squares[:, None] * (inputs @ weight.T) + upstream.of_sums[:, None]
    of_scores = of_scores.index_put((upstream.rows, upstream.columns), upstream.of_listed, accumulate=True)
    return weight - rate * (of_scores.T @ inputs + decay * weight)


def decay_of(layer: SphericalLayer) -> np.ndarray:
    decay = np.full(layer.width, DECAY)
    decay[layer.dim :] = 0.0
    return decay


def check_statistics(layer: SphericalLayer, *, tolerance: float = 1e-10) -> None:
    """What is known of W is that of the W that is held."""
    weight = torch.from_numpy(weights_of(layer))
    torch.testing.assert_close(layer.gram, weight.T @ weight, rtol=tolerance, atol=tolerance * 100)
    torch.testing.assert_close(layer.total, weight.sum(0), rtol=tolerance, atol=tolerance * 100)


@pytest.mark.parametrize("num_rows", [5, 40], ids=["fewer rows than width", "more rows than width"])
def test_two_hundred_steps_equal_those_of_the_dense_layer(num_rows: int):
    layer = layer_of(balance_every=20)
    weight = layer.dense().clone()
    start, decay = weight.clone(), torch.from_numpy(decay_of(layer))
    for step in range(200):
        upstream, rate = Upstream.draw(step, num_rows), 0.01 * (1 + step % 3)
        upstream.through(layer)
        layer.step(rate, weight_decay=DECAY)
        weight = dense_step(weight, upstream, rate, decay)
        if step % 20 == 0:
            torch.testing.assert_close(layer.dense(), weight, rtol=1e-10, atol=1e-11)
            check_statistics(layer)
    torch.testing.assert_close(layer.dense(), weight, rtol=1e-9, atol=1e-10)
    check_statistics(layer)
    assert layer.num_repaired + layer.num_taken_in > 0, "vacuous: U was never repaired"
    assert (weight - start).abs().max() > 0.5, "vacuous: nothing was learned"


def test_every_one_of_two_hundred_plain_steps_equals_the_dense_layer_to_rounding():
    layer = layer_of(bias=False, balance_every=10)
    weight = layer.dense().clone()
    for step in range(200):
        upstream = Upstream.draw(step, 5)
        inputs = upstream.inputs.clone().requires_grad_()
        source, scores = layer.source(inputs), inputs @ weight.T
        found = (source.listed(upstream.rows, upstream.columns, in_order=False), *source.moments())
        expected = (scores[upstream.rows, upstream.columns], scores.sum(1), scores.square().sum(1))
        upstreams = (upstream.of_listed, upstream.of_sums, upstream.of_squares)
        gradients = [
            torch.autograd.grad(sum(p @ u for p, u in zip(parts, upstreams, strict=True)), inputs)[0]
            for parts in (found, expected)
        ]
        for ours, dense in (*zip(found, expected, strict=True), gradients):
            torch.testing.assert_close(ours, dense, rtol=1e-11, atol=1e-11)
        layer.step(0.01)
        of_scores = 2 * upstream.of_squares[:, None] * scores + upstream.of_sums[:, None]
        of_scores = of_scores.detach().index_put(
            (upstream.rows, upstream.columns), upstream.of_listed, accumulate=True
        )
        weight = weight - 0.01 * of_scores.T @ upstream.inputs
        torch.testing.assert_close(layer.dense(), weight, rtol=0, atol=2e-14)
        torch.testing.assert_close(layer.gram, weight.T @ weight, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(layer.total, weight.sum(0), rtol=1e-11, atol=1e-12)


def test_scores_gradients_and_steps_equal_those_of_the_slow_references():
    layer = layer_of(30, 4)
    dense, entry = Dense(weights_of(layer)), Factored(weights_of(layer))
    for step in range(6):
        upstream = Upstream.draw(step, 2 + 3 * (step % 3), num_classes=30, dim=4)
        inputs, listed = upstream.with_bias(), upstream.listed
        source = layer.source(upstream.inputs)
        found = (source.listed(upstream.rows, upstream.columns, in_order=False), *source.moments())
        for ours, slow, old in zip(
            found, forward(dense.weight, inputs, listed), entry.forward(inputs, listed), strict=True
        ):
            np.testing.assert_allclose(ours.detach(), slow, rtol=1e-10)
            np.testing.assert_allclose(old, slow, rtol=1e-10)
        how = (inputs, listed, upstream.of_sums.numpy(), upstream.of_squares.numpy())
        gradient = upstream.through(layer)
        # The entry's layer decays all columns alike; ours spares the bias, so that here nothing decays.
        for slow in (dense.step(*how, rate=0.05), entry.step(*how, rate=0.05)):
            np.testing.assert_allclose(gradient, slow[:, :4], rtol=1e-9, atol=1e-12)
        layer.step(0.05)
        np.testing.assert_allclose(weights_of(layer), dense.weight, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(entry.weight, dense.weight, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(entry.u @ entry.u_inverse, np.eye(5), atol=1e-12)


def test_a_step_decays_weights_but_not_the_bias():
    layer = layer_of(30, 4)
    dense = Dense(weights_of(layer))
    for step in range(2):  # biases start at 0: the first step cannot show it
        upstream = Upstream.draw(step, 5, num_classes=30, dim=4)
        upstream.through(layer)
        layer.step(0.1, weight_decay=DECAY)
        how = (upstream.with_bias(), upstream.listed, upstream.of_sums.numpy(), upstream.of_squares.numpy())
        dense.step(*how, rate=0.1, decay=decay_of(layer))
    np.testing.assert_allclose(weights_of(layer), dense.weight, rtol=1e-9, atol=1e-12)


def test_sums_or_listed_scores_alone_are_a_whole_gradient():
    for unused in (("of_sums", "of_squares"), ("of_sums",), ("of_listed",)):
        layer = layer_of(30, 4, bias=False)
        dense = Dense(weights_of(layer))
        upstream = Upstream.draw(1, 5, num_classes=30, dim=4)
        for name in unused:
            setattr(upstream, name, torch.zeros_like(getattr(upstream, name)))
        source = layer.source(upstream.inputs.requires_grad_())
        parts = [
            z @ g for z, g in zip(source.moments(), (upstream.of_sums, upstream.of_squares), strict=True)
        ]
        if "of_listed" not in unused:
            listed = source.listed(upstream.rows, upstream.columns, in_order=False)
            parts = [*(parts if len(unused) == 1 else []), listed @ upstream.of_listed]
        sum(parts).backward()
        layer.step(0.1)
        inputs = upstream.inputs.detach().numpy()
        dense.step(inputs, upstream.listed, upstream.of_sums.numpy(), upstream.of_squares.numpy(), rate=0.1)
        np.testing.assert_allclose(weights_of(layer), dense.weight, rtol=1e-9, atol=1e-12)


def test_backward_passes_add_up_until_the_step():
    one, two = layer_of(), layer_of()
    parts = [Upstream.draw(seed, 6) for seed in (1, 2)]
    joined = Upstream(
        *(torch.cat([getattr(p, name) for p in parts]) for name in ("inputs",)),
        torch.cat([parts[0].rows, parts[1].rows + 6]),
        *(torch.cat([getattr(p, name) for p in parts])
          for name in ("columns", "of_listed", "of_sums", "of_squares")),
    )  # fmt: skip
    joined.through(one)
    # Both forward before the first goes back.
    sources = [two.source(p.inputs.requires_grad_()) for p in parts]
    values = [
        s.listed(p.rows, p.columns, in_order=False) @ p.of_listed
        + sum(z @ g for z, g in zip(s.moments(), (p.of_sums, p.of_squares), strict=True))
        for s, p in zip(sources, parts, strict=True)
    ]
    for value in values:
        value.backward()
    for layer in (one, two):
        layer.step(0.05)
    torch.testing.assert_close(two.dense(), one.dense(), rtol=1e-12, atol=1e-12)


def test_a_cleared_gradient_changes_nothing_and_a_scaled_one_as_much_less():
    layer, half, frozen = layer_of(), layer_of(), layer_of()
    before = layer.dense()
    upstream = Upstream.draw(0, 6)
    upstream.through(layer)
    layer.zero_gradient()
    layer.step(0.1)
    assert torch.equal(layer.dense(), before)
    upstream.through(layer)
    layer.step(0.1)
    upstream.through(half)
    half.scale_gradient(0.5)
    half.step(0.2)
    torch.testing.assert_close(half.dense(), layer.dense(), rtol=1e-12, atol=1e-12)
    frozen.requires_grad_(False)
    assert upstream.through(frozen).abs().max() > 0.1
    frozen.step(0.1)
    assert torch.equal(frozen.dense(), before)


def test_the_norm_of_the_gradient_is_that_of_the_dense_one():
    layer = layer_of()
    for step in range(3):
        weight = layer.dense()
        upstream = Upstream.draw(step, 9)
        upstream.through(layer)
        expected = (dense_step(weight, upstream, 1.0) - weight).norm()
        torch.testing.assert_close(layer.gradient_norm(), expected, rtol=1e-9, atol=0)
        layer.step(0.05)


@pytest.mark.parametrize("size", [0.0, 0.01, 100.0])
def test_a_repair_leaves_the_weights_and_moves_singular_values_into_range(size: float):
    layer = layer_of(balance_every=1)
    left, _, right = torch.linalg.svd(torch.randn(13, 13, dtype=torch.float64))
    values = torch.ones(13, dtype=torch.float64)
    values[[2, 5, 7]] = size
    layer.factor = left @ torch.diag(values) @ right
    expected = layer.dense()
    gram = expected.T @ expected
    layer.gram, layer.total = gram, expected.sum(0)
    Upstream.draw(0, 4).through(layer)
    layer.step(1e-14)  # too small a step to be seen
    assert (layer.num_repaired, layer.num_taken_in) == (3, 0)
    torch.testing.assert_close(layer.dense(), expected, rtol=1e-9, atol=1e-10)
    found = torch.linalg.svdvals(layer.factor)
    torch.testing.assert_close(found, torch.ones(13, dtype=torch.float64))


def test_too_many_far_values_are_taken_in_by_v():
    layer = layer_of(balance_every=1)
    layer.factor = torch.diag(torch.logspace(-3, 3, 13, dtype=torch.float64))
    layer.shift = torch.ones(13, dtype=torch.float64)
    expected = layer.dense()
    layer.gram, layer.total = expected.T @ expected, expected.sum(0)
    Upstream.draw(0, 4).through(layer)
    layer.step(1e-14)
    assert (layer.num_repaired, layer.num_taken_in) == (0, 1)
    torch.testing.assert_close(layer.dense(), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(layer.factor, torch.eye(13, dtype=torch.float64))
    check_statistics(layer)


def test_a_rate_that_turns_weights_to_nothing_is_exact_too():
    """1 - rate * curvature is singular: the factor would be, without a repair between its change and V's."""
    layer = layer_of(50, 3, bias=False, balance_every=1000)
    inputs = torch.eye(3, dtype=torch.float64)[:1].requires_grad_()
    source = layer.source(inputs)
    (
        source.moments()[1].sum() + source.listed(torch.tensor([0]), torch.tensor([7]), in_order=True).sum()
    ).backward()
    layer.step(0.5)
    weight = layer.dense()
    expected = torch.zeros(50, dtype=torch.float64)
    expected[7] = -0.5
    torch.testing.assert_close(weight[:, 0], expected, rtol=0, atol=1e-12)
    check_statistics(layer)
    assert layer.num_repaired == 1


def test_float32_weights_stay_near_the_dense_twin_and_their_statistics_do_not_drift():
    layer = SphericalLayer(12, 200, balance_every=20, generator=torch.Generator().manual_seed(0))
    assert layer.table.dtype == torch.float32
    weight = layer.dense().double()
    for step in range(300):
        upstream = Upstream.draw(step, 20)
        upstream.through(layer)
        layer.step(0.02)
        weight = dense_step(weight, upstream, 0.02)
    drift = (layer.dense().double() - weight).norm() / weight.norm()
    assert 0 < drift < 2e-6
    assert layer.num_repaired >= 3
    exact = layer.table.double() @ layer.factor + layer.shift
    torch.testing.assert_close(layer.gram, exact.T @ exact, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("k", [1, 7, 200])
def test_the_best_classes_are_those_of_the_dense_layer(k: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("margins.engine.spherical.factored_weights._BLOCK", 64)
    layer = learned()
    x = torch.randn(5, 12, dtype=torch.float64)
    values, classes = layer.top(x, k)
    expected = layer.eval()(x).topk(k)
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(classes, expected.indices)


def learned(**options: Any) -> SphericalLayer:
    layer = layer_of(**options)
    for step in range(5):
        Upstream.draw(step, 9).through(layer)
        layer.step(0.05)
    return layer


def test_a_plain_layer_and_back():
    layer = learned()
    linear = layer.to_linear()
    x = torch.randn(5, 12, dtype=torch.float64)
    torch.testing.assert_close(linear(x), layer.scores(x))
    assert linear.weight.requires_grad
    again = layer_of()
    again.load_linear(linear.weight, linear.bias)
    torch.testing.assert_close(again.dense(), layer.dense())
    check_statistics(again)
    bare = learned_without_bias()
    assert bare.bias() is None
    assert bare.to_linear().bias is None
    torch.testing.assert_close(bare.to_linear()(x), bare.scores(x))


def learned_without_bias() -> SphericalLayer:
    layer = layer_of(bias=False)
    source = layer.source(torch.randn(4, 12, dtype=torch.float64))
    source.moments()[1].sum().backward()
    layer.step(0.01)
    return layer


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        ((200, 11), (200,), r"weight: expected \[C, dim\] = \[200, 12\]"),
        ((200, 12), None, r"bias: expected \[C\] = \[200\], got none"),
        ((200, 12), (199,), "bias: expected"),
    ],
)
def test_a_plain_layer_of_another_shape_is_refused(weight: Any, bias: Any, message: str):
    with pytest.raises(MarginsError, match=message):
        layer_of().load_linear(torch.zeros(weight), None if bias is None else torch.zeros(bias))


def test_state_survives_save_and_load():
    layer = learned(balance_every=7)
    other = SphericalLayer(12, 200, balance_every=7).double()
    other.load_state_dict(layer.state_dict())
    for twin in (layer, other):
        for step in range(10, 20):
            Upstream.draw(step, 9).through(twin)
            twin.step(0.05)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert int(layer.counts[3]) == 15


def test_a_state_of_other_sizes_is_refused_by_name():
    for other in (layer_of(200, 11), layer_of(199)):
        with pytest.raises(MarginsError, match="build the head with the sizes of the saved one"):
            layer_of().load_state_dict(other.state_dict())


def test_a_copy_is_a_layer_of_its_own():
    layer = learned()
    twin = copy.deepcopy(layer)
    Upstream.draw(0, 4).through(twin)
    twin.step(0.1)
    assert not torch.equal(twin.dense(), layer.dense())
    assert layer.gradient.is_empty


def test_a_stale_backward_pass_is_refused():
    layer = layer_of()
    late = layer.source(torch.randn(3, 12, dtype=torch.float64)).moments()[0].sum()
    Upstream.draw(0, 4).through(layer)
    layer.step(0.1)
    with pytest.raises(MarginsError, match="before the head's next step or load"):
        late.backward()


def test_a_second_derivative_is_refused():
    inputs = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    source = layer_of().source(inputs)
    for value in (source.moments()[1], source.listed(torch.arange(3), torch.arange(3), in_order=True)):
        with pytest.raises(OnceDifferentiableError):
            torch.autograd.grad(value.sum(), inputs, create_graph=True)


def test_all_scores_are_for_prediction_alone():
    layer, x = layer_of(), torch.randn(3, 12, dtype=torch.float64)
    with pytest.raises(MarginsError, match="which train no weights here"):
        layer(x)
    with torch.no_grad():
        expected = layer(x)
    torch.testing.assert_close(layer.eval()(x.requires_grad_()), expected)


def test_gradients_that_are_not_finite_are_refused_before_they_do_harm():
    layer = layer_of()
    before = layer.state_dict()["factor"].clone()
    (layer.source(torch.randn(3, 12, dtype=torch.float64)).moments()[1].sum() * torch.inf).backward()
    with pytest.raises(MarginsError, match="lower the learning rate"):
        layer.step(0.1)
    assert torch.equal(layer.factor, before)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.zeros(3, 11), r"\[B, dim\] floats with dim = 12, got \[3, 11\]"),
        (torch.zeros(3, 12, dtype=torch.long), "int64"),
        (torch.full((3, 12), torch.nan), "finite numbers"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(embeddings: Tensor, message: str):
    with pytest.raises(MarginsError, match=message):
        layer_of().source(embeddings)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int]):
    with pytest.raises(MarginsError, match="at least 1"):
        SphericalLayer(*sizes)
    with pytest.raises(MarginsError, match="balance_every"):
        SphericalLayer(3, 3, balance_every=0)


@pytest.mark.parametrize("k", [0, 201])
def test_more_classes_than_there_are_cannot_be_the_best(k: int):
    with pytest.raises(MarginsError, match=r"\[1, 200\]"):
        layer_of().top(torch.zeros(1, 12), k)
