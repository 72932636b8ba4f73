"""Losses of the softmax over the known candidates of a row.

Throughout, lse = log sum_k w_k exp(s_k) over the known k, and p_j = exp(s_j - lse): the weight of j is in the
denominator, not in the numerator, so that -log p_j = lse - s_j. With unit weights p is the softmax.
A row without a known positive gives exactly 0.
"""

import math

from reference.rows import log_sum_exp, positives, read_rows


def _lse(row):
    return log_sum_exp((e.score, e.weight) for e in row)


def cross_entropy(scores, target, known, weight, margin, *, smoothing=0.0):
    """sum_j w_j t'_j (lse - s_j), with t'_j = (1 - smoothing) t_j + smoothing / (number of known entries)."""
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not positives(row):
            values.append(0.0)
            continue
        lse = _lse(row)
        smooth = [(1.0 - smoothing) * e.target + smoothing / len(row) for e in row]
        values.append(math.fsum(e.weight * t * (lse - e.score) for e, t in zip(row, smooth, strict=True)))
    return values


def focal(scores, target, known, weight, margin, *, gamma):
    """sum_j w_j t_j (1 - p_j)^gamma (-log p_j).

    A positive of weight below 1 can have p_j above 1 by the definition of p_j; the factor is then 0.
    """
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not positives(row):
            values.append(0.0)
            continue
        lse = _lse(row)
        total = 0.0
        for e in row:
            log_p = e.score - lse
            total += e.weight * e.target * max(1.0 - math.exp(log_p), 0.0) ** gamma * -log_p
        values.append(total)
    return values


def phi_tau(u, tau):
    """Phi_tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau), and log(1 + u) at tau = 1."""
    if tau == 1.0:
        return math.log(1.0 + u)
    return ((1.0 + u) ** (1.0 - tau) - 1.0) / (1.0 - tau)


def comp_sum(scores, target, known, weight, margin, *, tau):
    """sum_j w_j t_j Phi_tau(1/p_j - 1).

    tau = 0 is the sum-exponential loss, 1 cross-entropy, 1 + q generalised cross-entropy, 2 the error 1 - p.
    """
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not positives(row):
            values.append(0.0)
            continue
        lse = _lse(row)
        values.append(
            math.fsum(
                e.weight * e.target * phi_tau(math.exp(lse - e.score) - 1.0, tau) for e in positives(row)
            )
        )
    return values
