"""Losses of whole maps or sequences in [0, 1]: SSIM, IoU and the sum of three. One number a map."""

import math

import numpy as np

from reference.rows import sigmoid, softplus


def gaussian_window(window=11, sigma=1.5):
    """g_k = exp(-(k - (window - 1)/2)^2 / (2 sigma^2)), divided by their sum."""
    raw = [math.exp(-((k - (window - 1) / 2.0) ** 2) / (2.0 * sigma**2)) for k in range(window)]
    whole = math.fsum(raw)
    return [x / whole for x in raw]


def ssim_map(first, second, *, window=11, sigma=1.5, c1=0.01**2, c2=0.03**2):
    """(2 ms mg + c1)(2 vsg + c2) / ((ms^2 + mg^2 + c1)(vs + vg + c2)) everywhere; maps (H, W) or (L,).

    ms, mg are means under the Gaussian window, vs = E[S^2] - ms^2, vsg = E[S G] - ms mg. Outside the map both
    are zero (padding window // 2; the window is not renormalised at the border).
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    out = np.zeros(first.shape)
    for place in np.ndindex(first.shape):
        sums = [0.0] * 5
        for w, a, b in _around(first, second, place, gaussian_window(window, sigma)):
            for k, x in enumerate((a, b, a * a, b * b, a * b)):
                sums[k] += w * x
        ms, mg, ss, gg, sg = sums
        above = (2.0 * ms * mg + c1) * (2.0 * (sg - ms * mg) + c2)
        below = (ms * ms + mg * mg + c1) * ((ss - ms * ms) + (gg - mg * mg) + c2)
        out[place] = above / below
    return out


def _around(first, second, place, g):
    """Yield (window weight, first's value, second's value) of the places inside the map around ``place``."""
    half = len(g) // 2
    for offset in np.ndindex((len(g),) * first.ndim):
        at = tuple(p + o - half for p, o in zip(place, offset, strict=True))
        if all(0 <= x < size for x, size in zip(at, first.shape, strict=True)):
            yield math.prod(g[o] for o in offset), float(first[at]), float(second[at])


def ssim_loss(predicted, target, *, window=11, sigma=1.5):
    """1 - mean of ``ssim_map`` for each pair of maps of a batch (B, H, W) or (B, L)."""
    pairs = zip(predicted, target, strict=True)
    return [1.0 - float(np.mean(ssim_map(s, g, window=window, sigma=sigma))) for s, g in pairs]


def iou_loss(predicted, target, *, smoothing=0.0):
    """1 - (sum S G + smoothing) / (sum S + sum G - sum S G + smoothing) for each map; two empty maps give 0.

    Smoothing stands above and below, so that equal binary maps give 0.
    """
    values = []
    for s, g in zip(predicted, target, strict=True):
        pairs = _pairs(s, g)
        both = math.fsum(a * b for a, b in pairs)
        whole = math.fsum(a for a, _ in pairs) + math.fsum(b for _, b in pairs) - both
        below = whole + smoothing
        values.append(1.0 - (both + smoothing) / below if below > 0.0 else 0.0)
    return values


def iou_loss_guarded(predicted, target, *, guard):
    """1 - sum S G / (sum S + sum G - sum S G + guard) for each map: the guard below the line alone."""
    values = []
    for s, g in zip(predicted, target, strict=True):
        pairs = _pairs(s, g)
        both = math.fsum(a * b for a, b in pairs)
        values.append(1.0 - both / (math.fsum(a + b - a * b for a, b in pairs) + guard))
    return values


def pixel_loss(scores, target):
    """Mean over the places of a map of softplus(s) - g s, which is BCE of sigmoid(s): one number a map."""
    values = []
    for s, g in zip(scores, target, strict=True):
        pairs = _pairs(s, g)
        values.append(math.fsum(softplus(a) - b * a for a, b in pairs) / len(pairs))
    return values


def hybrid(scores, target, *, bce=1.0, ssim=1.0, iou=1.0, smoothing=0.0, guard=None, window=11, sigma=1.5):
    """bce * BCE + ssim * (1 - SSIM) + iou * IoU loss for each map, of S = sigmoid(scores).

    ``guard`` a number takes ``iou_loss_guarded`` in the place of ``iou_loss``.
    """
    scores = np.asarray(scores, dtype=np.float64)
    predicted = np.zeros(scores.shape)
    for place in np.ndindex(scores.shape):
        predicted[place] = sigmoid(float(scores[place]))
    by_iou = (
        iou_loss(predicted, target, smoothing=smoothing)
        if guard is None
        else iou_loss_guarded(predicted, target, guard=guard)
    )
    by_ssim = ssim_loss(predicted, target, window=window, sigma=sigma)
    parts = zip(pixel_loss(scores, target), by_ssim, by_iou, strict=True)
    return [bce * a + ssim * b + iou * c for a, b, c in parts]


def deep_supervision(outputs, target, *, weights=None, **options):
    """sum_k alpha_k hybrid(output k, target) for each map; all weights 1 unless given."""
    weights = [1.0] * len(outputs) if weights is None else weights
    parts = [hybrid(output, target, **options) for output in outputs]
    return [
        math.fsum(a * part[b] for a, part in zip(weights, parts, strict=True)) for b in range(len(parts[0]))
    ]


def _pairs(s, g):
    s, g = np.asarray(s, dtype=np.float64), np.asarray(g, dtype=np.float64)
    return [(float(s[place]), float(g[place])) for place in np.ndindex(s.shape)]
