"""Overlap losses beyond counts.py: self-adjusting Dice, Tversky, soft IoU, running counts, mixtures. Numbers.

p = sigmoid(s), or the plain softmax over the row's known entries. ``weight`` is entry weight times row weight
and multiplies what an item adds to a count (or its own loss, in the per-example forms). "macro" is the mean
of the losses of the columns with a known positive, "micro" pools the items of all columns; no known positive
anywhere gives 0. ``ohem_ratio`` r > 0 keeps, in every column, its positives and the min(int(n_pos r), n_neg)
negatives of highest p (ties to the earlier row; n_pos counts items, unweighted; 0 keeps no negative).
"""

import math
from dataclasses import dataclass

from reference.counts import confusion_metric
from reference.rows import log_sum_exp, read_rows, sigmoid, softplus


@dataclass(frozen=True)
class Item:
    """One known entry of one column."""

    column: int
    score: float
    p: float
    t: float
    w: float


def dsc_batch(
    scores,
    target,
    known,
    weight,
    *,
    alpha=0.0,
    smoothing=1.0,
    square=True,
    average="macro",
    link="sigmoid",
    ohem_ratio=0.0,
):
    """1 - (2 sum w v t + smoothing) / (sum w (v^e + t^e) + smoothing), v = (1 - p)^alpha p, e = 2 or 1."""
    power = 2 if square else 1

    def loss(items):
        both = math.fsum(i.w * adjusted(i.p, alpha) * i.t for i in items)
        whole = math.fsum(i.w * (adjusted(i.p, alpha) ** power + i.t**power) for i in items)
        return _one_minus_ratio(2.0 * both + smoothing, whole + smoothing)

    return _averaged(_pools(scores, target, known, weight, average, link, ohem_ratio), loss)


def dsc_example(
    scores,
    target,
    known,
    weight,
    *,
    alpha=1.0,
    smoothing=1.0,
    square=False,
    average="macro",
    link="sigmoid",
    ohem_ratio=0.0,
    need_positive=True,
):
    """Weighted mean over items of 1 - (2 v t + smoothing) / (v^e + t^e + smoothing), v = (1 - p)^alpha p.

    The mean is sum w loss / sum w. ``need_positive=False`` lets columns of negatives alone count as well, for
    an item's loss stands by itself.
    """
    power = 2 if square else 1

    def term(i):
        v = adjusted(i.p, alpha)
        return _one_minus_ratio(2.0 * v * i.t + smoothing, v**power + i.t**power + smoothing)

    pools = _pools(scores, target, known, weight, average, link, ohem_ratio)
    return _averaged(pools, lambda items: _weighted_mean(items, term), need_positive)


def tversky_batch(
    scores, target, known, weight, *, alpha, beta, smoothing=1.0, average="macro", link="sigmoid"
):
    """1 - (TP + smoothing) / (TP + alpha FP + beta FN + smoothing).

    TP = sum w p t, FP = sum w p (1 - t) and FN = sum w (1 - p) t.
    """

    def loss(items):
        tp, fp, fn, _ = soft_counts(items)
        return _one_minus_ratio(tp + smoothing, tp + alpha * fp + beta * fn + smoothing)

    return _averaged(_pools(scores, target, known, weight, average, link), loss)


def tversky_example(
    scores,
    target,
    known,
    weight,
    *,
    alpha,
    beta,
    smoothing=1.0,
    average="macro",
    link="sigmoid",
    need_positive=True,
):
    """Weighted mean over items of 1 - (p t + g) / (p t + alpha p (1 - t) + beta (1 - p) t + g).

    g is ``smoothing``, in every item.
    """

    def term(i):
        tp, fp, fn = i.p * i.t, i.p * (1.0 - i.t), (1.0 - i.p) * i.t
        return _one_minus_ratio(tp + smoothing, tp + alpha * fp + beta * fn + smoothing)

    pools = _pools(scores, target, known, weight, average, link)
    return _averaged(pools, lambda items: _weighted_mean(items, term), need_positive)


def soft_iou(scores, target, known, weight, *, smoothing=0.0, average="macro", link="sigmoid"):
    """1 - (TP + smoothing) / (TP + FP + FN + smoothing) of the soft counts of ``tversky_batch``."""
    return tversky_batch(
        scores,
        target,
        known,
        weight,
        alpha=1.0,
        beta=1.0,
        smoothing=smoothing,
        average=average,
        link=link,
    )


def any_loss_running(batches, *, metric, decay, amplify=10.0, beta=1.0, average="macro", link="sigmoid"):
    """For each batch, 1 - metric(counts + decay * total before it); total = counts + decay * total before it.

    So batch b's counts weigh decay^(n - b) in the loss of batch n. ``batches`` holds (scores, target, known,
    weight). Counts are those of ``counts.any_loss``. A column counts once it has had a known positive, in
    this batch or an earlier one (an earlier one only for decay > 0).
    """
    totals, seen, losses = {}, set(), []
    for batch in batches:
        pools = _pools(*batch, "macro", link)
        if decay == 0.0:
            totals, seen = {}, set()
        totals = {column: [decay * x for x in total] for column, total in totals.items()}
        for items in pools:
            column = items[0].column
            new = soft_counts(items, amplify)
            old = totals.get(column, [0.0] * 4)
            totals[column] = [a + b for a, b in zip(new, old, strict=True)]
            if any(i.t > 0 for i in items):
                seen.add(column)
        losses.append(_loss_of_counts(totals, seen, metric, beta, average))
    return losses


