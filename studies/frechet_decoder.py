"""Whether decisions by expected distance name classes that no training row had, and err less far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from margins.evidence import Effect, Study
from margins.hierarchy import FrechetDecoder, embedding_distances, mean_distance, tree_distances
from margins.taxonomy import Taxonomy

NUM_CLASSES, NUM_DIMS, NOISE = 21, 8, 0.25
DEPTH, TREE_DIMS, TREE_NOISE = 6, 16, 1.0
ROWS_A_CLASS = 40


def along_a_curve(draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Class centres on a smooth curve, one apart, their distances in steps along it, and the seen classes."""
    places = torch.arange(NUM_CLASSES, dtype=torch.float64)
    speed = 0.15 + 0.25 * torch.rand(NUM_DIMS, generator=draws, dtype=torch.float64)
    start = 2 * math.pi * torch.rand(NUM_DIMS, generator=draws, dtype=torch.float64)
    centres = torch.sin(places[:, None] * speed + start)
    step = (centres[1:] - centres[:-1]).norm(dim=1).mean()
    distances = embedding_distances(places[:, None], between="euclidean")
    return centres / step, distances, torch.arange(0, NUM_CLASSES, 2)


def in_a_tree(draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Leaf centres that add up steps from the root on, distances of all nodes, leaves, and the seen ones."""
    paths = itertools.product("01", repeat=DEPTH)
    tree = Taxonomy.from_qualified_paths(["/".join(("r", *path)) for path in paths])
    steps = torch.randn(tree.num_nodes, TREE_DIMS, generator=draws, dtype=torch.float64)
    above = torch.zeros(tree.num_nodes, tree.num_nodes, dtype=torch.float64)
    for node in range(tree.num_nodes):
        above[node, list(tree.ancestors(node, include_self=True))] = 1.0
    leaves = torch.tensor(tree.leaves)
    seen = leaves[torch.randperm(len(leaves), generator=draws)[: len(leaves) // 2]].sort().values
    return (above @ steps)[leaves], tree_distances(tree).double(), leaves, seen


def probabilities(
    centres: Tensor, seen: Tensor, noise: float, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Those of seen classes, by a logistic regression on their rows, for new rows of all; their classes."""
    from sklearn.linear_model import LogisticRegression

    def rows(of: Tensor) -> tuple[Tensor, Tensor]:
        labels = of.repeat_interleave(ROWS_A_CLASS)
        shifts = torch.randn(len(labels), centres.shape[1], generator=draws, dtype=torch.float64)
        return centres[labels] + noise * shifts, labels

    x, y = rows(seen)
    x_test, y_test = rows(torch.arange(len(centres)))
    model = LogisticRegression(max_iter=2000).fit(x.numpy(), y.numpy())
    return torch.from_numpy(model.predict_proba(x_test.numpy())), y_test


def trial(arm: str, _: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Decides on the same probabilities by the largest or by the expected squared distance."""
    draws = torch.Generator().manual_seed(seed)
    centres, distances, seen = along_a_curve(draws)
    p, true = probabilities(centres, seen, NOISE, draws)
    decided = seen[p.argmax(1)] if arm == "argmax" else FrechetDecoder(distances[seen])(p)
    is_seen = torch.isin(true, seen)
    right = (decided == true).double()
    found = {
        "curve_squared_distance": mean_distance(decided, true, distances, power=2),
        "curve_accuracy": float(right.mean()),
        "curve_accuracy_unseen": float(right[~is_seen].mean()),
    }
    centres, distances, leaves, seen = in_a_tree(draws)
    p, place = probabilities(centres, torch.searchsorted(leaves, seen), TREE_NOISE, draws)
    true = leaves[place]
    if arm == "argmax":
        decided = only_leaves = seen[p.argmax(1)]
    else:
        decided = FrechetDecoder(distances[seen])(p)
        only_leaves = FrechetDecoder(distances[seen], candidates=leaves)(p)
    unseen = ~torch.isin(true, seen)
    return found | {
        "tree_squared_distance": mean_distance(decided, true, distances, power=2),
        "tree_squared_distance_leaves": mean_distance(only_leaves, true, distances, power=2),
        "tree_unseen_hits": float((only_leaves == true)[unseen].double().mean()),
    }


STUDY = Study(
    name="frechet_decoder",
    cards=("margins.hierarchy.FrechetDecoder",),
    claim="Deciding by the Fréchet mean under a metric of the labels, in place of the largest probability, "
    "predicts classes that no training row had, without training, and errs less far.",
    source="Roberts et al. 2023, arXiv 2307.12226, abstract and experiments with missing classes",
    data="drawn anew for each seed: 21 Gaussian classes on a smooth curve in 8 dimensions (deviation 0.25, "
    "one apart), every second one unseen; and 64 leaves of a binary tree in 16 dimensions, half of them "
    "unseen",
    protocol="logistic regression on 40 rows of each seen class, judged on 40 new rows of every class; both "
    "decisions on the same probabilities; nothing is tuned",
    arms={"argmax": {}, "loki": {}},
    trial=trial,
    effects=(
        Effect(
            "squared class distance on the curve, argmax - Fréchet",
            lambda f: f["argmax"]["curve_squared_distance"] - f["loki"]["curve_squared_distance"],
            reaches=0.26,
        ),
        Effect(
            "accuracy over all classes of the curve, Fréchet - argmax",
            lambda f: f["loki"]["curve_accuracy"] - f["argmax"]["curve_accuracy"],
            reaches=0.25,
        ),
        Effect(
            "accuracy on unseen classes of the curve",
            lambda f: f["loki"]["curve_accuracy_unseen"],
            reaches=0.7,
        ),
        Effect(
            "squared tree distance over all nodes, argmax - Fréchet",
            lambda f: f["argmax"]["tree_squared_distance"] - f["loki"]["tree_squared_distance"],
        ),
        Effect(
            "squared tree distance over leaves alone, argmax - Fréchet",
            lambda f: f["argmax"]["tree_squared_distance"] - f["loki"]["tree_squared_distance_leaves"],
        ),
    ),
    num_seeds=10,
)
