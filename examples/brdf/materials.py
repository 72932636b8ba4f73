"""Random procedural materials: two substances, divided by smooth noise, over a smooth height field."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def random_materials(number: int, *, side: int = 32, generator: torch.Generator) -> dict[str, Tensor]:
    """Maps of materials: normal, base_colour [N, 3, side, side]; metallic, roughness [N, 1, side, side].

    Args:
        number: N.
        side: pixels.
        generator: draws everything.
    """
    share = torch.sigmoid(8 * smooth_noise(number, side, generator=generator))
    height = smooth_noise(number, side, generator=generator)
    colours = torch.rand(2, number, 3, 1, 1, generator=generator)
    metals = (torch.rand(2, number, 1, 1, 1, generator=generator) < 0.3).float()
    roughs = 0.2 + 0.7 * torch.rand(2, number, 1, 1, 1, generator=generator)
    return {
        "normal": normals(height, steepness=2.0),
        "base_colour": share * colours[0] + (1 - share) * colours[1],
        "metallic": share * metals[0] + (1 - share) * metals[1],
        "roughness": share * roughs[0] + (1 - share) * roughs[1],
    }


def smooth_noise(number: int, side: int, *, cells: int = 4, generator: torch.Generator) -> Tensor:
    """[N, 1, side, side] noise of a few cells a side, interpolated; about standard normal."""
    coarse = torch.randn(number, 1, cells + 1, cells + 1, generator=generator)
    return functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)


def normals(height: Tensor, *, steepness: float) -> Tensor:
    """[N, 3, side, side] unit normals of height fields [N, 1, side, side]."""
    padded = functional.pad(height, (1, 1, 1, 1), mode="replicate")
    slope_x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2 * steepness
    slope_y = (padded[..., :-2, 1:-1] - padded[..., 2:, 1:-1]) / 2 * steepness
    return functional.normalize(torch.cat([-slope_x, -slope_y, torch.ones_like(height)], 1), dim=1)
