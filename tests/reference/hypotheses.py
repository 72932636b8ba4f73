"""Several answers to one question: the loss of the best head, and its soft forms."""

import math

import numpy as np

from reference.rows import log_sum_exp


def head_losses(outputs, target, *, base="mse"):
    """Losses l[b][h] of every head. outputs (B, H, ...), target (B, ...).

    mse: mean over all other places of (x_hat - x)^2. psnr: (10 / ln 10) log(mse + 1e-8), which is minus the
    PSNR of values in [0, 1]. ce: -sum_k t_k log softmax(x_hat)_k for outputs (B, H, K) and target (B, K).
    """
    outputs, target = np.asarray(outputs, dtype=np.float64), np.asarray(target, dtype=np.float64)
    table = []
    for b in range(len(outputs)):
        row = []
        for h in range(outputs.shape[1]):
            mine, truth = outputs[b, h].ravel(), target[b].ravel()
            row.append(_base_loss(mine, truth, base))
        table.append(row)
    return table


def _base_loss(mine, truth, base):
    if base == "ce":
        lse = log_sum_exp((float(x), 1.0) for x in mine)
        return math.fsum(float(t) * (lse - float(x)) for x, t in zip(mine, truth, strict=True))
    mean = math.fsum((float(x) - float(t)) ** 2 for x, t in zip(mine, truth, strict=True)) / len(mine)
    if base == "psnr":
        return 10.0 / math.log(10.0) * math.log(mean + 1e-8)
    if base == "mse":
        return mean
    raise ValueError(f"base must be 'mse', 'psnr' or 'ce', not {base!r}")


def multiplexed(outputs):
    """All n (n + 1) / 2 outputs (o_i + o_j) / 2, j <= i: (0,0), (1,0), (1,1), (2,0), ... as heads."""
    outputs = np.asarray(outputs, dtype=np.float64)
    pairs = [(i, j) for i in range(outputs.shape[1]) for j in range(i + 1)]
    return np.stack([(outputs[:, i] + outputs[:, j]) / 2.0 for i, j in pairs], axis=1)


def min_over_heads(outputs, target, *, base="mse", relax=0.0, temperature=None, multiplex=False):
    """For each row sum_h u_h l_h: u is 1 - relax for the best head and relax / (H - 1) for each other.

    relax = 0 is min_h l_h; ties go to the first head; one head alone has u = 1. With a ``temperature`` T,
    u = softmax(-l / T) instead. All of it acts on the heads' base losses, the psnr form included (for the
    minimum that is the same as the logarithm of the smallest mse).
    """
    outputs = multiplexed(outputs) if multiplex else outputs
    values = []
    for row in head_losses(outputs, target, base=base):
        weights = head_weights(row, relax=relax, temperature=temperature)
        values.append(math.fsum(u * x for u, x in zip(weights, row, strict=True)))
    return values


def head_weights(row, *, relax=0.0, temperature=None):
    """Weights u of ``min_over_heads`` for the losses of one row; they add up to 1."""
    if temperature is not None:
        lse = log_sum_exp((-x / temperature, 1.0) for x in row)
        return [math.exp(-x / temperature - lse) for x in row]
    if len(row) == 1:
        return [1.0]
    best = row.index(min(row))
    return [1.0 - relax if h == best else relax / (len(row) - 1) for h in range(len(row))]


def win_counts(outputs, target, *, base="mse"):
    """How many rows each head is the best of (ties to the first)."""
    table = head_losses(outputs, target, base=base)
    counts = [0] * len(table[0])
    for row in table:
        counts[row.index(min(row))] += 1
    return counts
