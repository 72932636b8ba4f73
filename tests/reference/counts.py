"""Losses of soft confusion counts, summed down a column: AnyLoss and batch Dice. Each gives one number.

p = sigmoid(s), or the plain softmax over the row's known entries (entry weights are not in it). Sums run over
the known entries; the entry weight multiplies what an item adds to each count. "macro" is the mean of the
losses of the columns that have a known positive; "micro" adds the counts of ALL columns first. Where the loss
has nothing to stand on (no known positive anywhere) it is 0.
"""

import math

from reference.rows import log_sum_exp, read_rows, sigmoid

EPS = 1e-5


def any_loss(
    scores,
    target,
    known,
    weight,
    *,
    metric,
    amplify=10.0,
    beta=1.0,
    average="macro",
    link="sigmoid",
):
    """1 - metric of TP = sum w a t, FP = sum w a (1-t), FN = sum w (1-a) t, TN = sum w (1-a)(1-t).

    a = 1 / (1 + exp(-amplify (p - 1/2))), or a = p when amplify is None. The metrics: ``confusion_metric``.
    """
    columns = []
    for items in _columns(scores, target, known, weight, link):
        tp = fp = fn = tn = 0.0
        for p, t, w in items:
            a = p if amplify is None else sigmoid(amplify * (p - 0.5))
            tp += w * a * t
            fp += w * a * (1.0 - t)
            fn += w * (1.0 - a) * t
            tn += w * (1.0 - a) * (1.0 - t)
        columns.append(((tp, fp, fn, tn), any(t > 0 for _, t, _ in items)))
    return _averaged(columns, lambda c: 1.0 - confusion_metric(*c, metric=metric, beta=beta), average)


def confusion_metric(tp, fp, fn, tn, *, metric, beta=1.0):
    """One metric of four (soft) counts, with n1 = TP + FN, n0 = TN + FP and eps = 1e-5.

    accuracy (TP + TN) / (n1 + n0); f1, fbeta (1 + b^2) TP / (b^2 n1 + TP + FP + eps), b = 1 for f1;
    gmean sqrt(TP TN / (n1 n0 + eps) + 1e-12); bacc (n0 TP + n1 TN) / (2 n1 n0 + eps);
    mcc (TP TN - FP FN) / (sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) + eps); jaccard TP / (TP + FP + FN + eps).
    """
    n1, n0 = tp + fn, tn + fp
    b2 = 1.0 if metric == "f1" else beta * beta
    f = (1.0 + b2) * tp / (b2 * n1 + tp + fp + EPS)
    table = {
        "accuracy": (tp + tn) / (n1 + n0),
        "f1": f,
        "fbeta": f,
        "gmean": math.sqrt(tp * tn / (n1 * n0 + EPS) + 1e-12),
        "bacc": (n0 * tp + n1 * tn) / (2.0 * n1 * n0 + EPS),
        "mcc": (tp * tn - fp * fn) / (math.sqrt((tp + fp) * n1 * n0 * (tn + fn)) + EPS),
        "jaccard": tp / (tp + fp + fn + EPS),
    }
    return table[metric]


def dice(scores, target, known, weight, *, smoothing=1.0, square=True, average="macro", link="sigmoid"):
    """1 - (2 sum w p t + smoothing) / (sum w p^e + sum w t^e + smoothing), e = 2 if square else 1."""
    power = 2 if square else 1
    columns = []
    for items in _columns(scores, target, known, weight, link):
        inter = math.fsum(w * p * t for p, t, w in items)
        whole = math.fsum(w * (p**power + t**power) for p, t, w in items)
        columns.append(((inter, whole), any(t > 0 for _, t, _ in items)))
    return _averaged(columns, lambda c: 1.0 - (2.0 * c[0] + smoothing) / (c[1] + smoothing), average)


def _columns(scores, target, known, weight, link):
    """For each column with a known entry, its items (p, t, w)."""
    if link not in {"sigmoid", "softmax"}:
        raise ValueError(f"link must be 'sigmoid' or 'softmax', not {link!r}")
    columns = {}
    for row in read_rows(scores, target, known, weight):
        lse = log_sum_exp((e.score, 1.0) for e in row)
        for e in row:
            p = sigmoid(e.score) if link == "sigmoid" else math.exp(e.score - lse)
            columns.setdefault(e.index, []).append((p, e.target, e.weight))
    return [columns[j] for j in sorted(columns)]


def _averaged(columns, loss, average):
    """``columns`` holds (counts, has a positive)."""
    if not any(has for _, has in columns):
        return 0.0
    if average == "micro":
        return loss([math.fsum(c) for c in zip(*(counts for counts, _ in columns), strict=True)])
    if average == "macro":
        losses = [loss(counts) for counts, has in columns if has]
        return math.fsum(losses) / len(losses)
    raise ValueError(f"average must be 'macro' or 'micro', not {average!r}")
