"""Pair sums by two loops: values and gradients, with exact sums."""

import math

from reference.rows import sigmoid, softplus

# name -> (ell, its derivative); a step has none
FUNCTIONS = {
    "logistic": (softplus, sigmoid),
    "hinge": (lambda x: max(0.0, 1.0 + x), lambda x: 1.0 if x > -1.0 else 0.0),
    "squared_hinge": (lambda x: max(0.0, 1.0 + x) ** 2, lambda x: 2.0 * max(0.0, 1.0 + x)),
    "square": (lambda x: (1.0 + x) ** 2, lambda x: 2.0 * (1.0 + x)),
    "linear": (lambda x: x, lambda _: 1.0),
    "step": (lambda x: 0.5 * (math.copysign(1.0, x) if x else 0.0) + 0.5, lambda _: 0.0),
}


def pair_sum(scores, positive, weight, *, function, temperature=1.0):
    """Sum over positives p and negatives n of w_p w_n ell((s_n - s_p) / temperature), and its gradient."""
    ell, slope = FUNCTIONS[function]
    items = [(float(s), bool(p), float(w)) for s, p, w in zip(scores, positive, weight, strict=True)]
    terms, slopes = [], [[] for _ in items]
    for i, (s_p, is_positive, w_p) in enumerate(items):
        for j, (s_n, is_other, w_n) in enumerate(items):
            if is_positive and not is_other:
                x = (s_n - s_p) / temperature
                terms.append(w_p * w_n * ell(x))
                force = w_p * w_n * slope(x) / temperature
                slopes[j].append(force)
                slopes[i].append(-force)
    return math.fsum(terms), [math.fsum(s) for s in slopes]
