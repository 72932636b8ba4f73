"""Distances between labels: along a taxonomy, or between vectors that stand for them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.engine.score_rules import unit
from margins.engine.sources import at_least_float32
from margins.errors import MarginsError, describe
from margins.taxonomy import Taxonomy

Between = Literal["cosine", "euclidean", "manhattan"]


def tree_distances(
    taxonomy: Taxonomy, *, edge_lengths: Float[Tensor, "N"] | None = None
) -> Float[Tensor, "N N"]:
    """Lengths of the ways between all nodes of a taxonomy.

    Use it for labels that are nodes of one tree; with edge lengths where steps deep in the tree mean less.

    Args:
        taxonomy: with one root; with edge lengths, a tree.
        edge_lengths: [N] > 0 of the edge above each node, that of the root unused; None counts edges.

    Returns:
        [N, N] float32, by the taxonomy's ids; infinite between labels without a common ancestor.

    Raises:
        MarginsError: edge lengths of another shape, or with a label that has two parents.

    Example:
        >>> pets = Taxonomy.from_paths(["pet/dog/poodle", "pet/cat"])
        >>> tree_distances(pets)[pets.index("poodle")].tolist()
        [2.0, 1.0, 0.0, 3.0]
        >>> tree_distances(pets, edge_lengths=torch.tensor([0.0, 2.0, 0.5, 2.0]))[2].tolist()
        [2.5, 0.5, 0.0, 4.5]
    """
    nodes = torch.arange(taxonomy.num_nodes)
    counted = taxonomy.distances(nodes, nodes)
    if edge_lengths is None:
        return counted
    if not taxonomy.is_tree:
        raise MarginsError("edge_lengths", expected="a tree with them", received=repr(taxonomy))
    if edge_lengths.shape != nodes.shape or not bool((edge_lengths >= 0).all()):
        raise MarginsError(
            "edge_lengths", expected=f"[N] = [{len(nodes)}] numbers >= 0", received=describe(edge_lengths)
        )
    offsets, above = taxonomy.ancestor_sets(nodes)
    is_above = torch.zeros(len(nodes), len(nodes), dtype=torch.float64)
    is_above[torch.repeat_interleave(nodes, offsets.diff()), above] = 1.0
    lengths = edge_lengths.double().clone()
    lengths[list(taxonomy.roots)] = 0.0
    down = is_above @ lengths
    shared = (is_above * lengths) @ is_above.T
    return torch.where(counted.isinf(), torch.inf, down[:, None] + down - 2 * shared).float()


def embedding_distances(
    vectors: Float[Tensor, "V d"], *, between: Between = "cosine"
) -> Float[Tensor, "V V"]:
    """Distances between vectors that stand for labels: word vectors, class weights of a head, grid places.

    Use it without a taxonomy. Vectors taken from the model itself need nothing from outside.

    Args:
        vectors: [V, d].
        between: "cosine" (one minus it), "euclidean" or, for places on a grid, "manhattan".

    Raises:
        MarginsError: other vectors, or an unknown distance.

    Example:
        >>> embedding_distances(torch.eye(2)).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    if vectors.ndim != 2 or not vectors.is_floating_point():
        raise MarginsError("vectors", expected="[V, d] floats", received=describe(vectors))
    if between not in get_args(Between):
        raise MarginsError("between", expected=f"one of {get_args(Between)}", received=repr(between))
    vectors = at_least_float32(vectors)
    if between == "cosine":
        directions = unit(vectors)
        # Rounding may leave a cosine above one, and a vector not quite at distance 0 of itself.
        distances = (1 - directions @ directions.T).clamp(min=0)
        return distances.fill_diagonal_(0.0)
    # Not by way of inner products, which lose the small distances.
    power = 2.0 if between == "euclidean" else 1.0
    return torch.cdist(vectors, vectors, p=power, compute_mode="donot_use_mm_for_euclid_dist")


def mean_distance(
    predicted: Int[Tensor, "B"],
    true: Int[Tensor, "B"],
    distances: Float[Tensor, "V V"],
    *,
    power: float = 1.0,
) -> float:
    """Mean distance of decisions from the truth: how bad mistakes are, where accuracy counts how many.

    Args:
        predicted: [B] labels.
        true: [B] labels.
        distances: [V, V] between labels.
        power: > 0 of each distance; 2 gives the mean squared distance.

    Example:
        >>> line = embedding_distances(torch.tensor([[0.0], [1.0], [3.0]]), between="euclidean")
        >>> mean_distance(torch.tensor([0, 1]), torch.tensor([2, 1]), line, power=2)
        4.5
    """
    if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
        raise MarginsError(
            "predicted, true", expected="[B] labels each, B >= 1",
            received=f"{describe(predicted)} and {describe(true)}",
        )  # fmt: skip
    return float(distances[true, predicted].double().pow(power).mean())
