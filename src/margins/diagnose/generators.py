"""Made-up data with a known structure, for diagnostics to be tried on."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.diagnose.checking import check_count, check_positive
from margins.errors import MarginsError


def local_target(
    num_rows: int,
    num_angles: int,
    *,
    patch: int,
    roughness: float = 2.0,
    num_waves: int = 100,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, "rows 1"]]:
    """Angles as points of circles, and a sum of functions each of which sees a few neighbours.

    Use it to see what locality is worth: with `patch=2` each function sees an adjacent pair, with
    `patch=num_angles` one function sees all. Each is a sum of random waves over the points of its patch, of
    the same variance whatever the patch.

    Args:
        num_rows: drawn.
        num_angles: uniform ones; each becomes its cosine and sine, side by side.
        patch: adjacent angles that a function sees; divides `num_angles`.
        roughness: standard deviation of a wave's phase over the rows, in radians.
        num_waves: of each function.
        generator: draws all.

    Returns:
        inputs [N, 2 num_angles] and targets [N, 1] of mean 0 and variance 1 over the rows, in float64.

    Raises:
        MarginsError: a patch that does not divide.

    Example:
        >>> x, y = local_target(5, 4, patch=2, generator=torch.Generator().manual_seed(0))
        >>> x.shape, y.shape
        (torch.Size([5, 8]), torch.Size([5, 1]))
    """
    check_count("num_rows", num_rows, least=2)
    check_positive("roughness", roughness)
    if patch < 1 or num_angles % patch:
        raise MarginsError("patch", expected=f"a divisor of {num_angles}", received=str(patch))
    angles = 2 * math.pi * torch.rand(num_rows, num_angles, generator=generator, dtype=torch.float64)
    points = torch.stack([angles.cos(), angles.sin()], 2)
    total = torch.zeros(num_rows, dtype=torch.float64)
    for part in points.split(patch, dim=1):
        shape = 2 * patch, num_waves
        directions = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(patch)
        phases = 2 * math.pi * torch.rand(num_waves, generator=generator, dtype=torch.float64)
        heights = torch.randn(num_waves, generator=generator, dtype=torch.float64)
        total = total + (roughness * part.flatten(1) @ directions + phases).cos() @ heights
    return points.flatten(1), ((total - total.mean()) / total.std())[:, None]


def manifold_classes(
    num_rows: int,
    *,
    dimension: int,
    num_inputs: int = 64,
    roughness: float = 1.0,
    num_waves: int = 100,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "rows inputs"], Float[Tensor, " rows"]]:
    """Gaussian coordinates of a flat surface in a wider space, and a smooth random function of them.

    The sign of the function is a class, and rows on which it is near 0 lie near the boundary.

    Args:
        num_rows: drawn.
        dimension: of the surface.
        num_inputs: of the space around it.
        roughness: standard deviation of a wave's phase over the rows, in radians.
        num_waves: of the function.
        generator: draws all; one seed gives the same surface and function for any number of rows.

    Returns:
        inputs [N, num_inputs] and values [N], in float32.

    Raises:
        MarginsError: a surface of more dimensions than the space.

    Example:
        >>> x, f = manifold_classes(5, dimension=2, generator=torch.Generator().manual_seed(0))
        >>> x.shape, int(torch.linalg.matrix_rank(x, rtol=1e-4))
        (torch.Size([5, 64]), 2)
    """
    check_count("num_rows", num_rows)
    check_positive("roughness", roughness)
    if not 1 <= dimension <= num_inputs:
        raise MarginsError("dimension", expected=f"1 to {num_inputs}", received=str(dimension))
    directions = torch.linalg.qr(torch.randn(num_inputs, dimension, generator=generator)).Q
    waves = torch.randn(dimension, num_waves, generator=generator) * roughness / math.sqrt(dimension)
    phases = 2 * math.pi * torch.rand(num_waves, generator=generator)
    heights = torch.randn(num_waves, generator=generator) * math.sqrt(2 / num_waves)
    coordinates = torch.randn(num_rows, dimension, generator=generator)
    return coordinates @ directions.T, (coordinates @ waves + phases).cos() @ heights


def shifted_patterns(
    num_rows: int,
    *,
    num_classes: int = 4,
    side: int = 12,
    pattern: int = 5,
    noise: float = 0.3,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "rows 1 side side"], Int[Tensor, " rows"]]:
    """Images that hold one of a few patterns somewhere: what a convolution knows and a perceptron must learn.

    Args:
        num_rows: drawn.
        num_classes: patterns, of independent signs.
        side: of the images, in pixels.
        pattern: side of a pattern.
        noise: standard deviation added to every pixel.
        generator: draws all; one seed gives the same patterns for any number of rows.

    Returns:
        images [N, 1, side, side] in float32, and class ids [N].

    Raises:
        MarginsError: a pattern that is larger than the image.

    Example:
        >>> images, labels = shifted_patterns(6, generator=torch.Generator().manual_seed(0))
        >>> images.shape, labels.shape
        (torch.Size([6, 1, 12, 12]), torch.Size([6]))
    """
    check_count("num_rows", num_rows)
    check_count("num_classes", num_classes)
    if not 1 <= pattern <= side:
        raise MarginsError("pattern", expected=f"1 to {side}", received=str(pattern))
    signs = torch.randn(num_classes, pattern, pattern, generator=generator).sign()
    labels = torch.randint(num_classes, (num_rows,), generator=generator)
    places = torch.randint(side - pattern + 1, (num_rows, 2), generator=generator).tolist()
    images = noise * torch.randn(num_rows, 1, side, side, generator=generator)
    for image, label, (top, left) in zip(images, labels.tolist(), places, strict=True):
        image[0, top : top + pattern, left : left + pattern] += signs[label]
    return images, labels
