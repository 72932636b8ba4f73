"""Ordered classes: the cumulative cross-entropy, the head of nested classes, soft Dice of nested regions."""

import math

from reference.rows import log_sum_exp, positives, read_rows, sigmoid, softplus


def cumulative_cross_entropy(
    scores, target, known, weight, margin, *, level_weight=None, divide="levels", normalised=True
):
    """mean over levels c of -v_c [q_c log f_c + (1 - q_c) log(1 - f_c)], f_c = P(class >= c), q_c = Y(>= c).

    f_c is the softmax mass of the known classes from c on (entry weights multiply exp(score)); q_c the share
    of the row's mass w t that lies at c or above, so graded targets give the expectation over their classes.
    The levels are the known classes but for the lowest one; ``level_weight[c - 1]`` is v_c. ``divide`` is by
    the number of levels ("levels": weights multiply) or by sum v_c ("weights"). ``normalised=False``
    multiplies the row by its mass sum w t (1 for a plain class). Rows without a positive or without a level
    give 0.
    """
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not positives(row) or len(row) < 2:
            values.append(0.0)
            continue
        mass = math.fsum(e.weight * e.target for e in row)
        lse = log_sum_exp((e.score, e.weight) for e in row)
        total, divisor = [], []
        for n in range(1, len(row)):
            log_above = log_sum_exp((e.score, e.weight) for e in row[n:]) - lse
            log_below = log_sum_exp((e.score, e.weight) for e in row[:n]) - lse
            above = math.fsum(e.weight * e.target for e in row[n:]) / mass
            v = 1.0 if level_weight is None else float(level_weight[row[n].index - 1])
            total.append(-v * (above * log_above + (1.0 - above) * log_below))
            divisor.append(1.0 if divide == "levels" else v)
        value = math.fsum(total) / math.fsum(divisor)
        values.append(value if normalised else value * mass)
    return values


def cumulative_dice(scores, target, known, weight, margin=None, *, smoothing=1.0, square=True):
    """sum over levels c of the soft Dice loss of f_c against q_c down the column of level c: one number.

    f_c and q_c as in ``cumulative_cross_entropy``, both plain (no entry weights in them); the weight of the
    entry of class c multiplies what a row adds to the sums of level c. Rows without a positive are left out.
    """
    levels = {}
    for row in read_rows(scores, target, known, weight, margin):
        mass = math.fsum(e.target for e in row)
        if mass == 0.0:
            continue
        lse = log_sum_exp((e.score, 1.0) for e in row)
        for n in range(1, len(row)):
            f = math.exp(log_sum_exp((e.score, 1.0) for e in row[n:]) - lse)
            q = math.fsum(e.target for e in row[n:]) / mass
            levels.setdefault(row[n].index, []).append((f, q, row[n].weight))
    return math.fsum(soft_dice(items, smoothing, square) for items in levels.values())


def nested_survival(x, thresholds, steepness):
    """f_c = sigmoid(steepness (x - b_c)) = P(level >= c) for each x: a list of C numbers an item."""
    return [[sigmoid(steepness * (float(v) - float(b))) for b in thresholds] for v in x]


def nested_activation(x, thresholds, steepness):
    """(1/C) sum_c f_c, the staircase."""
    return [math.fsum(f) / len(f) for f in nested_survival(x, thresholds, steepness)]


def nested_probabilities(x, thresholds, steepness):
    """P_0 = 1 - f_1, P_c = f_c - f_{c+1}, P_C = f_C: a list of C + 1 numbers an item."""
    values = []
    for f in nested_survival(x, thresholds, steepness):
        edges = [1.0, *f, 0.0]
        values.append([edges[c] - edges[c + 1] for c in range(len(f) + 1)])
    return values


def nested_log_probabilities(x, thresholds, steepness):
    """Logarithms of ``nested_probabilities`` that keep their digits where the probabilities vanish.

    With u = k (x - b_c) > v = k (x - b_{c+1}): f_c - f_{c+1} = sigmoid(u) sigmoid(-v) (1 - exp(v - u)).
    """
    values = []
    for x_i in x:
        z = [steepness * (float(x_i) - float(b)) for b in thresholds]
        logs = [-softplus(z[0])]
        for c in range(len(z) - 1):
            u, v = z[c], z[c + 1]
            logs.append(-softplus(-u) - softplus(v) + math.log(-math.expm1(v - u)))
        logs.append(-softplus(-z[-1]))
        values.append(logs)
    return values


def nested_levels(x, thresholds):
    """sum_c 1[x > b_c]."""
    return [sum(float(v) > float(b) for b in thresholds) for v in x]


def nested_cumulative(x, levels, thresholds, steepness, *, level_weight=None):
    """For each item, -(1/C) sum_c v_c [1(y >= c) log f_c + 1(y < c) log(1 - f_c)], c = 1..C."""
    values = []
    for x_i, y in zip(x, levels, strict=True):
        total = []
        for c, b in enumerate(thresholds, start=1):
            z = steepness * (float(x_i) - float(b))
            v = 1.0 if level_weight is None else float(level_weight[c - 1])
            total.append(v * (softplus(-z) if y >= c else softplus(z)))
        values.append(math.fsum(total) / len(total))
    return values


def nested_dice(survival, levels, *, weight=None, smoothing=1.0, square=True):
    """sum_c of the soft Dice loss of f_c (column c of ``survival``) against 1(y >= c): one number."""
    total = []
    for c in range(1, len(survival[0]) + 1):
        items = []
        for i, y in enumerate(levels):
            w = 1.0 if weight is None else float(weight[i])
            items.append((float(survival[i][c - 1]), 1.0 if y >= c else 0.0, w))
        total.append(soft_dice(items, smoothing, square))
    return math.fsum(total)


def soft_dice(items, smoothing, square):
    """1 - (2 sum w f q + smoothing) / (sum w f^e + sum w q^e + smoothing) over items (f, q, w)."""
    power = 2 if square else 1
    both = math.fsum(w * f * q for f, q, w in items)
    whole = math.fsum(w * (f**power + q**power) for f, q, w in items)
    return 1.0 - (2.0 * both + smoothing) / (whole + smoothing) if whole + smoothing > 0.0 else 0.0
