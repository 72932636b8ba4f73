"""What every reference shares: the known entries of a row, and two safe scalar functions.

Inputs of a row-wise reference, all of shape (B, C):

- ``scores``: real numbers.
- ``target``: grades, 0 for a negative.
- ``known``: False where the entry does not exist for the row (not in any sum, denominator, count or maximum).
- ``weight``: positive; multiplies a term inside a sum and multiplies exp(score) inside a log-sum-exp.
- ``margin``: subtracted from the scores before anything else, a temperature included.

``weight`` and ``margin`` may be None (ones and zeros). Positives of a row are its known entries with a target
above 0, negatives those with a target of 0.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Entry:
    """One known candidate of one row; the margin is already off the score."""

    index: int
    score: float
    target: float
    weight: float


def read_rows(scores, target, known, weight=None, margin=None):
    """List the known entries of every row, in column order."""
    scores = np.asarray(scores, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    known = np.asarray(known, dtype=bool)
    weight = np.ones_like(scores) if weight is None else np.asarray(weight, dtype=np.float64)
    margin = np.zeros_like(scores) if margin is None else np.asarray(margin, dtype=np.float64)
    if not scores.shape == target.shape == known.shape == weight.shape == margin.shape:
        raise ValueError("scores, target, known, weight and margin must have one shape (B, C)")
    num_rows, num_candidates = scores.shape
    return [
        [
            Entry(j, float(scores[i, j] - margin[i, j]), float(target[i, j]), float(weight[i, j]))
            for j in range(num_candidates)
            if known[i, j]
        ]
        for i in range(num_rows)
    ]


def positives(row):
    """Known entries with a target above 0."""
    return [e for e in row if e.target > 0]


def negatives(row):
    """Known entries with a target of exactly 0."""
    return [e for e in row if e.target == 0]


def log_sum_exp(terms):
    """Return log sum_k w_k exp(x_k) of (x_k, w_k) pairs; minus infinity for no pair."""
    terms = list(terms)
    if not terms:
        return -math.inf
    top = max(x for x, _ in terms)
    return top + math.log(math.fsum(w * math.exp(x - top) for x, w in terms))


def softplus(x):
    """Return log(1 + exp(x)) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))
