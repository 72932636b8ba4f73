"""The spherical family: losses of the target's score, the sum of the scores and the sum of their squares.

Sums and counts run over the known entries, weighted: D = sum w, s = sum w s_j, q = sum w s_j^2 (unit weights
give the usual D, s, q). With several positives, or graded ones, the loss is sum_j w_j t_j loss(s_j). A row
without a positive gives 0, but for the squared error, whose target is then all zeros.
"""

import math

from reference.rows import read_rows, softplus


def z_loss(scores, target, known, weight, margin, *, a, b, eps=1e-12):
    """sum_j w_j t_j (1/a) softplus(a (b - z_j)), z_j = (s_j - mu) / sqrt(variance + eps).

    mu = sum w s / sum w and variance = sum w (s - mu)^2 / sum w over the known entries.
    """
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not row:
            values.append(0.0)
            continue
        mass = math.fsum(e.weight for e in row)
        mu = math.fsum(e.weight * e.score for e in row) / mass
        variance = math.fsum(e.weight * (e.score - mu) ** 2 for e in row) / mass
        sigma = math.sqrt(variance + eps)
        values.append(
            math.fsum(e.weight * e.target * softplus(a * (b - (e.score - mu) / sigma)) / a for e in row)
        )
    return values


def squared_error(scores, target, known, weight, margin):
    """Sum over known j of w_j (s_j - t_j)^2, that is q - 2 sum t s + sum t^2 for unit weights."""
    return [
        math.fsum(e.weight * (e.score - e.target) ** 2 for e in row)
        for row in read_rows(scores, target, known, weight, margin)
    ]


def spherical_softmax(scores, target, known, weight, margin, *, eps):
    """sum_j -w_j t_j log((s_j^2 + eps) / sum_k w_k (s_k^2 + eps)): the denominator is q + D eps."""
    return _share_of(scores, target, known, weight, margin, lambda s: s * s + eps)


def taylor_softmax(scores, target, known, weight, margin):
    """sum_j -w_j t_j log(h(s_j) / sum_k w_k h(s_k)), h(s) = 1 + s + s^2/2: the denominator is D + s + q/2."""
    return _share_of(scores, target, known, weight, margin, lambda s: 1.0 + s + s * s / 2.0)


def _share_of(scores, target, known, weight, margin, h):
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        whole = math.fsum(e.weight * h(e.score) for e in row)
        values.append(
            math.fsum(-e.weight * e.target * math.log(h(e.score) / whole) for e in row if e.target > 0)
        )
    return values
