"""Materials from one flash photograph: errors of the maps alone, of what they look like, and an adversary."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ground import predict
from ground.unet import UNet
from margins.evidence import Effect, Study
from margins.losses import ForwardModelLoss, PatchAdversarial, PatchDiscriminator

TRAIN, SELECT, TEST = 192, 48, 96
PASSES, BATCH, CLIP = 12, 16, 1.0
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "brdf"


def example(name: str) -> ModuleType:
    """A file of the example, by its path."""
    known = f"brdf_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, EXAMPLE / f"{name}.py")
        if spec is None or spec.loader is None:
            raise ImportError(name)
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


renderer, materials = example("renderer"), example("materials")


class Reader(UNet):
    """Maps of a material from its photograph."""

    def __init__(self, seed: int) -> None:
        super().__init__(3, 7, width=12, seed=seed)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by name, each in its range."""
        raw = super().forward(torch.log1p(images))
        flat = torch.cat([raw[:, :2], torch.ones_like(raw[:, :1])], 1)
        unit = torch.sigmoid(raw[:, 2:])
        return {
            "normal": functional.normalize(flat, dim=1),
            "base_colour": unit[:, :3],
            "metallic": unit[:, 3:4],
            "roughness": unit[:, 4:],
        }


def rows_of(maps: Mapping[str, Tensor], rows: Any) -> dict[str, Tensor]:
    """Some materials of many."""
    return {name: x[rows] for name, x in maps.items()}


def joined(maps: Mapping[str, Tensor]) -> Tensor:
    """All maps as channels."""
    return torch.cat([maps[name] for name in sorted(maps)], 1)


def trained(arm: str, lr: float, photographs: Tensor, maps: Mapping[str, Tensor], seed: int) -> Reader:
    """A network trained with the losses of the arm; lights of the rendering loss are new in every step."""
    draws = torch.Generator().manual_seed(seed)
    network, critic = Reader(seed), PatchDiscriminator(11, num_scales=2, generator=draws)
    own = torch.optim.Adam(network.parameters(), lr)
    other = torch.optim.Adam(critic.parameters(), 0.001, betas=(0.5, 0.999))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(own, PASSES * (len(photographs) // BATCH))
    adversary = PatchAdversarial(features=1.0)
    for _ in range(PASSES):
        for rows in torch.randperm(len(photographs), generator=draws).split(BATCH):
            seen, true = photographs[rows], rows_of(maps, rows)
            lights = renderer.random_lights(2, generator=draws)
            loss = ForwardModelLoss(
                lambda x, lights=lights: renderer.render(x, lights),
                generated_weight=0.0 if arm == "maps" else 1.0,
            )
            made = network(seen)
            value = loss(made, true)
            if arm == "maps, rendering, adversary":
                other.zero_grad()
                fake = critic(seen, joined(made).detach())
                adversary.of_discriminator(fake, critic(seen, joined(true))).backward()
                other.step()
                value = value + 0.01 * adversary(critic(seen, joined(made)), critic(seen, joined(true)))
            own.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            own.step()
            falling.step()
    return network


def seen_error(made: Mapping[str, Tensor], true: Mapping[str, Tensor], seed: int) -> float:
    """Root mean square difference of renderings as a screen shows them, under lights not trained on."""
    lights = renderer.random_lights(6, generator=torch.Generator().manual_seed(seed))
    shown = [renderer.render(x, lights).clamp(max=1).pow(1 / 2.2) for x in (made, true)]
    return float((shown[0] - shown[1]).square().mean().sqrt())


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Trains on photographs of made-up materials, and renders what it reads under new lights."""
    draws = torch.Generator().manual_seed(seed)
    maps = materials.random_materials(TRAIN + SELECT + TEST, generator=draws)
    photographs = renderer.render(maps, renderer.flash())[:, 0]
    photographs = photographs + 0.01 * torch.randn(photographs.shape, generator=draws)
    photographs = photographs.clamp(min=0)
    network = trained(arm, settings["lr"], photographs[:TRAIN], rows_of(maps, slice(0, TRAIN)), seed)
    found: dict[str, float] = {}
    for name, rows in (("chosen", slice(TRAIN, TRAIN + SELECT)), ("tested", slice(TRAIN + SELECT, None))):
        made, true = predict(network, photographs[rows]), rows_of(maps, rows)
        found[name] = seen_error(made, true, seed + 50_000)
    return {
        "select": -found["chosen"],
        "rendered error": found["tested"],
        "error of maps": float((joined(made) - joined(true)).abs().mean()),
    }


def saved(first: str, second: str) -> Any:
    """The share of the second's rendered error that the first saves."""
    return lambda f: 1 - f[first]["rendered error"] / f[second]["rendered error"]


STUDY = Study(
    name="rendering_loss",
    cards=(
        "margins.losses.ForwardModelLoss",
        "margins.losses.PatchAdversarial",
        "margins.losses.PatchDiscriminator",
    ),
    claim="A loss after a differentiable renderer, beside that of the maps, makes estimated materials look "
    "right under other lights; a multi-scale adversary makes them more plausible.",
    source="Boss and Lensch 2019, arXiv 1910.05148, abstract",
    data="procedural materials of 32 x 32 under a flash with noise: 192 to train, 48 to choose, 96 to test, "
    "drawn anew for each seed; judged under six lights that were not trained on, as a screen shows them",
    protocol="a U-Net of 12 channels, Adam, 12 passes, batches of 16, the rate falls to 0; two new lights a "
    "step. The learning rate is chosen by the rendered error on the materials kept for it, 2 rates an arm. "
    "The adversary weighs 0.01, its own rate is 0.001.",
    arms={arm: {"lr": (0.01, 0.02)} for arm in ("maps", "maps, rendering", "maps, rendering, adversary")},
    budget=2,
    num_tuning_seeds=1,
    trial=trial,
    effects=(
        Effect(
            "share of the rendered error saved by the rendering loss",
            saved("maps, rendering", "maps"),
            reaches=0.1,
        ),
        Effect(
            "share of the rendered error saved by the adversary, no worse than",
            saved("maps, rendering, adversary", "maps, rendering"),
            above=-0.05,
        ),
    ),
)
