"""Closed forms: Bayes heads, decisions of least distance, denoising, descent, weights, kernels."""

import math

import numpy as np

from reference.rows import log_sum_exp, sigmoid, softplus

# --- naive Bayes -----------------------------------------------------------------------------------------


def class_statistics(features, labels, num_classes):
    """Counts, means and population variances of the classes; zeros for a class that is not there."""
    features = np.asarray(features, dtype=np.float64)
    size = features.shape[1]
    counts, means, variances = (
        [0.0] * num_classes,
        np.zeros((num_classes, size)),
        np.zeros((num_classes, size)),
    )
    for k in range(num_classes):
        rows = [x for x, y in zip(features, labels, strict=True) if int(y) == k]
        counts[k] = float(len(rows))
        for j in range(size if rows else 0):
            means[k, j] = math.fsum(x[j] for x in rows) / len(rows)
            variances[k, j] = math.fsum((x[j] - means[k, j]) ** 2 for x in rows) / len(rows)
    return counts, means, variances


def merged_statistics(old, new, *, keep=1.0):
    """C = c + c', mu = (c mu + c' mu') / C, s2 = (c s2 + c' s2' + (c c' / C)(mu - mu')^2) / C for each class.

    ``keep`` multiplies the old counts first (forgetting). A class in neither stays at zero.
    """
    counts, means, variances = [], np.zeros_like(old[1]), np.zeros_like(old[2])
    for k in range(len(old[0])):
        a, b = keep * old[0][k], new[0][k]
        whole = a + b
        counts.append(whole)
        for j in range(means.shape[1] if whole > 0.0 else 0):
            gap = old[1][k, j] - new[1][k, j]
            means[k, j] = (a * old[1][k, j] + b * new[1][k, j]) / whole
            variances[k, j] = (a * old[2][k, j] + b * new[2][k, j] + a * b / whole * gap * gap) / whole
    return counts, means, variances


def naive_bayes_linear(statistics, *, floor=1e-9, prior="empirical", shrink=0.0):
    """W_k = mu_k / v, b_k = log pi_k - (1/2) sum_j mu_kj^2 / v_j, v = sum_k (c_k / m)(s2_k + floor).

    v <- (1 - shrink) v + shrink mean(v). ``prior`` "uniform" sets pi_k = 1 / K over all K classes; v keeps
    the empirical shares. A class without examples has b = -inf under the empirical prior.
    """
    counts, means, variances = statistics
    num_classes, size = means.shape
    whole = math.fsum(counts)
    pooled = [
        math.fsum(counts[k] / whole * (variances[k, j] + floor) for k in range(num_classes))
        for j in range(size)
    ]
    pooled = _shrunk(pooled, shrink)
    weight, bias = np.zeros((num_classes, size)), []
    for k in range(num_classes):
        for j in range(size):
            weight[k, j] = means[k, j] / pooled[j]
        squares = math.fsum(means[k, j] ** 2 / pooled[j] for j in range(size))
        bias.append(_log_prior(counts, k, prior) - 0.5 * squares)
    return weight, bias


def naive_bayes_quadratic(statistics, x, *, floor=1e-9, prior="empirical", shrink=0.0):
    """log pi_k - (1/2) sum_j [log(2 pi v_kj) + (x_j - mu_kj)^2 / v_kj], v_k = s2_k + floor: scores of one x.

    ``shrink`` acts on each class's variances by themselves. A class without examples scores -inf.
    """
    counts, means, variances = statistics
    scores = []
    for k in range(len(counts)):
        if counts[k] == 0.0:
            scores.append(-math.inf)
            continue
        v = _shrunk([float(s) + floor for s in variances[k]], shrink)
        terms = [
            math.log(2.0 * math.pi * v[j]) + (float(x[j]) - means[k, j]) ** 2 / v[j] for j in range(len(v))
        ]
        scores.append(_log_prior(counts, k, prior) - 0.5 * math.fsum(terms))
    return scores


def _shrunk(values, shrink):
    mean = math.fsum(values) / len(values)
    return [(1.0 - shrink) * v + shrink * mean for v in values]


def _log_prior(counts, k, prior):
    if prior == "uniform":
        return -math.log(len(counts))
    return math.log(counts[k] / math.fsum(counts)) if counts[k] > 0.0 else -math.inf


# --- decisions of least expected distance ------------------------------------------------------------------


def frechet_decision(probabilities, distances, *, power=2.0, temperature=1.0, candidates=None):
    """argmin over v of sum_k p_k d(k, v)^power, distances (seen, all); ties to the first candidate.

    p_k^(1 / temperature) over their sum stand in the place of p.
    """
    p = [float(x) ** (1.0 / temperature) for x in probabilities]
    whole = math.fsum(p)
    candidates = range(len(distances[0])) if candidates is None else candidates
    best, least = None, math.inf
    for v in candidates:
        value = math.fsum(x / whole * float(row[v]) ** power for x, row in zip(p, distances, strict=True))
        if value < least:
            best, least = v, value
    return best


