"""Losses where only the mean answer of a bag is known, and the least squares of a linear model."""

import math

import numpy as np

from reference.rows import log_sum_exp


def bag_loss(outputs, bag_index, bag_targets, *, base):
    """mean over bags a of ell(ybar_a, mean of the predictions in a)."""
    values = []
    for members, truth in _bags(outputs, bag_index, bag_targets, base):
        middle = [math.fsum(column) / len(members) for column in zip(*members, strict=True)]
        values.append(_loss(truth, middle, base))
    return math.fsum(values) / len(values)


def instance_loss(outputs, bag_index, bag_targets, *, base):
    """mean over bags a of the mean over members i of ell(ybar_a, prediction of i)."""
    values = []
    for members, truth in _bags(outputs, bag_index, bag_targets, base):
        values.append(math.fsum(_loss(truth, p, base) for p in members) / len(members))
    return math.fsum(values) / len(values)


def interpolated_loss(outputs, bag_index, bag_targets, *, base, rho):
    """(1 - rho) bag_loss + rho instance_loss.

    base "mse": sum over the outputs of (y - f)^2. base "ce": outputs are class scores, predictions softmax
    probabilities and ell = -sum_c y_c log p_c. Bags without a member do not count.
    """
    whole = bag_loss(outputs, bag_index, bag_targets, base=base)
    return (1.0 - rho) * whole + rho * instance_loss(outputs, bag_index, bag_targets, base=base)


def within_bag_variance(outputs, bag_index, bag_targets):
    """mean over bags of the population variance of the outputs in the bag, summed over the outputs."""
    values = []
    for members, _ in _bags(outputs, bag_index, bag_targets, "mse"):
        for column in zip(*members, strict=True):
            mean = math.fsum(column) / len(members)
            values.append(math.fsum((x - mean) ** 2 for x in column) / len(members))
    return math.fsum(values) / len({int(a) for a in bag_index})


def linear_solution(features, bag_index, bag_targets, *, rho):
    """(xbar' xbar / m + rho Xc' Xc / n)^+ xbar' ybar / m; xbar bag means, Xc = X less its bag's mean.

    The pseudo-inverse gives the solution of least norm at rho = 0 with fewer bags than features. It minimises
    ``interpolated_loss`` of squared error where all bags are of one size.
    """
    features = np.asarray(features, dtype=np.float64)
    size, n = features.shape[1], len(features)
    bags = sorted({int(a) for a in bag_index})
    left, right = np.zeros((size, size)), np.zeros(size)
    for a in bags:
        rows = [features[i] for i in range(n) if int(bag_index[i]) == a]
        mean = sum(rows) / len(rows)
        left += np.outer(mean, mean) / len(bags)
        right += mean * float(bag_targets[a]) / len(bags)
        for row in rows:
            left += rho * np.outer(row - mean, row - mean) / n
    return np.linalg.pinv(left, rcond=1e-10, hermitian=True) @ right


def _bags(outputs, bag_index, bag_targets, base):
    """(predictions of the members, target), both as lists of numbers, for each bag that has a member."""
    outputs, targets = np.asarray(outputs, dtype=np.float64), np.asarray(bag_targets, dtype=np.float64)
    outputs = outputs.reshape(len(outputs), -1)
    targets = targets.reshape(len(targets), -1)
    for a in range(len(targets)):
        members = [[float(x) for x in outputs[i]] for i in range(len(outputs)) if int(bag_index[i]) == a]
        if base == "ce":
            members = [_softmax(row) for row in members]
        if members:
            yield members, [float(x) for x in targets[a]]


def _softmax(row):
    lse = log_sum_exp((x, 1.0) for x in row)
    return [math.exp(x - lse) for x in row]


def _loss(truth, prediction, base):
    pairs = list(zip(truth, prediction, strict=True))
    if base == "mse":
        return math.fsum((y - f) ** 2 for y, f in pairs)
    if base == "ce":
        return -math.fsum(y * math.log(p) for y, p in pairs if y > 0.0)
    raise ValueError(f"base must be 'mse' or 'ce', not {base!r}")
