"""A microfacet renderer of material maps, one place after the other, and the losses after it."""

import math

import numpy as np

LEAST = 1e-4


def shade(normal, colour, metallic, roughness, light, view, *, intensity=1.0, distance=1.0):
    """f (n.L)+ intensity / distance^2 for one place: three numbers.

    H = (L + V) / |L + V|, a = r^2: D = a^2 / (pi ((n.H)^2 (a^2 - 1) + 1)^2); G = G1(n.L) G1(n.V) with
    G1(c) = c / (c (1 - k) + k), k = (r + 1)^2 / 8; F = F0 + (1 - F0)(1 - V.H)^5, F0 = 0.04 (1 - m) + b m;
    f = (1 - m) b (1 - F) / pi + D G F / (4 (n.L)(n.V) + 1e-4). Directions are normalised. Dot products are at
    least 1e-4 everywhere but in the last factor, where (n.L)+ = max(n.L, 0): a place turned away is black.
    """
    n, to_light, to_view = _unit(normal), _unit(light), _unit(view)
    half = _unit([a + b for a, b in zip(to_light, to_view, strict=True)])
    nl, nv = max(_dot(n, to_light), LEAST), max(_dot(n, to_view), LEAST)
    nh, vh = max(_dot(n, half), LEAST), max(_dot(to_view, half), LEAST)
    a2, k = float(roughness) ** 4, (float(roughness) + 1.0) ** 2 / 8.0
    d = a2 / (math.pi * (nh * nh * (a2 - 1.0) + 1.0) ** 2)
    g = nl / (nl * (1.0 - k) + k) * (nv / (nv * (1.0 - k) + k))
    received = max(_dot(n, to_light), 0.0) * intensity / distance**2
    m = float(metallic)
    out = []
    for b in colour:
        f0 = 0.04 * (1.0 - m) + float(b) * m
        f = f0 + (1.0 - f0) * max(1.0 - vh, 0.0) ** 5
        out.append(
            ((1.0 - m) * float(b) * (1.0 - f) / math.pi + d * g * f / (4.0 * nl * nv + 1e-4)) * received
        )
    return out


def render(normal, colour, metallic, roughness, light, view, *, intensity=1.0, distance=1.0):
    """``shade`` at every place of maps (3, H, W), (3, H, W), (H, W), (H, W): a map (3, H, W)."""
    normal, colour = np.asarray(normal, dtype=np.float64), np.asarray(colour, dtype=np.float64)
    out = np.zeros(colour.shape)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = shade(
                normal[:, i, j],
                colour[:, i, j],
                metallic[i][j],
                roughness[i][j],
                light,
                view,
                intensity=intensity,
                distance=distance,
            )
    return out


def log_l1(first, second):
    """mean |log(1 + R) - log(1 + R')| over all entries."""
    first, second = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    return math.fsum(abs(math.log1p(a) - math.log1p(b)) for a, b in zip(first, second, strict=True)) / len(
        first
    )


def l1(first, second):
    """mean |a - b| over all entries."""
    first, second = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    return math.fsum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)


def rendering_loss(predicted, true, pairs, *, intensity=1.0, distance=1.0):
    """Mean over (light, view) pairs of ``log_l1`` of the two renderings; maps are (normal, colour, m, r)."""
    values = []
    for light, view in pairs:
        mine = render(*predicted, light, view, intensity=intensity, distance=distance)
        theirs = render(*true, light, view, intensity=intensity, distance=distance)
        values.append(log_l1(mine, theirs))
    return math.fsum(values) / len(values)


def _dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def _unit(a):
    length = math.sqrt(_dot(a, a))
    return [float(x) / length for x in a]
