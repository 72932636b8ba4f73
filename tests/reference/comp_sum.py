"""Comp-sum losses beyond softmax.py: their infimum, their bound and their smooth adversarial form."""

import math

import numpy as np

from reference.softmax import phi_tau


def phi(u, tau):
    """Phi_tau(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau), and log(1 + u) at tau = 1."""
    return phi_tau(u, tau)


def infimum(q, tau):
    """inf over scores of sum_k q_k ell_tau(k) for one label distribution q.

    tau = 1: -sum q log q. tau = 2: 1 - max q. Else ((sum q^(1/(2-tau)))^(2-tau) - 1) / (1 - tau), 0 <= tau <
    2.
    """
    q = [float(x) for x in q]
    if tau == 1.0:
        return -math.fsum(x * math.log(x) for x in q if x > 0.0)
    if tau == 2.0:
        return 1.0 - max(q)
    power = 1.0 / (2.0 - tau)
    return (math.fsum(x**power for x in q) ** (2.0 - tau) - 1.0) / (1.0 - tau)


def minimizability_gap(best_in_class, distributions, tau):
    """best_in_class - mean over x of ``infimum``(q(x), tau)."""
    return best_in_class - math.fsum(infimum(q, tau) for q in distributions) / len(distributions)


def recalibrated(p, tau):
    """q_k = p_k^(2 - tau) / sum_j p_j^(2 - tau): what labels have p as minimiser, 0 <= tau < 2."""
    raw = [float(x) ** (2.0 - tau) for x in p]
    return [x / math.fsum(raw) for x in raw]


def transformation(t, tau, num_classes):
    """T_tau(t): zero-one excess t is at most T_tau^{-1}(surrogate excess), 0 <= t <= 1, 0 <= tau <= 2.

    With A = (((1+t)^(1/(2-tau)) + (1-t)^(1/(2-tau))) / 2)^(2-tau):
    tau < 1: 2^(1-tau) / (1-tau) (1 - A); tau = 1: ((1+t) log(1+t) + (1-t) log(1-t)) / 2;
    1 < tau < 2: (A - 1) / ((tau - 1) n^(tau-1)); tau = 2: t / n.
    """
    if tau == 2.0:
        return t / num_classes
    if tau == 1.0:
        return 0.5 * math.fsum(x * math.log(x) for x in (1.0 + t, 1.0 - t) if x > 0.0)
    power = 1.0 / (2.0 - tau)
    a = (((1.0 + t) ** power + (1.0 - t) ** power) / 2.0) ** (2.0 - tau)
    if tau < 1.0:
        return 2.0 ** (1.0 - tau) / (1.0 - tau) * (1.0 - a)
    return (a - 1.0) / ((tau - 1.0) * num_classes ** (tau - 1.0))


def transformation_inverse(value, tau, num_classes):
    """t in [0, 1] with T_tau(t) = value, by bisection; 1 where value is above T_tau(1)."""
    if value >= transformation(1.0, tau, num_classes):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if transformation(middle, tau, num_classes) < value else (low, middle)
    return 0.5 * (low + high)


def margin_rows(weight, label):
    """Rows w_y - w_k for k != y: the linear map from x to the margins of label y."""
    weight = np.asarray(weight, dtype=np.float64)
    return np.stack([weight[label] - weight[k] for k in range(len(weight)) if k != label])


def largest_stretch(weight, label, radius):
    """sup over |x' - x|_2 <= radius of |margins(x') - margins(x)|_2 = radius * largest singular value."""
    rows = margin_rows(weight, label)
    return radius * math.sqrt(max(float(np.linalg.eigvalsh(rows.T @ rows)[-1]), 0.0))


def smooth_adversarial(weight, bias, x, label, *, tau, rho, nu, radius):
    """Phi_tau(sum_{k != y} exp(-(h_y - h_k) / rho)) + nu ``largest_stretch``, one example, h = W x + b."""
    h = [math.fsum(float(a) * float(b) for a, b in zip(row, x, strict=True)) for row in weight]
    h = [a + float(b) for a, b in zip(h, bias, strict=True)]
    u = math.fsum(math.exp(-(h[label] - h[k]) / rho) for k in range(len(h)) if k != label)
    return phi_tau(u, tau) + nu * largest_stretch(weight, label, radius)
