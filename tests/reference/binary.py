"""Losses that treat every known entry as its own yes-or-no question: sums over a row, not means.

A row without known entries gives 0; a row of negatives alone has a value, for a negative is a statement too.
"""

import math

from reference.rows import read_rows, sigmoid, softplus


def binary_cross_entropy(scores, target, known, weight, margin):
    """Sum over known j of w_j (softplus(s_j) - t_j s_j)."""
    return [
        math.fsum(e.weight * (softplus(e.score) - e.target * e.score) for e in row)
        for row in read_rows(scores, target, known, weight, margin)
    ]


def binary_focal(scores, target, known, weight, margin, *, gamma, alpha=None):
    """Sum over known j of -w_j (A t_j (1-p_j)^gamma log p_j + A' (1-t_j) p_j^gamma log(1-p_j)).

    p_j = sigmoid(s_j), A = alpha and A' = 1 - alpha; both factors are 1 when alpha is None.
    """
    on_positive = 1.0 if alpha is None else alpha
    on_negative = 1.0 if alpha is None else 1.0 - alpha
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        total = 0.0
        for e in row:
            yes, no = sigmoid(e.score), sigmoid(-e.score)
            of_yes = on_positive * e.target * no**gamma * softplus(-e.score)
            of_no = on_negative * (1.0 - e.target) * yes**gamma * softplus(e.score)
            total += e.weight * (of_yes + of_no)
        values.append(total)
    return values