def _loss_of_counts(totals, seen, metric, beta, average):
    if not seen:
        return 0.0
    if average == "micro":
        pooled = [math.fsum(counts) for counts in zip(*totals.values(), strict=True)]
        return 1.0 - confusion_metric(*pooled, metric=metric, beta=beta)
    values = [1.0 - confusion_metric(*totals[column], metric=metric, beta=beta) for column in sorted(seen)]
    return math.fsum(values) / len(values)


def any_loss_mixture(
    scores,
    target,
    known,
    weight,
    *,
    metric,
    share,
    other="bce",
    amplify=10.0,
    beta=1.0,
    average="macro",
    link="sigmoid",
):
    """(1 - share) * other + share * (1 - metric), both over the same pool.

    other = "bce": weighted mean of (n0/N) t (-log p) + (n1/N) (1 - t) (-log(1 - p)), with n1 = sum w t,
    n0 = sum w (1 - t), N = n0 + n1. other = "quadratic": weighted mean of 1/4 - (p - 1/2)^2 = p (1 - p).
    Logarithms are softplus of the score under the sigmoid link.
    """

    def loss(items):
        hard = 1.0 - confusion_metric(*soft_counts(items, amplify), metric=metric, beta=beta)
        soft = _balanced_bce(items, link) if other == "bce" else _weighted_mean(items, _quadratic)
        return (1.0 - share) * soft + share * hard

    return _averaged(_pools(scores, target, known, weight, average, link), loss)


def _quadratic(item):
    return 0.25 - (item.p - 0.5) ** 2


def _balanced_bce(items, link):
    n1 = math.fsum(i.w * i.t for i in items)
    n0 = math.fsum(i.w * (1.0 - i.t) for i in items)

    def term(i):
        yes = softplus(-i.score) if link == "sigmoid" else -math.log(i.p)
        no = softplus(i.score) if link == "sigmoid" else -math.log1p(-i.p)
        return (n0 * i.t * yes + n1 * (1.0 - i.t) * no) / (n0 + n1)

    return _weighted_mean(items, term)


def adjusted(p, alpha):
    """Return (1 - p)^alpha p, the probability that counts less the surer it is; p itself at alpha = 0."""
    return p if alpha == 0.0 else (1.0 - p) ** alpha * p


def soft_counts(items, amplify=None):
    """TP, FP, FN, TN = sums of w a t, w a (1 - t), w (1 - a) t, w (1 - a)(1 - t); a = p or amplified p."""
    counts = [[], [], [], []]
    for i in items:
        a = i.p if amplify is None else sigmoid(amplify * (i.p - 0.5))
        for k, x in enumerate((a * i.t, a * (1.0 - i.t), (1.0 - a) * i.t, (1.0 - a) * (1.0 - i.t))):
            counts[k].append(i.w * x)
    return [math.fsum(c) for c in counts]


def hardest(items, ratio):
    """All positives of one column and its int(n_pos ratio) negatives of highest p; all items at ratio 0."""
    if ratio == 0.0:
        return items
    chosen = [n for n, i in enumerate(items) if i.t > 0]
    others = sorted((n for n, i in enumerate(items) if i.t == 0), key=lambda n: (-items[n].p, n))
    keep = min(int(len(chosen) * ratio), len(others))
    return [items[n] for n in sorted([*chosen, *others[:keep]])]


def _pools(scores, target, known, weight, average, link, ohem_ratio=0.0):
    """Lists of items: one for each column with a known entry, or a single one of all ("micro")."""
    if link not in {"sigmoid", "softmax"} or average not in {"macro", "micro"}:
        raise ValueError(f"no link {link!r} or no average {average!r}")
    columns = {}
    for row in read_rows(scores, target, known, weight):
        lse = log_sum_exp((e.score, 1.0) for e in row)
        for e in row:
            p = sigmoid(e.score) if link == "sigmoid" else math.exp(e.score - lse)
            columns.setdefault(e.index, []).append(Item(e.index, e.score, p, e.target, e.weight))
    pools = [hardest(columns[j], ohem_ratio) for j in sorted(columns)]
    if average == "micro":
        pools = [[i for pool in pools for i in pool]]
    return [pool for pool in pools if pool]


def _averaged(pools, loss, need_positive=True):
    losses = [loss(pool) for pool in pools if not need_positive or any(i.t > 0 for i in pool)]
    return math.fsum(losses) / len(losses) if losses else 0.0


def _weighted_mean(items, term):
    mass = math.fsum(i.w for i in items)
    return math.fsum(i.w * term(i) for i in items) / mass if mass > 0.0 else 0.0


def _one_minus_ratio(above, below):
    return 1.0 - above / below if below > 0.0 else 0.0
