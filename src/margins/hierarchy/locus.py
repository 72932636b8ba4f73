"""Which labels a Fréchet-mean decision can reach at all, and which label to learn next."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.cards import Card, carded
from margins.data.extras import extra
from margins.errors import MarginsError
from margins.hierarchy.frechet import check_distances, check_labels, check_positive
from margins.taxonomy import Taxonomy

_PAPER = "Roberts et al., Geometry-Aware Adaptation for Pretrained Models, 2023, arXiv 2307.12226"
_TOLERANCE = 1e-9  # of a margin between expected distances that are at most one


@carded(
    Card(
        name="Loki (labels within reach)",
        summary="before Fréchet-mean decisions are promised: which labels they can name at all",
        paper=_PAPER,
        kind="diagnostic",
        stations=("after training",),
        targets=("classes", "taxonomy"),
        entry=61,
        tests=("tests/test_frechet.py::test_reachable_nodes_of_a_tree_are_those_between_seen_ones",),
    )
)
def reachable(
    distances: Float[Tensor, "V V"], seen: Int[Tensor, "K"], *, power: float = 2.0
) -> Bool[Tensor, "V"]:
    r"""Which labels a `FrechetDecoder` decides for under some probabilities of the seen ones.

    Ask it before promising decisions for unseen labels: those outside are never decided for, whatever the
    model says. Exact, by one linear programme a label in doubt: is there a p with
    $\sum_k p_k d(k, v)^{power} < \sum_k p_k d(k, u)^{power}$ for all other $u$. That takes minutes from about
    a thousand labels on; of a tree `spanned_subtree` says the same at once. A label that needs an exact tie
    is not within reach, nor one that is as far from all seen labels as an earlier one.

    Args:
        distances: [V, V] between labels, finite.
        seen: [K] labels that the model gives probabilities of.
        power: as of the decoder.

    Raises:
        MarginsError: distances or labels that cannot be used.

    Example:
        >>> from margins.hierarchy.metrics import tree_distances
        >>> pets = Taxonomy.from_paths(["pet/dog/poodle", "pet/dog/collie", "pet/cat"])
        >>> seen = torch.tensor([pets.index("poodle"), pets.index("cat")])
        >>> found = reachable(tree_distances(pets), seen)
        >>> [name for name, is_in in zip(pets.names, found.tolist()) if is_in]
        ['pet', 'dog', 'poodle', 'cat']
    """
    costs = _costs(distances, seen, power)
    num_labels = costs.shape[1]
    _, first, copies = np.unique(costs, axis=1, return_index=True, return_inverse=True)
    found = np.zeros(num_labels, dtype=bool)
    found[costs.argmin(1)] = True  # under certain probabilities
    for label in np.sort(first):
        if not found[label]:
            others = first[first != label]
            found[label] = _wins_somewhere(costs[:, label, None] - costs[:, others])
    found &= first[copies.reshape(-1)] == np.arange(num_labels)
    return torch.from_numpy(found)


def spanned_subtree(taxonomy: Taxonomy, seen: Int[Tensor, "K"]) -> Bool[Tensor, "N"]:
    """The nodes on the ways between seen ones: of a tree, what `reachable` finds at power 2.

    Args:
        taxonomy: a tree with one root.
        seen: [K] ids.

    Raises:
        MarginsError: no tree, or ids that cannot be used.

    Example:
        >>> pets = Taxonomy.from_paths(["pet/dog/poodle", "pet/dog/collie", "pet/cat"])
        >>> spanned_subtree(pets, torch.tensor([pets.index("poodle"), pets.index("collie")])).tolist()
        [False, True, True, True, False]
    """
    if not taxonomy.is_tree or len(taxonomy.roots) > 1:
        raise MarginsError("taxonomy", expected="a tree with one root", received=repr(taxonomy))
    check_labels("seen", seen, taxonomy.num_nodes)
    below = torch.zeros(taxonomy.num_nodes, dtype=torch.long)
    below[seen] = 1
    for node in range(taxonomy.num_nodes - 1, 0, -1):  # children come after their parents
        below[taxonomy.parent_ids[node][0]] += below[node]
    # All seen ones lie below the ancestors of the lowest common one, which are on no way between them.
    holds_all = (below == len(seen)).nonzero().flatten()
    found = below > 0
    found[holds_all[:-1]] = False
    return found


@carded(
    Card(
        name="Loki (next label to learn)",
        summary="labels can be bought one by one: the next one widens what Fréchet-mean decisions reach most",
        paper=_PAPER,
        kind="decision",
        stations=("before training",),
        targets=("classes", "taxonomy"),
        entry=61,
        tests=("tests/test_frechet.py::test_chosen_labels_cover_a_tree_with_fewer_than_random_ones",),
    )
)
def next_label(
    distances: Float[Tensor, "V V"],
    seen: Int[Tensor, "K"],
    *,
    power: float = 2.0,
    reached: Bool[Tensor, "V"] | None = None,
) -> int | None:
    r"""The label to get training rows of next: the farthest one from all that is within reach.

    $\arg\max_v \min_{u\ reachable} d(v, u)$. Call it again with the label added, until it gives None. A few
    labels far apart then cover as much as many near each other do.

    Args:
        distances: [V, V] between labels, finite.
        seen: [K] labels that have training rows.
        power: as of the decoder.
        reached: [V] what is within reach, if it is known (`spanned_subtree`); else `reachable` finds it.

    Returns:
        the label, of equally far ones the first; None when all are within reach.

    Raises:
        MarginsError: distances or labels that cannot be used.

    Example:
        >>> line = (torch.arange(5.0)[:, None] - torch.arange(5.0)).abs()
        >>> next_label(line, torch.tensor([1])), next_label(line, torch.tensor([0, 4]))
        (4, None)
    """
    found = reachable(distances, seen, power=power) if reached is None else reached
    if found.shape != distances.shape[:1] or not bool(found.any()):
        raise MarginsError(
            "reached", expected=f"[V] = [{len(distances)}] booleans, one of them true", received=str(found)
        )
    if bool(found.all()):
        return None
    away = distances[:, found].amin(1).masked_fill(found, -1.0)
    return int(away.argmax())


def _costs(distances: Tensor, seen: Tensor, power: float) -> np.ndarray:
    check_distances(distances)
    if distances.shape[0] != distances.shape[1]:
        raise MarginsError("distances", expected="[V, V]", received=str(list(distances.shape)))
    check_labels("seen", seen, distances.shape[1])
    check_positive("power", power)
    largest = float(distances.max()) or 1.0
    return (distances[seen].cpu().double() / largest).pow(power).numpy()


def _wins_somewhere(excess: np.ndarray) -> bool:
    """Whether some p makes p @ excess negative in every column."""
    with extra("tool"):
        from scipy.optimize import linprog
    num_seen, num_others = excess.shape
    if num_others == 0:
        return True
    # Largest t with p @ excess + t <= 0 in every column.
    result = linprog(
        np.append(np.zeros(num_seen), -1.0),
        A_ub=np.column_stack([excess.T, np.ones(num_others)]),
        b_ub=np.zeros(num_others),
        A_eq=np.append(np.ones(num_seen), 0.0)[None],
        b_eq=np.ones(1),
        bounds=[(0.0, 1.0)] * num_seen + [(None, None)],
        method="highs",
    )
    return bool(result.status == 0 and -result.fun > _TOLERANCE)
