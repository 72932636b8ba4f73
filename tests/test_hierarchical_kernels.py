"""Laws of convolutional kernels and of the exponents of their learning curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from margins.diagnose import (
    hierarchical_kernel,
    kernel_of,
    learning_exponent,
    learning_exponents,
    local_target,
    rbf_kernel,
)
from margins.errors import MarginsError


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _rows(num: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(num, dim, generator=_draws(seed), dtype=torch.float64)


def _slow(x: list[float], z: list[float], patches: list[int], kind: str) -> float:
    """One entry of the Gram matrix, unit by unit, for patches of any norms."""

    def dot(a, b):
        return sum(p * q for p, q in zip(a, b, strict=True))

    size = patches[0]
    units = []
    for start in range(0, len(x), size):
        a, b = x[start : start + size], z[start : start + size]
        units.append((dot(a, b), dot(a, b), dot(a, a), dot(b, b)))
    for level in range(len(patches)):
        if level > 0:
            groups = [units[i : i + patches[level]] for i in range(0, len(units), patches[level])]
            units = [tuple(sum(u[k] for u in g) / len(g) for k in range(4)) for g in groups]
        after = []
        for kernel, tangent, own, other in units:
            norm = math.sqrt(own * other)
            t = max(-1.0, min(1.0, kernel / norm))
            new = norm * (t * (math.pi - math.acos(t)) + math.sqrt(1 - t * t)) / math.pi
            after.append((new, new + tangent * (math.pi - math.acos(t)) / math.pi, own, other))
        units = after
    return sum(u[0 if kind == "rfk" else 1] for u in units) / len(units)


@pytest.mark.parametrize("kind", ["rfk", "ntk"])
@pytest.mark.parametrize("patches", [[8], [2], [4, 2], [2, 2, 2], [1, 4], [2, 2]])
def test_a_gram_matrix_equals_the_recursion_in_loops(patches, kind):
    x, z = _rows(4, 8), _rows(3, 8, seed=1)
    found = hierarchical_kernel(x, z, patches=patches, kind=kind)
    expected = [[_slow(a, b, patches, kind) for b in z.tolist()] for a in x.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_one_patch_is_the_kernel_of_one_wide_layer():
    x = torch.nn.functional.normalize(_rows(6, 5), dim=1)
    t = (x @ x.T).clamp(-1, 1)
    zeroth = (math.pi - t.arccos()) / math.pi
    first = (t * (math.pi - t.arccos()) + (1 - t.square()).sqrt()) / math.pi
    torch.testing.assert_close(hierarchical_kernel(x, x, patches=[5], kind="rfk"), first)
    torch.testing.assert_close(hierarchical_kernel(x, x, patches=[5], kind="ntk"), first + t * zeroth)
    torch.testing.assert_close(
        hierarchical_kernel(x, x, patches=[5], kind="rfk").diagonal(), torch.ones(6).double()
    )


def test_one_level_is_the_mean_over_patches_of_kernels_of_one_patch():
    x, z = _rows(5, 6), _rows(4, 6, seed=1)
    for kind in ("rfk", "ntk"):
        parts = [
            hierarchical_kernel(x[:, i : i + 2], z[:, i : i + 2], patches=[2], kind=kind) for i in (0, 2, 4)
        ]
        torch.testing.assert_close(
            hierarchical_kernel(x, z, patches=[2], kind=kind), torch.stack(parts).mean(0)
        )


def test_norms_of_patches_of_one_need_no_division():
    x, _ = local_target(5, 4, patch=2, generator=_draws())
    level = [
        hierarchical_kernel(x[:, i : i + 2], x[:, i : i + 2], patches=[2], kind="rfk") for i in range(0, 8, 2)
    ]
    joined = []
    for pair in ((0, 1), (2, 3)):
        t = torch.stack([level[i] for i in pair]).mean(0).clamp(-1, 1)
        joined.append((t * (math.pi - t.arccos()) + (1 - t.square()).sqrt()) / math.pi)
    found = hierarchical_kernel(x, x, patches=[2, 2], kind="rfk")
    torch.testing.assert_close(found, torch.stack(joined).mean(0))


def _features(x: Tensor, patches: list[int], width: int, seed: int) -> Tensor:
    """Activations [N, units, width] of a random convolutional network whose last layer is not yet trained."""
    draws = _draws(seed)
    units = x.unflatten(1, (-1, patches[0]))
    for level, size in enumerate(patches):
        if level > 0:
            units = units.unflatten(1, (-1, size)).flatten(2)
        weights = torch.randn(units.shape[2], width, generator=draws, dtype=x.dtype)
        units = math.sqrt(2 / width) * (units @ weights).relu()
        if level + 1 < len(patches):
            units = units / math.sqrt(patches[level + 1])
    return units


@pytest.mark.parametrize("patches", [[8], [4, 2]])
def test_a_wide_random_network_has_this_gram_matrix(patches):
    x = torch.nn.functional.normalize(_rows(6, 8), dim=1)
    found = 0.0
    for seed in range(120):  # together as wide as 60,000 units
        units = _features(x, patches, 500, seed)
        found = found + torch.einsum("nuw,muw->nm", units, units) / units.shape[1] / 120
    expected = hierarchical_kernel(x, x, patches=patches, kind="rfk")
    relative = float((found - expected).norm() / expected.norm())
    assert 1e-5 < relative < 0.02


@pytest.mark.parametrize("patches", [[6], [2, 3], [3, 2]])
def test_a_wide_network_has_this_tangent_kernel(patches):
    # f = mean over units of a . relu features; all weights drawn from a standard normal and trained.
    x, width = _rows(4, 6), 1500
    draws, layers, size = _draws(1), [], patches[0]
    for level in range(len(patches)):
        size = patches[0] if level == 0 else patches[level] * width
        layers.append(torch.randn(size, width, generator=draws, dtype=x.dtype, requires_grad=True))
    last = torch.randn(width, generator=draws, dtype=x.dtype, requires_grad=True)

    def network(row: Tensor) -> Tensor:
        units = row.unflatten(0, (-1, patches[0]))
        for level, weight in enumerate(layers):
            if level > 0:
                units = units.unflatten(0, (-1, patches[level])).flatten(1) / math.sqrt(patches[level])
            units = math.sqrt(2 / width) * (units @ weight).relu()
        # Units do not share their last weights in the mean of kernels: they add up in squares.
        return units @ last

    gradients = []
    for row in x:
        out = network(row)
        gradients.append(
            torch.stack([
                torch.cat([g.flatten() for g in torch.autograd.grad(o, [*layers, last], retain_graph=True)])
                for o in out
            ])
        )  # fmt: skip
    g = torch.stack(gradients)
    found = torch.einsum("nup,mup->nm", g, g) / g.shape[1]
    expected = hierarchical_kernel(x, x, patches=patches, kind="ntk")
    assert float((found - expected).norm() / expected.norm()) < 0.06


@pytest.mark.parametrize("kind", ["rfk", "ntk"])
@pytest.mark.parametrize("patches", [[16], [4], [4, 2, 2], [2, 2, 2, 2]])
def test_gram_matrices_are_positive(patches, kind):
    x, _ = local_target(60, 8, patch=2, generator=_draws())
    gram = hierarchical_kernel(x, x, patches=patches, kind=kind)
    torch.testing.assert_close(gram, gram.T)
    assert float(torch.linalg.eigvalsh(gram).min()) > -1e-10


def test_rows_of_zeros_have_a_kernel_of_zero():
    gram = hierarchical_kernel(torch.zeros(2, 4), torch.ones(2, 4), patches=[2, 2])
    assert bool((gram == 0).all())


def test_the_error_is_that_of_kernel_regression():
    x, y = _rows(30, 2), _rows(30, 3, seed=1)
    kernel = rbf_kernel(0.8)
    found = learning_exponent(
        kernel, x, y, sizes=[5, 10, 20], num_test=10, num_repeats=2, ridge=0.1, generator=_draws(2)
    )
    draws = _draws(2)
    for repeat in range(2):
        order = torch.randperm(30, generator=draws)
        test, rest = order[:10], order[10:]
        for place, size in enumerate((5, 10, 20)):
            a = x[rest[:size]]
            weights = torch.linalg.inv(kernel(a, a) + 0.1 * torch.eye(size)) @ y[rest[:size]]
            error = (kernel(x[test], a) @ weights - y[test]).square().mean()
            assert float(found.errors[repeat, place]) == pytest.approx(float(error))
    slopes = [np.polyfit(np.log([5, 10, 20]), np.log(errors), 1)[0] for errors in found.errors.numpy()]
    assert found.exponent == pytest.approx(-np.mean(slopes))
    assert found.low < found.exponent < found.high


def test_a_curve_of_a_known_exponent_gives_it():
    # Regression with min(x, z) is linear interpolation, whose squared error on Brownian paths, which that
    # kernel draws, falls as one over the number of points.
    x = torch.rand(4000, 1, generator=_draws(3), dtype=torch.float64)
    order = x[:, 0].argsort()
    steps = torch.diff(x[order, 0], prepend=torch.zeros(1).double()).sqrt()
    y = torch.empty(4000, 200).double()
    y[order] = (steps[:, None] * torch.randn(4000, 200, generator=_draws(4), dtype=torch.float64)).cumsum(0)
    found = learning_exponent(
        lambda a, b: torch.minimum(a, b.T), x, y, sizes=[50, 100, 200, 400], num_repeats=3, generator=_draws()
    )
    assert found.exponent == pytest.approx(1.0, abs=0.05)
    assert found.warnings == ()


def _exponents(patch: int, seed: int = 0):
    x, y = local_target(900, 8, patch=patch, generator=_draws(seed))
    kernels = {"whole": kernel_of([16]), "levels": kernel_of([2, 2, 2, 2])}
    return learning_exponents(
        kernels,
        x,
        y,
        reference="whole",
        sizes=[100, 200, 400, 600],
        num_test=300,
        num_repeats=3,
        generator=_draws(),
    )


def test_a_local_target_is_advised_a_local_kernel():
    found = _exponents(patch=2)
    whole, levels = found.exponents["whole"], found.exponents["levels"]
    assert levels.exponent > 1.5 * whole.exponent
    assert found.effective_dimensions["whole"] == 16
    assert found.effective_dimensions["levels"] == pytest.approx(16 * whole.exponent / levels.exponent)
    assert found.advice.startswith("levels learns ")
    assert "the target is local" in found.advice


def test_a_target_of_all_inputs_is_advised_no_structure():
    found = _exponents(patch=8)
    assert "nothing speaks for its structure" in found.advice
    assert found.exponents["levels"].exponent < 1.2 * found.exponents["whole"].exponent


def test_kernels_are_compared_on_the_same_divisions():
    x, y = local_target(200, 4, patch=2, generator=_draws())
    found = learning_exponents(
        {"a": kernel_of([8]), "b": kernel_of([8])}, x, y, reference="a", sizes=[20, 40, 80], num_test=50,
        generator=_draws(),
    )  # fmt: skip
    assert torch.equal(found.exponents["a"].errors, found.exponents["b"].errors)


def test_local_targets_are_sums_over_patches():
    x, y = local_target(1000, 4, patch=2, roughness=1.0, generator=_draws())
    torch.testing.assert_close(x.unflatten(1, (4, 2)).norm(dim=2), torch.ones(1000, 4).double())
    assert float(y.mean()) == pytest.approx(0, abs=1e-9)
    assert float(y.std()) == pytest.approx(1)
    # Harmonics of each patch alone make up all of it, and little of a target of both patches.
    angles = torch.atan2(x[:, 1::2], x[:, ::2])
    alone = [
        wave(n * angles[:, patch] + m * angles[:, patch + 1])
        for patch in (0, 2) for n in range(4) for m in range(-3, 4) for wave in (torch.cos, torch.sin)
    ]  # fmt: skip
    basis = torch.stack(alone, 1)
    _, joint = local_target(1000, 4, patch=4, roughness=1.0, generator=_draws())
    for target, low, high in ((y, 0.0, 0.01), (joint, 0.05, 10.0)):
        weights = torch.linalg.lstsq(basis[:700], target[:700], driver="gelsd").solution
        assert low <= float((basis[700:] @ weights - target[700:]).square().mean()) < high


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: hierarchical_kernel(torch.ones(2, 6), torch.ones(2, 6), patches=[4]), "patches"),
        (lambda: hierarchical_kernel(torch.ones(2, 6), torch.ones(2, 6), patches=[2, 2]), "divides 6"),
        (lambda: hierarchical_kernel(torch.ones(2, 6), torch.ones(2, 6), patches=[]), "patches"),
        (lambda: hierarchical_kernel(torch.ones(2, 6), torch.ones(2, 4), patches=[2]), "6 columns"),
        (lambda: hierarchical_kernel(torch.ones(2, 6), torch.ones(2, 6), patches=[6], kind="nngp"), "kind"),
        (lambda: _regression(sizes=[4, 8]), "sizes"),
        (lambda: _regression(sizes=[4, 8, 16]), "sizes"),
        (lambda: _regression(num_repeats=0), "num_repeats"),
        (lambda: _regression(y=torch.ones(5, 1)), "targets"),
        (lambda: _regression(x=torch.ones(20, 2), ridge=0.0), "positive definite"),
        (lambda: learning_exponents({}, torch.ones(2, 2), torch.ones(2, 1), reference="a", sizes=[1, 2, 3],
                                    generator=_draws()), "reference"),
        (lambda: local_target(5, 4, patch=3, generator=_draws()), "patch"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_by_name(call, named):
    with pytest.raises(MarginsError, match=named):
        call()


def _regression(**changes):
    given = {"x": _rows(20, 2), "y": _rows(20, 1), "sizes": [3, 6, 12], "num_test": 5, **changes}
    x, y = given.pop("x"), given.pop("y")
    return learning_exponent(rbf_kernel(), x, y, generator=_draws(), **given)
