"""Laws of losses after a forward model, of the renderer of the example, and of the adversary."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from margins.errors import MarginsError
from margins.losses import ForwardModelLoss, PatchAdversarial, PatchDiscriminator, Patches
from reference import forward_model as reference

EXAMPLE = Path(__file__).parent.parent / "examples" / "brdf"


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"brdf_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


renderer, materials = _example("renderer"), _example("materials")


def _maps(num: int = 2, side: int = 4, seed: int = 0) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {
        name: x.double() for name, x in materials.random_materials(num, side=side, generator=draws).items()
    }


def _directions(*shape: int, seed: int = 0) -> Tensor:
    """Unit vectors [*shape, 3, 1, 1] of the upper half, none of them grazing."""
    raw = torch.randn(*shape, 3, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    raw[..., 2, :, :] = raw[..., 2, :, :].abs() + 0.5
    return functional.normalize(raw, dim=-3)


def _surface(**numbers: float) -> dict[str, Tensor]:
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)[:, None, None]
    return {"normal": up} | {n: torch.full((1, 1, 1), v, dtype=torch.float64) for n, v in numbers.items()}


def test_random_materials_are_valid():
    maps = _maps(20, 32)
    torch.testing.assert_close(maps["normal"].norm(dim=1), torch.ones(20, 32, 32, dtype=torch.float64))
    assert maps["normal"][:, 2].min() > 0
    assert maps["normal"][:, 2].min() < 0.9, "vacuous: all flat"
    for name in ("base_colour", "metallic", "roughness"):
        assert 0 <= maps[name].min() < maps[name].max() <= 1


def test_the_renderer_equals_the_reference():
    maps, lights = _maps(), renderer.random_lights(2, generator=torch.Generator().manual_seed(1))
    found = renderer.render(maps, lights)
    centres = (torch.arange(4) + 0.5) / 2 - 1
    for item in range(2):
        for k in range(2):
            for i, j in ((0, 0), (1, 3), (2, 2)):
                place = torch.tensor([centres[j], -centres[i], 0.0])
                light, view = (v[k] - place for v in (lights.lights, lights.views))
                expected = reference.shade(
                    maps["normal"][item, :, i, j].tolist(), maps["base_colour"][item, :, i, j].tolist(),
                    maps["metallic"][item, 0, i, j], maps["roughness"][item, 0, i, j],
                    light.tolist(), view.tolist(), intensity=lights.intensity, distance=float(light.norm()),
                )  # fmt: skip
                np.testing.assert_allclose(found[item, k, :, i, j], expected, rtol=1e-5)
    assert found.std() > 0.05, "vacuous: all alike"


def test_the_renderer_is_reciprocal():
    light, view = _directions(50), _directions(50, seed=1)
    surface = {n: x[:1].squeeze(0)[..., :1, :1] for n, x in _maps().items()}
    there, back = renderer.brdf(light, view, **surface), renderer.brdf(view, light, **surface)
    torch.testing.assert_close(there, back)
    assert there.std() > 1e-3, "vacuous: all alike"
    cosine = [renderer._dot(surface["normal"], v) for v in (light, view)]
    assert (there * cosine[0] - back * cosine[1]).abs().max() > 1e-3, "vacuous: light and view are the same"


@pytest.mark.parametrize("metallic", [0.0, 1.0])
@pytest.mark.parametrize("tilt", [0.0, 0.6, 1.2])
def test_a_white_furnace_gains_no_energy(metallic, tilt):
    # Light of one from everywhere on a white, rough surface: the integral of f cos over the upper half.
    view = torch.tensor([math.sin(tilt), 0.0, math.cos(tilt)], dtype=torch.float64)[:, None, None]
    cosines = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    angles = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 * 2 * math.pi
    sines = (1 - cosines.square()).sqrt()
    light = torch.stack(
        [sines[:, None] * angles.cos(), sines[:, None] * angles.sin(), cosines[:, None].expand(200, 400)]
    )
    white = _surface(base_colour=1.0, metallic=metallic, roughness=1.0)
    reflected = (renderer.brdf(light, view, **white) * cosines[:, None]).mean() * 2 * math.pi
    assert reflected <= 1.1
    assert reflected > 0.3, "vacuous: hardly anything is reflected"


def test_the_renderer_has_the_gradient_of_its_value():
    maps = _maps(1, 3)
    lights = renderer.random_lights(2, generator=torch.Generator().manual_seed(1))
    leaves = [maps[name].clone().requires_grad_() for name in sorted(maps)]

    def rendered(*values: Tensor) -> Tensor:
        return renderer.render(dict(zip(sorted(maps), values, strict=True)), lights)

    assert torch.autograd.gradcheck(rendered, leaves)


def test_the_loss_is_that_of_what_is_generated():
    true, made = _maps(), _maps(seed=1)
    lights = renderer.random_lights(2, generator=torch.Generator().manual_seed(2))

    def model(maps):
        return renderer.render(maps, lights)

    both = [renderer.render(m, lights).numpy() for m in (made, true)]
    gaps = torch.cat([(made[n] - true[n]).abs().flatten() for n in made])
    for log, compared in ((True, reference.log_l1), (False, reference.l1)):
        alone = ForwardModelLoss(model, log=log, parameter_weight=0.0)(made, true)
        np.testing.assert_allclose(float(alone), compared(*both), rtol=1e-9)
        whole = ForwardModelLoss(model, log=log, parameter_weight=0.5, generated_weight=2.0)(made, true)
        torch.testing.assert_close(whole, 0.5 * gaps.mean() + 2 * alone)
    torch.testing.assert_close(ForwardModelLoss(model, generated_weight=0.0)(made, true), gaps.mean())
    assert ForwardModelLoss(model)(true, true) == 0
    assert gaps.mean() > 0.05, "vacuous"


def test_errors_that_do_not_show_cost_nothing_and_only_predictions_learn():
    def area(shape):
        return shape["width"] * shape["height"]

    loss = ForwardModelLoss(area, parameter_weight=0.0, reduction="none")
    own = {"width": torch.tensor([[3.0], [2.0]]), "height": torch.tensor([[2.0], [5.0]])}
    true = {"width": torch.tensor([[2.0], [2.0]]), "height": torch.tensor([[3.0], [1.0]], requires_grad=True)}
    own["height"].requires_grad_()
    value = loss(own, true)
    torch.testing.assert_close(value, torch.tensor([0.0, math.log(11) - math.log(3)]))
    grads = torch.autograd.grad(value.sum(), (own["height"], true["height"]), allow_unused=True)
    assert grads[1] is None
    torch.testing.assert_close(grads[0][1, 0], torch.tensor(2 / 11))
    torch.testing.assert_close(
        ForwardModelLoss(area, parameter_weight=0.0)(own, true, denominator=4.0), value.sum() / 4
    )


def test_forward_models_refuse_what_does_not_fit():
    x = {"a": torch.ones(2, 1)}
    wrong = {
        "parameter_weight": lambda: ForwardModelLoss(len, parameter_weight=-1.0),
        "targets.*'a'": lambda: ForwardModelLoss(lambda p: p["a"])(x, {"b": x["a"]}),
        r"targets\['a'\]": lambda: ForwardModelLoss(lambda p: p["a"])(x, {"a": torch.ones(2, 2)}),
        "one number a row": lambda: ForwardModelLoss(lambda p: p["a"])(
            {"a": torch.ones(2)}, {"a": torch.ones(2)}
        ),
        "B = 2": lambda: ForwardModelLoss(lambda p: p["a"].sum())(x, x),
        "log=False": lambda: ForwardModelLoss(lambda p: -p["a"])(x, x),
        "as many scales": lambda: PatchAdversarial()([], []),
        "num_scales": lambda: PatchDiscriminator(2, num_scales=0, generator=torch.Generator()),
        "2 channels": lambda: PatchDiscriminator(2, generator=torch.Generator())(
            *torch.ones(2, 1, 3, 32, 32)
        ),
        "at least 16": lambda: PatchDiscriminator(2, generator=torch.Generator())(*torch.ones(2, 1, 1, 8, 8)),
    }
    for words, call in wrong.items():
        with pytest.raises(MarginsError, match=words):
            call()


def _patches(num_scales: int, seed: int) -> list[Patches]:
    draws = torch.Generator().manual_seed(seed)
    sides = [2 ** (num_scales - s) for s in range(num_scales)]
    return [
        Patches(
            torch.randn(2, 1, n, n, generator=draws),
            tuple(torch.randn(2, 3, n, n, generator=draws) for _ in "ab"),
        )
        for n in sides
    ]


@pytest.mark.parametrize("num_scales", [2, 3])
def test_the_two_sides_of_the_adversarial_loss_are_as_defined(num_scales):
    fake, true = _patches(num_scales, 0), _patches(num_scales, 1)
    f, t = [[p.scores for p in side] for side in (fake, true)]
    pairs = list(zip(f, t, strict=True))
    sides = {
        "least_squares": (
            sum(0.5 * (a - 1).square().mean() for a in f),
            sum(0.5 * (b - 1).square().mean() + 0.5 * a.square().mean() for a, b in pairs),
        ),
        "hinge": (
            sum(-a.mean() for a in f),
            sum(functional.relu(1 - b).mean() + functional.relu(1 + a).mean() for a, b in pairs),
        ),
    }
    gaps = [
        sum(functional.l1_loss(a, b) for a, b in zip(p.features, q.features, strict=True)) / 2
        for p, q in zip(fake, true, strict=True)
    ]
    for adversary, (of_maps, of_critic) in sides.items():
        found = PatchAdversarial(adversary, features=0.0)(fake, true)
        torch.testing.assert_close(found, of_maps / num_scales)
        with_features = PatchAdversarial(adversary, features=0.3)(fake, true)
        torch.testing.assert_close(with_features, (of_maps + 0.3 * sum(gaps)) / num_scales)
        found = PatchAdversarial(adversary).of_discriminator(fake, true)
        torch.testing.assert_close(found, of_critic / num_scales)


def test_every_scale_sees_the_maps_at_half_the_size():
    draws = torch.Generator().manual_seed(0)
    critic = PatchDiscriminator(4, num_scales=3, width=4, generator=draws)
    given, maps = torch.randn(2, 3, 32, 32, generator=draws), torch.randn(2, 1, 32, 32, generator=draws)
    whole = critic(given, maps)
    assert [tuple(p.scores.shape) for p in whole] == [(2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    critic.critics = critic.critics[1:]
    smaller = critic(functional.avg_pool2d(given, 2), functional.avg_pool2d(maps, 2))
    for a, b in zip(whole[1:], smaller, strict=True):
        torch.testing.assert_close(a.scores, b.scores)
        assert len(a.features) == 2
    # A patch far from a change does not see it.
    moved = maps.clone()
    moved[:, :, :4, :4] += 10
    torch.testing.assert_close(
        critic(given, moved)[0].scores[:, :, -1, -1], critic(given, maps)[0].scores[:, :, -1, -1]
    )
    assert (
        critic(given, moved)[0].scores[:, :, 0, 0] - critic(given, maps)[0].scores[:, :, 0, 0]
    ).abs().min() > 1e-3


def test_a_critic_learns_to_tell_and_maps_learn_to_pass():
    draws = torch.Generator().manual_seed(0)
    critic = PatchDiscriminator(2, num_scales=2, width=4, generator=draws)
    loss, given = PatchAdversarial(), torch.zeros(8, 1, 16, 16)
    true = (torch.rand(8, 1, 16, 16, generator=draws) < 0.5).float()
    fake = torch.full_like(true, 0.5).requires_grad_()
    optimiser = torch.optim.Adam(critic.parameters(), lr=0.01)
    before = loss.of_discriminator(critic(given, fake.detach()), critic(given, true)).item()
    for _ in range(30):
        optimiser.zero_grad()
        value = loss.of_discriminator(critic(given, fake.detach()), critic(given, true))
        value.backward()
        optimiser.step()
    assert value.item() < 0.5 * before
    start = loss(critic(given, fake), critic(given, true))
    (grad,) = torch.autograd.grad(start, fake)
    with torch.no_grad():
        moved = fake - 5 * grad / grad.abs().max() * 0.1
        assert loss(critic(given, moved), critic(given, true)) < start
    true_leaf = true.clone().requires_grad_()
    value = PatchAdversarial(features=1.0)(critic(given, fake), critic(given, true_leaf))
    assert torch.autograd.grad(value, true_leaf, allow_unused=True)[0] is None
