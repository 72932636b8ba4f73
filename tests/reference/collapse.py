"""Neural collapse: how near a last layer is to its final geometry, and which minorities vanish."""

import math

import numpy as np


def class_means(features, labels, num_classes):
    """Means of the classes (K, d); every class needs an example."""
    features = np.asarray(features, dtype=np.float64)
    means = np.zeros((num_classes, features.shape[1]))
    for k in range(num_classes):
        rows = [x for x, y in zip(features, labels, strict=True) if int(y) == k]
        means[k] = sum(rows) / len(rows)
    return means


def neural_collapse(features, labels, weight, bias=None):
    """Return NC1..NC4 and GOF as a dict; M = class means, h_G = mean of all features, C = M - h_G.

    nc1 = (1/K) tr(S_W S_B^+), S_W = mean over samples of (h - M_y)(h - M_y)', S_B = (1/K) sum_k C_k C_k'.
    nc2_etf = | C C' / |C C'| - (I - 1 1'/K) / sqrt(K - 1) |, nc2_of = | M M' / |M M'| - I / sqrt K |.
    nc3_etf, nc3_of: the same with W C' and W M'. nc4: share of samples whose argmax of W h + b is not the
    nearest class mean (ties to the lower class). gof = 1 - |diag M M'|^2 / |M M'|^2. All norms are Frobenius.
    """
    features, weight = np.asarray(features, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    num_classes = len(weight)
    bias = np.zeros(num_classes) if bias is None else np.asarray(bias, dtype=np.float64)
    means = class_means(features, labels, num_classes)
    centred = means - sum(features) / len(features)
    size = features.shape[1]
    within, between = np.zeros((size, size)), np.zeros((size, size))
    wrong = 0
    for h, y in zip(features, labels, strict=True):
        gap = h - means[int(y)]
        within += np.outer(gap, gap) / len(features)
        scores = [float(w @ h) + float(b) for w, b in zip(weight, bias, strict=True)]
        far = [float((h - m) @ (h - m)) for m in means]
        wrong += scores.index(max(scores)) != far.index(min(far))
    for c in centred:
        between += np.outer(c, c) / num_classes
    etf = (np.eye(num_classes) - 1.0 / num_classes) / math.sqrt(num_classes - 1.0)
    frame = np.eye(num_classes) / math.sqrt(num_classes)
    gram = means @ means.T
    return {
        "nc1": float(np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True))) / num_classes,
        "nc2_etf": _distance(centred @ centred.T, etf),
        "nc2_of": _distance(gram, frame),
        "nc3_etf": _distance(weight @ centred.T, etf),
        "nc3_of": _distance(weight @ means.T, frame),
        "nc4": wrong / len(features),
        "gof": 1.0 - float(sum(gram[k, k] ** 2 for k in range(num_classes))) / _norm(gram) ** 2,
    }


def predicted_output(count, num_samples, weight_decays, feature_decay):
    """x >= 0 that minimises (n/2N)(x - 1)^2 + ((M+1)/2) (n lam_H prod lam_j x^2)^(1/(M+1)), by a grid.

    A minimum away from 0 is kept only where it is strictly below the value n/2N at 0. One layer has the
    closed form max(0, 1 - N sqrt(lam_W lam_H / n)), see ``predicted_output_of_one_layer``.
    """
    depth = len(weight_decays)
    c = count * feature_decay * math.prod(weight_decays)

    def phi(x):
        cost = 0.5 * (depth + 1) * (c * x * x) ** (1.0 / (depth + 1))
        return count / (2.0 * num_samples) * (x - 1.0) ** 2 + cost

    low, high, points = 0.0, 1.0, 2000
    best = 0.0
    for _ in range(8):
        step = (high - low) / points
        best = min((low + n * step for n in range(points + 1)), key=phi)
        low, high = max(best - 2.0 * step, 0.0), min(best + 2.0 * step, 1.0)
    return best if phi(best) < phi(0.0) and best > 1e-9 else 0.0


def predicted_output_of_one_layer(count, num_samples, weight_decay, feature_decay):
    """max(0, 1 - N sqrt(lam_W lam_H / n)): 0 if and only if n <= N^2 lam_W lam_H."""
    return max(0.0, 1.0 - num_samples * math.sqrt(weight_decay * feature_decay / count))


def predicted_collapse(counts, weight_decays, feature_decay):
    """For each class a dict: output x, squared factor of each layer t / lam_j, squared feature t / (n lam_H).

    t = (n lam_H prod lam_j x^2)^(1/(M+1)), the value that all factors share.
    """
    out = []
    for n in counts:
        x = predicted_output(n, sum(counts), weight_decays, feature_decay)
        t = (n * feature_decay * math.prod(weight_decays) * x * x) ** (1.0 / (len(weight_decays) + 1))
        layers = [t / decay for decay in weight_decays]
        out.append({"output": x, "layers": layers, "feature": t / (n * feature_decay), "collapsed": x == 0.0})
    return out


def _distance(matrix, goal):
    return _norm(matrix / _norm(matrix) - goal)


def _norm(matrix):
    return math.sqrt(math.fsum(float(x) ** 2 for x in matrix.ravel()))