def reachable_on_grid(distances, *, steps, power=2.0):
    """Labels that ``frechet_decision`` gives for some p on the grid of the simplex with ``steps`` divisions.

    Where two labels tie, both count: a mid node of two leaves is reached at (1/2, 1/2).
    """
    found = set()
    for shares in _compositions(steps, len(distances)):
        values = [
            math.fsum(s * float(row[v]) ** power for s, row in zip(shares, distances, strict=True))
            for v in range(len(distances[0]))
        ]
        found |= {v for v, x in enumerate(values) if x <= min(values) + 1e-12}
    return sorted(found)


def _compositions(total, parts):
    if parts == 1:
        return [(total,)]
    return [(n, *rest) for n in range(total + 1) for rest in _compositions(total - n, parts - 1)]


def next_label(distances, locus):
    """argmax over labels v outside the locus of min over u in it of d(v, u), ties to the first; or None."""
    outside = [v for v in range(len(distances)) if v not in set(locus)]
    far = [min(float(distances[v][u]) for u in locus) for v in outside]
    return outside[far.index(max(far))] if outside else None


# --- denoising blocks --------------------------------------------------------------------------------------


def posterior_coefficients(alpha_bar):
    """a_t, b_t, c_t of z_t = a_t u + b_t z_{t-1} + sqrt(c_t) noise, from alpha_bar_0..alpha_bar_T.

    With r = alpha_bar_{t-1} / alpha_bar_t: a = sqrt(alpha_bar_t)(1 - r) / (1 - alpha_bar_{t-1}),
    b = sqrt(r)(1 - alpha_bar_t) / (1 - alpha_bar_{t-1}), c = (1 - alpha_bar_t)(1 - r) / (1 -
    alpha_bar_{t-1}).
    """
    out = []
    for t in range(1, len(alpha_bar)):
        before, now = alpha_bar[t - 1], alpha_bar[t]
        r, whole = before / now, 1.0 - before
        out.append(
            (
                math.sqrt(now) * (1.0 - r) / whole,
                math.sqrt(r) * (1.0 - now) / whole,
                (1.0 - now) * (1.0 - r) / whole,
            )
        )
    return out


def block_weights(alpha_bar, *, strength=0.1):
    """(T / 2) strength (SNR(t) - SNR(t - 1)) for t = 1..T, SNR = alpha_bar / (1 - alpha_bar)."""
    snr = [a / (1.0 - a) for a in alpha_bar]
    steps = len(alpha_bar) - 1
    return [0.5 * steps * strength * (snr[t] - snr[t - 1]) for t in range(1, steps + 1)]


# --- gradient descent on the logistic loss -----------------------------------------------------------------


def logistic_step(theta, rows, signs, rate):
    """theta + (rate / n) sum_i sigma_i y_i a_i, sigma_i = sigmoid(-y_i a_i . theta)."""
    sigma = [sigmoid(-m) for m in _signed_margins(theta, rows, signs)]
    return _moved(theta, rows, signs, [s / len(rows) for s in sigma], rate)


def normalised_logistic_step(theta, rows, signs, rate):
    """theta + rate sum_i w_i y_i a_i, w_i = sigma_i / sum_j sigma_j: the gradient over the mean of sigma."""
    logs = [-softplus(m) for m in _signed_margins(theta, rows, signs)]
    lse = log_sum_exp((x, 1.0) for x in logs)
    return _moved(theta, rows, signs, [math.exp(x - lse) for x in logs], rate)


def perceptron_step(theta, rows, signs):
    """theta + (1/n) sum_i u_i y_i a_i, u_i = 1 below a margin of 0, 1/2 at 0 and 0 above."""
    shares = [1.0 if m < 0.0 else 0.5 if m == 0.0 else 0.0 for m in _signed_margins(theta, rows, signs)]
    return _moved(theta, rows, signs, [u / len(rows) for u in shares], 1.0)


def error_multiplier(scores, labels):
    """1 / mean_i (1 - p_{i, y_i}) of softmax p: what the cross-entropy is multiplied with."""
    errors = []
    for row, y in zip(scores, labels, strict=True):
        others = [(float(s), 1.0) for k, s in enumerate(row) if k != int(y)]
        errors.append(math.exp(log_sum_exp(others) - log_sum_exp((float(s), 1.0) for s in row)))
    return len(errors) / math.fsum(errors)


def _signed_margins(theta, rows, signs):
    return [float(y) * _dot(a, theta) for a, y in zip(rows, signs, strict=True)]


def _moved(theta, rows, signs, shares, rate):
    return [
        float(t)
        + rate * math.fsum(w * float(y) * float(a[j]) for w, y, a in zip(shares, signs, rows, strict=True))
        for j, t in enumerate(theta)
    ]


