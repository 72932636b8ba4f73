"""Laws of what is measured of data before training: dimension, sharpness, scaling, fragility."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from margins.diagnose import (
    fragility,
    intrinsic_dimension,
    label_sharpness,
    manifold_classes,
    nearest_enemy_sharpness,
    power_law,
    scaling_law,
)
from margins.errors import MarginsError

ROWS = 5000


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _cube(dimension: int) -> Tensor:
    return torch.rand(ROWS, dimension, generator=_draws(), dtype=torch.float64)


def _sphere(dimension: int) -> Tensor:
    points = torch.randn(ROWS, dimension + 1, generator=_draws(), dtype=torch.float64)
    return points / points.norm(dim=1, keepdim=True)


def _swiss_roll(dimension: int) -> Tensor:
    assert dimension == 2
    turn, height = 1.5 * math.pi * (1 + 2 * _cube(2)[:, 0]), 21 * _cube(2)[:, 1]
    return torch.stack([turn * turn.cos(), height, turn * turn.sin()], 1)


def _found(rows: Tensor, method: str, **options) -> float:
    return intrinsic_dimension(rows, method=method, generator=_draws(1), **options).value


@pytest.mark.parametrize("method", ["mle", "twonn"])
@pytest.mark.parametrize(
    ("shape", "dimension"), [(_cube, 2), (_cube, 5), (_sphere, 2), (_sphere, 5), (_swiss_roll, 2)]
)
def test_a_known_dimension_is_found(shape, dimension, method):
    found = intrinsic_dimension(shape(dimension), method=method, num_anchors=ROWS, generator=_draws(1))
    assert found.value == pytest.approx(dimension, rel=0.1)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.1 * dimension
    assert (found.num_rows, found.num_anchors, found.num_copies) == (ROWS, ROWS, 0)


@pytest.mark.parametrize(
    ("shape", "dimension"), [(_cube, 2), (_cube, 5), (_sphere, 2), (_sphere, 5), (_swiss_roll, 2)]
)
def test_a_thousand_anchors_are_enough_for_a_known_dimension(shape, dimension):
    found = intrinsic_dimension(shape(dimension), method="mle", generator=_draws(1))
    assert found.num_anchors == 1000
    assert found.value == pytest.approx(dimension, rel=0.1)


def test_nearest_neighbours_say_too_little_in_many_dimensions():
    # A sphere has no edge; the edge of a cube of ten dimensions costs even the two nearest neighbours more.
    assert _found(_sphere(10), "twonn", num_anchors=ROWS) == pytest.approx(10, rel=0.1)
    for shape in (_sphere, _cube):
        assert 7.5 < _found(shape(10), "mle") < _found(shape(10), "twonn", num_anchors=ROWS) < 10
    assert _found(_cube(10), "twonn", num_anchors=ROWS) < 9


def test_an_estimate_equals_its_definition_in_loops():
    rows = torch.randn(60, 3, generator=_draws(2), dtype=torch.float64)
    rows = torch.cat([rows, rows[:5]])
    near = np.array(
        [sorted(math.dist(a, b) for b in rows[:60].tolist() if a != b) for a in rows[:60].tolist()]
    )
    k = 7
    inverse = [sum(math.log(row[k - 1] / t) for t in row[: k - 1]) / (k - 1) for row in near]
    found = intrinsic_dimension(rows, num_neighbours=k, generator=_draws())
    assert found.value == pytest.approx(1 / np.mean(inverse), rel=1e-12)
    assert (found.num_rows, found.num_copies) == (60, 5)
    ratios = [math.log(row[1] / row[0]) for row in near]
    assert _found(rows, "twonn") == pytest.approx((60 - 1) / sum(ratios), rel=1e-12)


def test_dimension_sees_neither_scale_nor_rotation_nor_more_columns():
    rows = _cube(3)[:500]
    turn = torch.linalg.qr(torch.randn(9, 9, generator=_draws(), dtype=torch.float64)).Q[:3]
    for method in ("mle", "twonn"):
        assert _found(1e4 * rows @ turn + 3, method) == pytest.approx(_found(rows, method), rel=1e-6)
    assert _found((rows @ turn).reshape(500, 3, 3), "mle") == pytest.approx(_found(rows, "mle"), rel=1e-6)


def test_many_dimensions_and_many_copies_are_told():
    found = intrinsic_dimension(torch.randn(300, 100, generator=_draws()), generator=_draws())
    assert "too low" in found.warnings[0]
    copied = _cube(2)[:100].repeat(2, 1)
    assert "100 of 200 rows equal" in intrinsic_dimension(copied, generator=_draws()).warnings[0]
    assert intrinsic_dimension(_cube(2)[:100], generator=_draws()).warnings == ()


@pytest.mark.parametrize("distance", [0.01, 1.0, 30.0])
def test_two_rows_of_two_classes_are_as_sharp_as_they_are_close(distance):
    rows = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    rows[1, 1] += distance
    found = label_sharpness(rows, torch.tensor([0, 1]), generator=_draws())
    assert found.largest == pytest.approx(1 / distance)
    assert found.high == found.largest
    assert nearest_enemy_sharpness(rows, torch.tensor([0, 1])) == pytest.approx(1 / distance)


def test_sharpness_falls_as_inputs_are_stretched():
    rows, labels = _cube(3)[:300], torch.arange(300) % 3
    first = label_sharpness(rows, labels, generator=_draws())
    second = label_sharpness(8 * rows, labels, generator=_draws())
    assert second.largest == pytest.approx(first.largest / 8)
    assert second.high == pytest.approx(first.high / 8)
    assert nearest_enemy_sharpness(8 * rows, labels) == pytest.approx(
        nearest_enemy_sharpness(rows, labels) / 8
    )


def test_the_nearest_enemy_is_the_limit_of_all_pairs():
    rows, labels = _cube(2)[:400], torch.randint(4, (400,), generator=_draws())
    exact = nearest_enemy_sharpness(rows, labels)
    pairs = [
        1 / math.dist(rows[i].tolist(), rows[j].tolist())
        for i in range(400) for j in range(i) if labels[i] != labels[j]
    ]  # fmt: skip
    assert exact == pytest.approx(max(pairs))
    every = label_sharpness(rows, labels, generator=_draws())
    assert every.largest == pytest.approx(exact)
    assert every.high == pytest.approx(sorted(pairs)[math.ceil(0.999 * len(pairs)) - 1])
    some = label_sharpness(rows, labels, num_items=50, generator=_draws())
    assert some.largest < exact, "vacuous: the sample holds the nearest pair"
    assert some.num_items == 50


def test_equal_inputs_of_different_classes_are_left_out_and_told():
    rows = torch.tensor([[0.0], [0.0], [2.0]])
    found = label_sharpness(rows, torch.tensor([0, 1, 1]), generator=_draws())
    assert (found.largest, found.num_contradictions) == (0.5, 1)
    assert "1 pairs have equal inputs" in found.warnings[0]
    assert nearest_enemy_sharpness(rows, torch.tensor([0, 1, 1])) == 0.5


def test_losses_that_follow_the_law_give_its_constants():
    sizes, dimension, sharpness, constant = np.array([50, 100, 400, 3200]), 4.0, 7.0, 0.3
    losses = constant * sharpness * sizes ** (-1 / dimension)
    found = scaling_law(sizes, losses, dimension=dimension, sharpness=sharpness)
    assert found.fitted.slope == pytest.approx(-1 / dimension)
    assert found.predicted_slope == -1 / dimension
    assert found.offset == pytest.approx(math.log(constant))
    assert found.fitted.at(10_000) == pytest.approx(constant * sharpness * 10_000 ** (-1 / dimension))
    assert found.warnings == ()


def test_a_curve_that_bends_or_does_not_fall_is_told():
    bends = scaling_law([100, 1000, 10_000], [1.0, 0.1, 0.09], dimension=2.0)
    assert any("bends" in text for text in bends.warnings)
    flat = scaling_law([100, 1000, 10_000], [1.0, 1.1, 1.0], dimension=2.0)
    assert any("does not clearly fall" in text for text in flat.warnings)


def test_the_interval_of_a_slope_covers_it():
    rng = np.random.default_rng(0)
    sizes = np.array([64, 128, 256, 512])
    several = [power_law(sizes, sizes**-0.5 * np.exp(0.1 * rng.normal(size=(6, 4)))) for _ in range(200)]
    single = [power_law(sizes, sizes**-0.5 * np.exp(0.1 * rng.normal(size=4))) for _ in range(200)]
    for found in (several, single):
        covered = np.mean([law.low <= -0.5 <= law.high for law in found])
        assert 0.9 < covered < 0.99
    assert np.mean([law.high - law.low for law in several]) < np.mean([law.high - law.low for law in single])


def test_a_linear_model_loses_the_rows_within_reach_of_its_boundary():
    rows = torch.linspace(-0.975, 0.975, 40, dtype=torch.float64)[:, None].repeat(1, 2)
    labels = (rows[:, 0] > 0).long()

    def model(x: Tensor) -> Tensor:
        score = 3 * x[:, 0] + x[:, 1]
        return torch.stack([-score, score - 1e-9], 1)

    radii = [0.02, 0.11, 0.5]
    found = fragility(model, rows, labels, radii=radii, box=None)
    assert found.accuracy == 1.0
    # Each entry moves by the radius towards the boundary x0 = x1 = 0.
    expected = [float((rows[:, 0].abs() < radius).double().mean()) for radius in radii]
    assert found.drops == pytest.approx(expected)
    assert expected == [0.0, 0.1, 0.5]
    clipped = fragility(model, rows.clamp(0.3), torch.ones(40).long(), radii=[5.0], box=(0.3, 1.0))
    assert clipped.drops == (0.0,)


def test_fragility_is_the_fast_gradient_sign_method_in_any_blocks():
    draws = _draws(3)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    rows = torch.rand(1100, 6, generator=draws)
    labels = network(rows).argmax(1)
    x = rows.clone().requires_grad_()
    torch.nn.functional.cross_entropy(network(x), labels).backward()
    moved = (rows + 0.1 * x.grad.sign()).clamp(0, 1)
    right = [(network(v).argmax(1) == labels).double().mean().item() for v in (rows, moved)]
    found = fragility(network, rows, labels, radii=[0.1])
    assert found.accuracy == pytest.approx(right[0])
    assert found.drops[0] == pytest.approx(right[0] - right[1])
    assert found.drops[0] > 0.05, "vacuous: nothing is lost"


def test_manifold_classes_lie_on_a_surface_of_their_dimension():
    rows, values = manifold_classes(3000, dimension=3, generator=_draws())
    assert _found(rows, "mle") == pytest.approx(3, rel=0.1)
    assert 0.3 < float(values.std()) < 2
    again = manifold_classes(10, dimension=3, generator=_draws())[0]
    assert again.shape == (10, 64)
    assert torch.linalg.matrix_rank(torch.cat([rows[:20], again]), rtol=1e-4) == 3


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: intrinsic_dimension(torch.rand(10, 2), generator=_draws()), "22 different rows"),
        (lambda: intrinsic_dimension(torch.ones(50, 2), generator=_draws()), "different rows"),
        (lambda: intrinsic_dimension(torch.rand(50), generator=_draws()), "inputs"),
        (lambda: intrinsic_dimension(torch.rand(50, 2), method="pca", generator=_draws()), "method"),
        (lambda: intrinsic_dimension(torch.eye(30), generator=_draws()), "neighbours all as far"),
        (lambda: label_sharpness(torch.rand(3, 2), torch.zeros(3).long(), generator=_draws()), "two classes"),
        (lambda: label_sharpness(torch.rand(3, 2), torch.tensor([0, 1]), generator=_draws()), "labels"),
        (lambda: nearest_enemy_sharpness(torch.ones(2, 2), torch.tensor([0, 1])), "equal ones"),
        (lambda: scaling_law([1, 2], [1.0, 0.5], dimension=2.0), "at least 3"),
        (lambda: scaling_law([1, 2, 3], [1.0, 0.5, 0.0], dimension=2.0), "above 0"),
        (lambda: scaling_law([1, 2, 3], [1.0, 0.5, 0.1], dimension=0.0), "dimension"),
        (lambda: power_law([1, 2, 3], [[1.0, 2.0]]), "errors"),
        (lambda: power_law([2, 2, 2], [1.0, 2.0, 3.0]), "sizes"),
        (lambda: fragility(lambda x: x, torch.rand(3, 2) + 1, torch.tensor([0, 1, 0])), "box"),
        (lambda: fragility(lambda x: x, torch.rand(3, 2), torch.tensor([0, 1, 0]), radii=[0.0]), "radii"),
        (lambda: manifold_classes(5, dimension=65, generator=_draws()), "dimension"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_by_name(call, named):
    with pytest.raises(MarginsError, match=named):
        call()
