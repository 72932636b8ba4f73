"""The soft top k of a row by bisection, and the loss on it.

k counts entries, so entry weights must be 1. The threshold t solves sum_j sigmoid(a s_j + t) = k. With the k
largest entries on one side, that is: the shares of all others add up to what the k largest lack of 1. Both
sides are compared by their logarithms, so widely spread scores lose nothing.
"""

import math

from reference.rows import log_sum_exp, negatives, positives, read_rows, softplus


def threshold(values, k):
    """Return t with sum sigmoid(v + t) = k for 0 < k < len(values), by bisection to 1e-13."""
    ordered = sorted(values, reverse=True)
    inside, outside = ordered[:k], ordered[k:]
    low, high = -ordered[0] - 60.0, -ordered[-1] + 60.0
    while high - low > 1e-13 * max(1.0, abs(low)):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        have = log_sum_exp((-softplus(-(v + middle)), 1.0) for v in outside)
        lack = log_sum_exp((-softplus(v + middle), 1.0) for v in inside)
        low, high = (middle, high) if have < lack else (low, middle)
    return 0.5 * (low + high)


def log_shares(values, k):
    """Return log sigmoid(v + t) of every value; zeros when there are at most k."""
    if len(values) <= k:
        return [0.0] * len(values)
    t = threshold(values, k)
    return [-softplus(-(v + t)) for v in values]


def soft_top_k(scores, target, known, weight, margin, *, k, sharpness):
    """Return the mean over positives, by grade, of minus the log share; k = None: as many as positives."""
    losses = []
    for row in read_rows(scores, target, known, weight, margin):
        pos = positives(row)
        if not pos or not negatives(row):
            losses.append(0.0)
            continue
        logs = log_shares([sharpness * e.score for e in row], len(pos) if k is None else k)
        mass = math.fsum(e.target for e in row)
        losses.append(-math.fsum(e.target * x for e, x in zip(row, logs, strict=True)) / mass)
    return losses