# --- prototypes, weights, counterfactuals ------------------------------------------------------------------


def orthogonal_prototypes(embeddings, labels, prototypes):
    """(1/2)(1 - mean_i cos(h_i, c_{y_i})) + |mean over i and k != y_i of cos(h_i, c_k)|: one number."""
    own, others = [], []
    for h, y in zip(embeddings, labels, strict=True):
        for k, c in enumerate(prototypes):
            (own if k == int(y) else others).append(_cosine(h, c))
    away = abs(math.fsum(others) / len(others)) if others else 0.0
    return 0.5 * (1.0 - math.fsum(own) / len(own)) + away


def cluster_likelihood(clusters, *, noise="rare"):
    """p_i = size of i's cluster / size of the largest one. Label -1 is noise.

    noise "rare": each noise point has the size of the smallest cluster; "single": size 1; "own": all noise
    points are one more cluster. Noise alone gives 1 everywhere.
    """
    sizes = {}
    for c in clusters:
        if int(c) != -1 or noise == "own":
            sizes[int(c)] = sizes.get(int(c), 0) + 1
    if not sizes:
        return [1.0] * len(clusters)
    of_noise = {"rare": min(sizes.values()), "single": 1}.get(noise, 1)
    return [sizes.get(int(c), of_noise) / max(sizes.values()) for c in clusters]


def equity_weights(likelihood, *, floor=1.0, sharpness=5.0, rescale=False):
    """(floor + (1 - p)^sharpness) / (floor + 1); ``rescale`` divides by their mean."""
    values = [(floor + (1.0 - float(p)) ** sharpness) / (floor + 1.0) for p in likelihood]
    mean = math.fsum(values) / len(values) if rescale else 1.0
    return [v / mean for v in values]


def counterfactual_pair(anchor, positive, counterfactual, *, temperature=1.0):
    """softplus((cos(v, t_cf) - cos(v, t)) / temperature) for each row: two-way cross-entropy."""
    return [
        softplus((_cosine(v, cf) - _cosine(v, t)) / temperature)
        for v, t, cf in zip(anchor, positive, counterfactual, strict=True)
    ]


def _dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def _cosine(a, b):
    norms = math.sqrt(_dot(a, a)) * math.sqrt(_dot(b, b))
    return _dot(a, b) / norms if norms > 0.0 else 0.0


# --- wide networks as kernels ------------------------------------------------------------------------------


def arc_cosine_0(t):
    """(pi - arccos t) / pi."""
    return (math.pi - math.acos(t)) / math.pi


def arc_cosine_1(t):
    """(t (pi - arccos t) + sqrt(1 - t^2)) / pi."""
    return (t * (math.pi - math.acos(t)) + math.sqrt(max(1.0 - t * t, 0.0))) / math.pi


def hierarchical_kernel(x, z, *, patches, kind="rfk"):
    """K of two inputs: patches of ``patches[0]`` coordinates, then of ``patches[l]`` consecutive units.

    Level 1, with t the cosine of two patches: rfk |x||z| k1(t), ntk |x||z| (k1(t) + t k0(t)). Level l + 1,
    with m the mean of the units' rfk in a patch and m_T of their ntk, m cut to [-1, 1]: rfk k1(m), ntk k1(m)
    + m_T k0(m). The result is the mean over the units left. A zero patch has cosine 0 and value 0.
    """
    if len(x) % patches[0]:
        raise ValueError("patches must divide the input")
    rfk, ntk = [], []
    for start in range(0, len(x), patches[0]):
        a, b = x[start : start + patches[0]], z[start : start + patches[0]]
        t = min(max(_cosine(a, b), -1.0), 1.0)
        norms = math.sqrt(_dot(a, a)) * math.sqrt(_dot(b, b))
        rfk.append(norms * arc_cosine_1(t))
        ntk.append(norms * (arc_cosine_1(t) + t * arc_cosine_0(t)))
    for size in patches[1:]:
        if len(rfk) % size:
            raise ValueError("patches must divide the units of the level below")
        upper_rfk, upper_ntk = [], []
        for start in range(0, len(rfk), size):
            m = min(max(math.fsum(rfk[start : start + size]) / size, -1.0), 1.0)
            m_ntk = math.fsum(ntk[start : start + size]) / size
            upper_rfk.append(arc_cosine_1(m))
            upper_ntk.append(arc_cosine_1(m) + m_ntk * arc_cosine_0(m))
        rfk, ntk = upper_rfk, upper_ntk
    chosen = {"rfk": rfk, "ntk": ntk}[kind]
    return math.fsum(chosen) / len(chosen)


def kernel_matrix(first, second, *, patches, kind="rfk"):
    """``hierarchical_kernel`` of all pairs."""
    return np.array([[hierarchical_kernel(x, z, patches=patches, kind=kind) for z in second] for x in first])
