"""Contrastive losses: positives of a row against its other candidates.

Scores are (s - margin) / temperature. A row without a known positive gives exactly 0; so does, for the
decoupled softmax, multi-similarity and Soft-InfoNCE, a row without a known negative.
"""

import math

from reference.rows import Entry, log_sum_exp, negatives, positives, read_rows, softplus


def _tempered_rows(scores, target, known, weight, margin, temperature):
    return [
        [Entry(e.index, e.score / temperature, e.target, e.weight) for e in row]
        for row in read_rows(scores, target, known, weight, margin)
    ]


def info_nce(scores, target, known, weight, margin, *, temperature):
    """sum_j w_j t_j (lse - s_j) / sum_j w_j t_j, lse = log sum_k w_k exp(s_k) over all known k."""
    values = []
    for row in _tempered_rows(scores, target, known, weight, margin, temperature):
        mass = math.fsum(e.weight * e.target for e in row)
        if mass == 0.0:
            values.append(0.0)
            continue
        lse = log_sum_exp((e.score, e.weight) for e in row)
        values.append(math.fsum(e.weight * e.target * (lse - e.score) for e in row) / mass)
    return values


def sup_con(scores, target, known, weight, margin, *, temperature):
    """sum_p w_p (lse - s_p) / sum_p w_p over the positives p: the mean stands outside the logarithm.

    lse runs over all known candidates; the grades of the positives play no part.
    """
    values = []
    for row in _tempered_rows(scores, target, known, weight, margin, temperature):
        chosen = positives(row)
        if not chosen:
            values.append(0.0)
            continue
        lse = log_sum_exp((e.score, e.weight) for e in row)
        mass = math.fsum(e.weight for e in chosen)
        values.append(math.fsum(e.weight * (lse - e.score) for e in chosen) / mass)
    return values


def decoupled_softmax(scores, target, known, weight, margin, *, temperature):
    """sum_{l in P} w_l t_l softplus(neg_lse - s_l) / sum_{l in P} w_l t_l over the positives P.

    neg_lse = log sum_{k negative} w_k exp(s_k).

    Each term is -log(exp(s_l) / (exp(s_l) + sum over negatives)): other positives are in no denominator.
    With grades and weights of 1 it is the mean over the positives.
    """
    values = []
    for row in _tempered_rows(scores, target, known, weight, margin, temperature):
        chosen, others = positives(row), negatives(row)
        if not chosen or not others:
            values.append(0.0)
            continue
        against = log_sum_exp((e.score, e.weight) for e in others)
        total = math.fsum(e.weight * e.target * softplus(against - e.score) for e in chosen)
        values.append(total / math.fsum(e.weight * e.target for e in chosen))
    return values


def multi_similarity(scores, target, known, weight, margin, *, alpha, beta, base, epsilon=None):
    """(1/alpha) log(1 + sum_P w exp(-alpha (s - base))) + (1/beta) log(1 + sum_N w exp(beta (s - base))).

    With ``epsilon`` a number, P keeps the positives below (highest negative + epsilon) and N the negatives
    above (lowest positive - epsilon), both thresholds taken before anything is dropped. One of the two is
    empty only when both are, and the value is then 0.
    """
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        chosen, others = positives(row), negatives(row)
        if not chosen or not others:
            values.append(0.0)
            continue
        if epsilon is not None:
            lowest = min(e.score for e in chosen)
            highest = max(e.score for e in others)
            chosen = [e for e in chosen if e.score < highest + epsilon]
            others = [e for e in others if e.score > lowest - epsilon]
        pull = log_sum_exp((-alpha * (e.score - base), e.weight) for e in chosen)
        push = log_sum_exp((beta * (e.score - base), e.weight) for e in others)
        values.append(
            (softplus(pull) if chosen else 0.0) / alpha + (softplus(push) if others else 0.0) / beta
        )
    return values


def soft_info_nce_weights(similarities, *, alpha, beta, t, floor):
    """Weigh n negatives: max((beta - alpha lam_j) / (beta - alpha / n), floor), lam = softmax(sim / t).

    Their mean is 1 before the floor. A single negative has lam = 1 = 1/n, so its weight is 1 for every alpha
    and beta; at alpha = beta the formula reads 0/0 there and 1 is its limit.
    """
    count = len(similarities)
    if count == 1:
        return [max(1.0, floor)]
    whole = beta - alpha / count
    if whole <= 0.0:
        raise ValueError("Soft-InfoNCE needs alpha < beta * (number of negatives)")
    lse = log_sum_exp((x / t, 1.0) for x in similarities)
    return [max((beta - alpha * math.exp(x / t - lse)) / whole, floor) for x in similarities]


def soft_info_nce(
    scores, target, known, weight, margin, similarity, *, alpha, beta, t, floor, temperature=1.0
):
    """sum_{p in P} w_p t_p [log(exp(s_p) + sum_{j negative} w_j omega_j exp(s_j)) - s_p] / sum_P w t.

    omega are ``soft_info_nce_weights`` of the similarities of the row's known negatives. Other positives are
    in no denominator; positives' weights act as in ``decoupled_softmax``, which is the case alpha = 0.
    """
    values = []
    rows = _tempered_rows(scores, target, known, weight, margin, temperature)
    for i, row in enumerate(rows):
        chosen, others = positives(row), negatives(row)
        if not chosen or not others:
            values.append(0.0)
            continue
        alike = [float(similarity[i][e.index]) for e in others]
        omega = soft_info_nce_weights(alike, alpha=alpha, beta=beta, t=t, floor=floor)
        pushed = [(e.score, e.weight * o) for e, o in zip(others, omega, strict=True) if o > 0.0]
        total = 0.0
        for p in chosen:
            total += p.weight * p.target * (log_sum_exp([(p.score, 1.0), *pushed]) - p.score)
        values.append(total / math.fsum(p.weight * p.target for p in chosen))
    return values
