"""Ranking losses: Mann-Whitney pairs, LambdaRank and ListNet."""

import math

from reference.rows import log_sum_exp, negatives, positives, read_rows, softplus

SURROGATES = {
    "logistic": softplus,
    "hinge": lambda x: max(0.0, 1.0 + x),
    "squared_hinge": lambda x: max(0.0, 1.0 + x) ** 2,
    "square": lambda x: (1.0 + x) ** 2,
    "linear": lambda x: x,
}


def mann_whitney(scores, target, known, weight, *, surrogate="logistic", temperature=1.0, scope="global"):
    """Sum over pairs of w_p w_n ell((s_n - s_p) / temperature) / sum over pairs of w_p w_n: one number.

    A pair is a known positive p and a known negative n of one group. Scope "global": the whole matrix is the
    group. "row" and "column": each row or column is a group, and the result is the plain mean over the groups
    that have a pair. ell: logistic softplus(x), hinge max(0, 1 + x) and its
    square, square (1 + x)^2, linear x. No pair gives 0.
    """
    ell = SURROGATES[surrogate]
    means = []
    for group in _groups(read_rows(scores, target, known, weight), scope):
        total = mass = 0.0
        for p in positives(group):
            for n in negatives(group):
                total += p.weight * n.weight * ell((n.score - p.score) / temperature)
                mass += p.weight * n.weight
        if mass > 0.0:
            means.append(total / mass)
    return math.fsum(means) / len(means) if means else 0.0


def _groups(rows, scope):
    if scope == "row":
        return rows
    entries = [e for row in rows for e in row]
    if scope == "global":
        return [entries]
    if scope == "column":
        return [[e for e in entries if e.index == j] for j in sorted({e.index for e in entries})]
    raise ValueError(f"scope must be 'row', 'column' or 'global', not {scope!r}")


def lambda_rank(scores, target, known, *, top):
    """Sum over kept pairs with t_i > t_j of |G_i - G_j| |D_i - D_j| / max_dcg * softplus(-(s_i - s_j)).

    Kept are the ``top`` known candidates with the highest scores, ties to the lower column. G = 2^t - 1 and
    D = 1 / log2(1 + rank), rank from 1 in the order of the scores. max_dcg is the sum of G D in the order of
    the grades over all known candidates of the row, cut at ``top``. A row with max_dcg = 0 gives 0.
    """
    values = []
    for row in read_rows(scores, target, known):
        grades = sorted((e.target for e in row), reverse=True)[:top]
        max_dcg = math.fsum((2.0**t - 1.0) / math.log2(2.0 + n) for n, t in enumerate(grades))
        kept = sorted(row, key=lambda e: (-e.score, e.index))[:top]
        total = 0.0
        for a, i in enumerate(kept):
            for b, j in enumerate(kept):
                if max_dcg > 0.0 and i.target > j.target:
                    gain = abs(2.0**i.target - 2.0**j.target)
                    discount = abs(1.0 / math.log2(2.0 + a) - 1.0 / math.log2(2.0 + b))
                    total += gain * discount / max_dcg * softplus(-(i.score - j.score))
        values.append(total)
    return values


def list_net(scores, target, known, weight=None, margin=None, *, temperature=1.0):
    """sum_j w_j y_j (lse - s_j): the cross-entropy of softmax(s / temperature) to softmax(t).

    lse = log sum_k w_k exp(s_k), y_j = exp(t_j) / sum_k w_k exp(t_k), over the known entries. A row without
    known entries gives 0. A row whose grades are all equal, zeros included, says that all are alike.
    """
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        lse = log_sum_exp((e.score / temperature, e.weight) for e in row)
        grades = log_sum_exp((e.target, e.weight) for e in row)
        values.append(
            math.fsum(e.weight * math.exp(e.target - grades) * (lse - e.score / temperature) for e in row)
        )
    return values


def semi_hard_triplet(scores, target, known, weight, *, margin, row_weight=None):
    """Weighted mean over rows, their known positives p and known negatives n with s_n < s_p < s_n + margin of
    margin - s_p + s_n; a triplet weighs w_p w_n, times the weight of its row. No triplet gives 0.
    """
    total = mass = 0.0
    for index, row in enumerate(read_rows(scores, target, known, weight)):
        of_row = 1.0 if row_weight is None else float(row_weight[index])
        for p in positives(row):
            for n in negatives(row):
                gap = p.score - n.score
                if 0.0 < gap < margin:
                    total += of_row * p.weight * n.weight * (margin - gap)
                    mass += of_row * p.weight * n.weight
    return total / mass if mass > 0.0 else 0.0
