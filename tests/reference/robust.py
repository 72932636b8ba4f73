"""Label-distributionally robust losses (LDR-KL, ALDR-KL) and the slopes of EnsLoss.

For a row with exactly one positive y and K known candidates, v_k = f_k - f_y + c [k != y], c = ``margin_c``.
Entry weights multiply exp(v_k / lambda); K stays the count of known candidates, and f_y is the plain score of
the positive (its grade plays no part). A row without a positive gives exactly 0.
"""

import math

from reference.rows import Entry, log_sum_exp, positives, read_rows, softplus


def ldr_kl(scores, target, known, weight, margin, *, lam, margin_c=0.0):
    """Return lam log((1/K) sum_k w_k exp(v_k / lam)), the soft maximum of v."""
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        values.append(_soft_maximum(_differences(row, margin_c), lam) if positives(row) else 0.0)
    return values


def aldr_kl(
    scores, target, known, weight, margin, *, lam0, alpha, margin_c=0.0, normalise=None, iterations=500
):
    """Evaluate a bracket, a function of lam, at the fixed point of lam reached from lam0.

    bracket(lam) = lam log((1/K) sum w exp(v / lam)) - (alpha log K / (2 lam0)) (lam - lam0)^2
    The step is lam <- lam0 (1 - KL / (alpha log K)), with p_k in proportion to w_k exp(v_k / lam) and
    KL = sum_k p_k log(K p_k / w_k), which is KL(p || 1/K) for unit weights.
    The step grows with lam, so with unit weights the sequence falls to the LARGEST fixed point. The bracket
    is not concave in lam (its first term is convex): a smaller fixed point may exist, and the bracket may be
    higher there. ``aldr_kl_grid`` finds the maximum.
    ``normalise`` acts after the margin of the targets and before ``margin_c``: see ``_normalised``.
    """
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not positives(row):
            values.append(0.0)
            continue
        v = _differences(_normalised(row, normalise), margin_c)
        lam = lam0
        for _ in range(iterations):
            lam = _fixed_point_step(v, lam, lam0, alpha)
        values.append(_bracket(v, lam, lam0, alpha))
    return values


def aldr_kl_grid(
    scores, target, known, weight, margin, *, lam0, alpha, margin_c=0.0, normalise=None, points=400
):
    """Maximise the bracket of ``aldr_kl`` over lam in [lam0 / 1000, 2 lam0] by a grid refined six times."""
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        if not positives(row):
            values.append(0.0)
            continue
        v = _differences(_normalised(row, normalise), margin_c)
        low, high = 1e-3 * lam0, 2.0 * lam0
        best = lam0
        for _ in range(6):
            step = (high - low) / points
            grid = [low + n * step for n in range(points + 1)]
            best = max(grid, key=lambda lam, v=v: _bracket(v, lam, lam0, alpha))
            low, high = max(best - 2.0 * step, 1e-3 * lam0), best + 2.0 * step
        values.append(_bracket(v, best, lam0, alpha))
    return values


def aldr_kl_memory_step(
    scores_row,
    target_row,
    lam_prev,
    *,
    lam0,
    alpha,
    margin_c=0.0,
    normalise=None,
    known_row=None,
    weight_row=None,
):
    """One fixed-point step from the stored lambda: returns (new lambda, bracket at the new lambda).

    The step is that of ``aldr_kl``, ``margin_c`` included. Any margin of the targets is off ``scores_row``.
    """
    known_row = [True] * len(scores_row) if known_row is None else known_row
    row = read_rows([scores_row], [target_row], [known_row], None if weight_row is None else [weight_row])[0]
    if not positives(row):
        return lam_prev, 0.0
    v = _differences(_normalised(row, normalise), margin_c)
    lam = _fixed_point_step(v, lam_prev, lam0, alpha)
    return lam, _bracket(v, lam, lam0, alpha)


def ens_loss_coefficients(margins_row_values, draws, *, lam, clip=1.0):
    """Give the slopes of EnsLoss at the margins s_i = y_i f_i, from given standard normal draws.

    r = exp(draw) for lam = 0, else max(1 + lam draw, 0)^(1/lam) (infinite for a zero base and lam < 0);
    the ascending values of max(-r, -clip) go to the margins in ascending order (ties by position);
    slopes of margins above 1 are divided by the margin; 1e-6 is taken off every slope.
    """
    raw = sorted(max(-_inverse_box_cox(float(z), lam), -clip) for z in draws)
    order = sorted(range(len(margins_row_values)), key=lambda i: (float(margins_row_values[i]), i))
    slopes = [0.0] * len(order)
    for g, i in zip(raw, order, strict=True):
        s = float(margins_row_values[i])
        slopes[i] = (g / s if s > 1.0 else g) - 1e-6
    return slopes


def _inverse_box_cox(z, lam):
    if lam == 0.0:
        return math.exp(z)
    base = max(1.0 + lam * z, 0.0)
    if base == 0.0:
        return 0.0 if lam > 0 else math.inf
    return base ** (1.0 / lam)


def _normalised(row, normalise):
    """None: f. "l1": f / mean |f|. "softplus": softplus(f) / mean softplus(f). Plain means over the known."""
    if normalise is None:
        return row
    if normalise == "l1":
        values = [e.score for e in row]
    elif normalise == "softplus":
        values = [softplus(e.score) for e in row]
    else:
        raise ValueError(f"normalise must be None, 'l1' or 'softplus', not {normalise!r}")
    scale = math.fsum(abs(x) for x in values) / len(values)
    scale = scale if scale > 0.0 else 1.0
    return [Entry(e.index, x / scale, e.target, e.weight) for e, x in zip(row, values, strict=True)]


def _differences(row, margin_c):
    """Pairs (v_k, w_k)."""
    (positive,) = positives(row)
    return [
        (e.score - positive.score + (0.0 if e.index == positive.index else margin_c), e.weight) for e in row
    ]


def _soft_maximum(v, lam):
    return lam * (log_sum_exp((x / lam, w) for x, w in v) - math.log(len(v)))


def _divergence(v, lam):
    """sum_k p_k log(K p_k / w_k) = sum_k p_k (log K + v_k / lam - lse)."""
    lse = log_sum_exp((x / lam, w) for x, w in v)
    return math.fsum(w * math.exp(x / lam - lse) * (math.log(len(v)) + x / lam - lse) for x, w in v)


def _fixed_point_step(v, lam, lam0, alpha):
    if len(v) == 1:
        return lam0
    new = lam0 * (1.0 - _divergence(v, lam) / (alpha * math.log(len(v))))
    if new <= 0.0:
        raise ValueError("entry weights this uneven leave no positive lambda")
    return new


def _bracket(v, lam, lam0, alpha):
    return _soft_maximum(v, lam) - alpha * math.log(len(v)) / (2.0 * lam0) * (lam - lam0) ** 2
