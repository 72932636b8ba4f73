"""Regression with a tough and a tolerant teacher, coordinate by coordinate, and shapes smoothed by PCA."""

import math

import numpy as np


def assist_terms(predicted, target, teacher, *, beyond, between, band=0.15):
    """w |T - x| at every coordinate, T = g + sign(x - g) |t - g|.

    w = ``beyond`` where x lies strictly beyond T on its side, ``between`` (negative) where x lies strictly
    between b = g + band sign(x - g) |t - g| and T, 0 at b and nearer to the truth; 0 where t = g.
    """
    values = []
    for x, g, t in _flat(predicted, target, teacher):
        reach, far = abs(t - g), abs(x - g)
        w = 0.0
        if reach > 0.0 and far > reach:
            w = beyond
        elif reach > 0.0 and band * reach < far < reach:
            w = between
        reflected = g + _sign(x - g) * reach
        values.append(w * abs(reflected - x))
    return np.asarray(values).reshape(np.shape(predicted))


def main_terms(predicted, target, tolerant):
    """3 d where d = |g - x| <= D = |g - t|, else d^2 + 3 D - D^2, at every coordinate.

    Below 1.5 the square grows slower than the line beyond D: the formula is taken as it stands.
    """
    values = []
    for x, g, t in _flat(predicted, target, tolerant):
        d, reach = abs(g - x), abs(g - t)
        values.append(3.0 * d if d <= reach else d * d + 3.0 * reach - reach * reach)
    return np.asarray(values).reshape(np.shape(predicted))


def assistive_terms(
    predicted, target, tough, tolerant, *, alphas=((1.9, -0.45), (1.8, -0.4)), band=0.15, main=2.0
):
    """main * main_terms + assist_terms(tough) + assist_terms(tolerant), coordinate by coordinate."""
    total = main * main_terms(predicted, target, tolerant)
    for teacher, (beyond, between) in zip((tough, tolerant), alphas, strict=True):
        total = total + assist_terms(predicted, target, teacher, beyond=beyond, between=between, band=band)
    return total


def assistive_loss(predicted, target, tough, tolerant, **options):
    """Mean over the coordinates of each row of ``assistive_terms``: one number a row."""
    terms = assistive_terms(predicted, target, tough, tolerant, **options)
    return [math.fsum(float(x) for x in row.ravel()) / row.size for row in terms]


def shape_smooth(shapes, *, variance=0.9, clip=3.0, ddof=1):
    """mean + sum over kept modes of clipped b_i P_i, b_i = P_i . (x - mean) cut to +-clip sqrt(lambda_i).

    The modes are eigenvectors of the covariance (divisor N - ddof); the fewest are kept whose eigenvalues
    reach ``variance`` of their sum.
    """
    shapes = np.asarray(shapes, dtype=np.float64)
    mean = np.array([math.fsum(column) / len(shapes) for column in shapes.T])
    size = shapes.shape[1]
    covariance = np.zeros((size, size))
    for row in shapes:
        for i in range(size):
            for j in range(size):
                covariance[i, j] += (row[i] - mean[i]) * (row[j] - mean[j]) / (len(shapes) - ddof)
    values, vectors = np.linalg.eigh(covariance)
    order = sorted(range(size), key=lambda n: -values[n])
    whole, kept, have = math.fsum(max(v, 0.0) for v in values), [], 0.0
    for n in order:
        if have >= variance * whole * (1.0 - 1e-12):
            break
        kept.append(n)
        have += max(float(values[n]), 0.0)
    out = np.zeros_like(shapes)
    for r, row in enumerate(shapes):
        out[r] = mean
        for n in kept:
            limit = clip * math.sqrt(max(float(values[n]), 0.0))
            b = math.fsum((row[i] - mean[i]) * vectors[i, n] for i in range(size))
            out[r] = out[r] + min(max(b, -limit), limit) * vectors[:, n]
    return out


def _flat(*arrays):
    flat = [np.asarray(a, dtype=np.float64).ravel() for a in arrays]
    return [tuple(float(x) for x in items) for items in zip(*flat, strict=True)]


def _sign(x):
    return (x > 0) - (x < 0)
