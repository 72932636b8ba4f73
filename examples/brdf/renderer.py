"""Flat samples of materials, lit by points and seen from points: the GGX model, differentiable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-4  # of a cosine


@dataclass(frozen=True)
class Lights:
    """Point lights, each with the place it is seen from, above the sample: the square [-1, 1]^2 at height 0.

    Args:
        lights: [k, 3] places, heights > 0.
        views: [k, 3] places, heights > 0.
        intensity: of every light; at distance d it falls to intensity / d^2.
    """

    lights: Tensor
    views: Tensor
    intensity: float = 12.0


def flash(height: float = 2.0) -> Lights:
    """One light at the camera, above the middle."""
    place = torch.tensor([[0.0, 0.0, height]])
    return Lights(place, place)


def random_lights(number: int, *, generator: torch.Generator, height: float = 2.0) -> Lights:
    """Lights and views apart, each above a random place of the sample."""
    places = torch.rand(2, number, 2, generator=generator) * 3 - 1.5
    high = torch.full((2, number, 1), height)
    lights, views = torch.cat([places, high], 2)
    return Lights(lights, views)


def render(maps: Mapping[str, Tensor], lights: Lights) -> Tensor:
    """What is seen of every sample under every light, [B, k, 3, H, W].

    Args:
        maps: "normal" [B, 3, H, W] of length one, "base_colour" [B, 3, H, W] in [0, 1], "metallic" and
            "roughness" [B, 1, H, W] in [0, 1]; a roughness below 0.05 counts as 0.05.
        lights: k of them.
    """
    normal = maps["normal"]
    places = _places(*normal.shape[2:], like=normal)  # [3, H, W]
    to_light = lights.lights.to(normal)[:, :, None, None] - places
    to_view = lights.views.to(normal)[:, :, None, None] - places
    squared = to_light.square().sum(1, keepdim=True)
    light, view = functional.normalize(to_light, dim=1), functional.normalize(to_view, dim=1)
    wide = {name: x[:, None] for name, x in maps.items()}
    reflected = brdf(light, view, **wide)
    arriving = _dot(wide["normal"], light).clamp(min=0)
    return reflected * arriving * lights.intensity / squared


def brdf(
    light: Tensor, view: Tensor, *, normal: Tensor, base_colour: Tensor, metallic: Tensor, roughness: Tensor
) -> Tensor:
    """Reflected radiance over irradiance, [..., 3, H, W].

    With h halfway between light l and view v, and alpha the squared roughness: D of GGX, G of Smith as
    Schlick approximates it, F of Schlick; (1 - m) b (1 - F) / pi + D G F / (4 (n.l) (n.v)).

    Args:
        light: [..., 3, H, W] unit vectors to the light.
        view: the same to the eye.
        normal: see `render`.
        base_colour: see `render`.
        metallic: see `render`.
        roughness: see `render`.
    """
    rough = roughness.clamp(min=0.05)
    half = functional.normalize(light + view, dim=-3)
    n_l, n_v = _dot(normal, light).clamp(min=SMALLEST), _dot(normal, view).clamp(min=SMALLEST)
    n_h, v_h = _dot(normal, half).clamp(min=SMALLEST), _dot(view, half).clamp(min=SMALLEST)
    squared = rough.pow(4)
    distribution = squared / (math.pi * (n_h.square() * (squared - 1) + 1).square())
    bend = (rough + 1).square() / 8
    shadowing = _unshadowed(n_l, bend) * _unshadowed(n_v, bend)
    straight = 0.04 * (1 - metallic) + base_colour * metallic
    fresnel = straight + (1 - straight) * (1 - v_h).clamp(min=0).pow(5)
    specular = distribution * shadowing * fresnel / (4 * n_l * n_v + 1e-4)
    return (1 - metallic) * base_colour * (1 - fresnel) / math.pi + specular


def _unshadowed(cosine: Tensor, bend: Tensor) -> Tensor:
    return cosine / (cosine * (1 - bend) + bend)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-3, keepdim=True)


def _places(height: int, width: int, *, like: Tensor) -> Tensor:
    """[3, H, W] middles of pixels."""
    rows = (torch.arange(height).to(like) + 0.5) / height * 2 - 1
    columns = (torch.arange(width).to(like) + 0.5) / width * 2 - 1
    y, x = torch.meshgrid(-rows, columns, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])
