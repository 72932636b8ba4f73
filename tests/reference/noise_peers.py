"""Losses for labels that may be wrong, of p = softmax over the known candidates of a row.

Each row's value is sum over its positives j of w_j t_j ell_j, ell_j being the loss if j is the label; for a
class target that is ell_y. Weights stand in the denominator of p as in softmax.py: p_k = exp(s_k) / sum w
exp(s). Sums over k weigh each candidate w_k. A row without a positive gives 0.
"""

import math

from reference.rows import log_sum_exp, positives, read_rows

FLOOR = 1e-4


def generalised_cross_entropy(scores, target, known, weight, margin, *, q=0.7):
    """(1 - p_y^q) / q (Zhang and Sabuncu 2018)."""
    return _of_label(scores, target, known, weight, margin, lambda log_p: -math.expm1(q * log_p) / q)


def truncated_gce(scores, target, known, weight, margin, *, q=0.7, threshold=0.5):
    """min((1 - p_y^q) / q, (1 - k^q) / q), k = threshold: constant, with no gradient, where p_y < k."""
    cap = (1.0 - threshold**q) / q
    return _of_label(
        scores, target, known, weight, margin, lambda log_p: min(-math.expm1(q * log_p) / q, cap)
    )


def symmetric_cross_entropy(scores, target, known, weight, margin, *, share, strength=4.0):
    """(1 - share) (-log p_y) + share * strength (1 - p_y) (Wang et al. 2019, as convex mixture)."""
    return _of_label(
        scores,
        target,
        known,
        weight,
        margin,
        lambda log_p: -(1.0 - share) * log_p - share * strength * math.expm1(log_p),
    )


def mean_absolute_error(scores, target, known, weight, margin):
    """1 - p_y, half the l1 distance of p to the one-hot target."""
    return _of_label(scores, target, known, weight, margin, lambda log_p: -math.expm1(log_p))


def normalised_cross_entropy(scores, target, known, weight, margin):
    """log p_y / sum_k log p_k (Ma et al. 2020); 1 where y is the only candidate, its limit."""

    def loss(row, log_p, y):
        below = math.fsum(e.weight * x for e, x in zip(row, log_p, strict=True))
        return log_p[y] / below if below != 0.0 else 1.0

    return _of_row(scores, target, known, weight, margin, loss)


def reverse_cross_entropy(scores, target, known, weight, margin, *, floor=FLOOR):
    """-sum_k p_k log max(Y_k, floor) = -log(floor) sum_{k != y} p_k, Y the one-hot target."""

    def loss(row, log_p, y):
        others = [(e, x) for n, (e, x) in enumerate(zip(row, log_p, strict=True)) if n != y]
        return -math.log(floor) * math.fsum(e.weight * math.exp(x) for e, x in others)

    return _of_row(scores, target, known, weight, margin, loss)


def active_passive(scores, target, known, weight, margin, *, active, passive, active_weight, passive_weight):
    """active_weight * active + passive_weight * passive (Ma et al. 2020), two functions of this module."""
    first = active(scores, target, known, weight, margin)
    second = passive(scores, target, known, weight, margin)
    return [active_weight * a + passive_weight * b for a, b in zip(first, second, strict=True)]


def asymmetric_unhinged(scores, target, known, weight, margin, *, a=1.5, q=0.9):
    """((a - p_y)^q - (a - 1)^q) / q, a > 1, q > 0: AUL of Zhou et al. 2021 (arXiv 2106.03110)."""
    return _of_label(
        scores,
        target,
        known,
        weight,
        margin,
        lambda log_p: ((a - math.exp(log_p)) ** q - (a - 1.0) ** q) / q,
    )


def asymmetric_gce(scores, target, known, weight, margin, *, a=1.0, q=2.0):
    """((a + 1)^q - (a + p_y)^q) / q, a > 0, q > 0: AGCE of Zhou et al. 2021; GCE(q) is its limit a = 0."""
    return _of_label(
        scores,
        target,
        known,
        weight,
        margin,
        lambda log_p: ((a + 1.0) ** q - (a + math.exp(log_p)) ** q) / q,
    )


def asymmetric_exponential(scores, target, known, weight, margin, *, a=2.0):
    """exp(-p_y / a), a > 0: AEL of Zhou et al. 2021."""
    return _of_label(scores, target, known, weight, margin, lambda log_p: math.exp(-math.exp(log_p) / a))


def jensen_shannon(scores, target, known, weight, margin, *, pi):
    """JS / Z: JS = pi KL(Y || m) + (1 - pi) KL(p || m), m = pi Y + (1 - pi) p, Z = -(1 - pi) log(1 - pi).

    Englesson and Azizpour 2021 (arXiv 2105.04522). Cross-entropy for pi -> 0, 1 - p_y for pi -> 1.
    """

    def loss(row, log_p, y):
        p_y = math.exp(log_p[y])
        log_m = math.log(pi + (1.0 - pi) * p_y)
        others = [(e, x) for n, (e, x) in enumerate(zip(row, log_p, strict=True)) if n != y]
        rest = math.fsum(e.weight * math.exp(x) for e, x in others)
        of_p = row[y].weight * p_y * (log_p[y] - log_m) - rest * math.log1p(-pi)
        return (-pi * log_m + (1.0 - pi) * of_p) / (-(1.0 - pi) * math.log1p(-pi))

    return _of_row(scores, target, known, weight, margin, loss)


def generalised_jensen_shannon(distributions, label, *, weights):
    """sum_i pi_i KL(P_i || m) / Z with P_1 = one-hot label, P_2.. the given ones, m = sum_i pi_i P_i.

    Z = -(1 - pi_1) log(1 - pi_1). One example; with one distribution it is ``jensen_shannon``.
    """
    hot = [1.0 if k == label else 0.0 for k in range(len(distributions[0]))]
    every = [hot, *[[float(x) for x in p] for p in distributions]]
    m = [math.fsum(w * p[k] for w, p in zip(weights, every, strict=True)) for k in range(len(hot))]
    total = []
    for w, p in zip(weights, every, strict=True):
        total += [w * x * math.log(x / m[k]) for k, x in enumerate(p) if x > 0.0]
    return math.fsum(total) / (-(1.0 - weights[0]) * math.log1p(-weights[0]))


def _of_label(scores, target, known, weight, margin, loss):
    return _of_row(scores, target, known, weight, margin, lambda _, log_p, y: loss(log_p[y]))


def _of_row(scores, target, known, weight, margin, loss):
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not positives(row):
            values.append(0.0)
            continue
        lse = log_sum_exp((e.score, e.weight) for e in row)
        log_p = [e.score - lse for e in row]
        chosen = [(n, e) for n, e in enumerate(row) if e.target > 0]
        values.append(math.fsum(e.weight * e.target * loss(row, log_p, n) for n, e in chosen))
    return values
