"""Losses of embeddings and labels."""

import math

import numpy as np

NEGATIVE_TERMS = {
    "abs_mean": (lambda x: x, abs),
    "mean": (lambda x: x, lambda x: x),
    "mean_abs": (abs, lambda x: x),
    "mean_square": (lambda x: x * x, lambda x: x),
}


def orthogonal_projection(embeddings, labels, *, gamma, neg="abs_mean"):
    """(1 - s) + gamma n over ordered pairs i != j of the batch: one number.

    G_ij is the cosine of the two embeddings; s = sum G_ij / (number + 1e-6) over pairs of one label. n runs
    over pairs of two labels, divided the same way: abs_mean |mean G|, mean (mean G), mean_abs (mean |G|),
    mean_square (mean G^2).
    Without a pair of one label s is 0. A zero embedding has cosine 0 to everything.
    """
    embeddings = np.asarray(embeddings, dtype=np.float64)
    inner, outer = NEGATIVE_TERMS[neg]
    same, different = [], []
    for i in range(len(embeddings)):
        for j in range(len(embeddings)):
            if i != j:
                cosine = _cosine(embeddings[i], embeddings[j])
                (same if labels[i] == labels[j] else different).append(cosine)
    within = math.fsum(same) / (len(same) + 1e-6)
    between = outer(math.fsum(inner(x) for x in different) / (len(different) + 1e-6))
    return (1.0 - within) + gamma * between


def _cosine(x, y):
    dot = math.fsum(float(a) * float(b) for a, b in zip(x, y, strict=True))
    norms = [math.sqrt(math.fsum(float(a) ** 2 for a in z)) for z in (x, y)]
    return dot / (norms[0] * norms[1]) if min(norms) > 0.0 else 0.0
