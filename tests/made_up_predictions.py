"""Predictions for tests of metrics, and the slow loops that rankings are held against."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from margins.targets import Targets

EXACT = {"rel": 1e-12, "abs": 1e-12}


def classes(seed: int, *, num: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities in steps (so with ties), labels that may leave classes out, weights that may be 0."""
    draws = np.random.default_rng(seed)
    num_classes = int(draws.integers(2, 7))
    present = draws.choice(num_classes, int(draws.integers(2, num_classes + 1)), replace=False)
    steps = draws.integers(1, 6, (num, num_classes)).astype(float)
    labels = draws.choice(present, num)
    labels[: len(present)] = present
    weight = draws.integers(0, 4, num).astype(float)
    weight[: len(present)] = 1.0
    return steps / steps.sum(1, keepdims=True), labels, weight


def label_sets(
    seed: int, *, num: int = 40, with_ties: bool = True, num_labels: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores in [0, 1], in steps when there shall be ties, and a multi-hot truth without empty rows."""
    draws = np.random.default_rng(seed)
    num_labels = num_labels or int(draws.integers(3, 12))
    scores = draws.integers(0, 5, (num, num_labels)) / 4 if with_ties else draws.random((num, num_labels))
    truth = draws.random((num, num_labels)) < draws.random(num_labels) * 0.6
    truth[np.arange(num), draws.integers(0, num_labels, num)] = True
    return scores, truth


def as_targets(truth: np.ndarray) -> Targets:
    return Targets.of_label_sets([np.flatnonzero(row).tolist() for row in truth], truth.shape[1])


def averaged_over_orders(scores: np.ndarray, of_order: Callable[[list[int]], float]) -> float:
    """The mean of a metric over every order that the scores allow."""
    runs = [list(np.flatnonzero(scores == v)) for v in sorted(set(scores), reverse=True)]
    orders = [
        list(itertools.chain(*chosen))
        for chosen in itertools.product(*(list(itertools.permutations(run)) for run in runs))
    ]
    return float(np.mean([of_order(order) for order in orders]))


def rank_of(scores: np.ndarray, j: int) -> int:
    return int((scores >= scores[j]).sum())


def best_rank(s: np.ndarray, y: np.ndarray) -> int:
    return min(rank_of(s, j) for j in np.flatnonzero(y))


def shared_map_at_r(s: np.ndarray, y: np.ndarray) -> float:
    order = np.argsort(-s, kind="stable")
    shared = [float(np.mean([y[i] for i in range(len(s)) if s[i] == s[j]])) for j in order]
    r = int(y.sum())
    return sum(sum(shared[: i + 1]) / (i + 1) * shared[i] for i in range(r)) / r


RANKING_LOOPS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "precision@1": lambda s, y: averaged_over_orders(s, lambda o: float(y[o[0]])),
    "precision@4": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[:4]) / 4),
    "precision@9": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[:9]) / 9),
    "recall@2": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[:2]) / sum(y)),
    "r_precision": lambda s, y: averaged_over_orders(s, lambda o: sum(y[j] for j in o[: sum(y)]) / sum(y)),
    "map@r": shared_map_at_r,
    "mrr": lambda s, y: 1 / best_rank(s, y),
    "hits@2": lambda s, y: float(best_rank(s, y) <= 2),
}
