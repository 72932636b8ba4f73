"""Decisions by expected distance, what they can reach, and which label to learn next."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from margins.errors import MarginsError
from margins.hierarchy import (
    FrechetDecoder,
    embedding_distances,
    mean_distance,
    next_label,
    reachable,
    spanned_subtree,
    tree_distances,
)
from margins.taxonomy import Taxonomy


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probabilities(num_rows: int, num_seen: int, seed: int, sharpness: float = 2.0) -> Tensor:
    scores = torch.randn(num_rows, num_seen, generator=draws(seed), dtype=torch.float64)
    return (sharpness * scores).softmax(1)


def mixtures(num_rows: int, num_seen: int, concentration: float, seed: int) -> Tensor:
    """Probabilities of which many are near 0."""
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(num_seen * [concentration], num_rows))


def random_tree(num_nodes: int, seed: int) -> Taxonomy:
    rng = np.random.default_rng(seed)
    return Taxonomy.from_mapping(
        {"n0": None, **{f"n{k}": f"n{rng.integers(k)}" for k in range(1, num_nodes)}}
    )


def binary_tree(depth: int) -> Taxonomy:
    paths = itertools.product("01", repeat=depth)
    return Taxonomy.from_qualified_paths(["/".join(("r", *path)) for path in paths])


def best_by_hand(distances: Tensor, shares: Tensor, power: float = 2.0) -> int:
    risks = [
        sum(float(p) * float(distances[k, v]) ** power for k, p in enumerate(shares))
        for v in range(distances.shape[1])
    ]
    return int(np.argmin(risks))


def test_the_decision_under_a_zero_one_metric_is_the_likeliest_class():
    p = probabilities(500, 7, 0)
    decided = FrechetDecoder(1 - torch.eye(7, dtype=torch.float64))(p)
    assert torch.equal(decided, p.argmax(1))
    assert len(decided.unique()) == 7, "vacuous: one class"


@pytest.mark.parametrize("seed", [None, *range(8)])
def test_decisions_in_small_trees_are_those_of_brute_force(seed: int | None):
    tree = binary_tree(2) if seed is None else random_tree(8, seed)
    distances = tree_distances(tree)
    seen = torch.tensor(tree.leaves)
    p = probabilities(60, len(seen), seed or 0)
    decided = FrechetDecoder(distances[seen].double())(p)
    assert decided.tolist() == [best_by_hand(distances[seen], row) for row in p]


def test_inner_nodes_are_decided_for_in_small_trees():
    tree = binary_tree(2)
    seen = torch.tensor(tree.leaves)
    decided = FrechetDecoder(tree_distances(tree)[seen])(probabilities(200, 4, 1).float())
    assert len(set(decided.tolist()) - set(tree.leaves)) == 3


def test_two_leaves_that_are_as_likely_give_the_node_between_them():
    tree = binary_tree(3)
    pair = torch.tensor([tree.index("r/0/0/0"), tree.index("r/0/0/1")])
    far = torch.tensor([tree.index("r/0/0/0"), tree.index("r/1/0/1")])
    half = torch.tensor([[0.5, 0.5]])
    found = [FrechetDecoder(tree_distances(tree)[seen])(half).item() for seen in (pair, far)]
    assert [tree.names[k] for k in found] == ["r/0/0", "r"]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_the_scale_of_the_distances_is_irrelevant(power: float):
    distances = torch.rand(5, 12, generator=draws(3), dtype=torch.float64)
    p = probabilities(300, 5, 4)
    plain = FrechetDecoder(distances, power=power)(p)
    for scale in (1e-120, 7.0, 1e120):
        assert torch.equal(FrechetDecoder(scale * distances, power=power)(p), plain)
    assert len(plain.unique()) > 2, "vacuous: one decision"


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_no_decision_has_a_smaller_expected_distance(power: float):
    tree = random_tree(30, 5)
    distances = tree_distances(tree).double()[torch.tensor(tree.leaves)]
    p = probabilities(200, len(tree.leaves), 6)
    decided = FrechetDecoder(distances, power=power)(p)
    risks = p @ distances**power
    chosen = risks.gather(1, decided[:, None])
    assert bool((chosen <= risks + 1e-12).all())
    likeliest = risks.gather(1, torch.tensor(tree.leaves)[p.argmax(1)][:, None])
    assert float((likeliest - chosen).mean()) > 0.1, "vacuous: the largest probability is as good"


def test_risks_are_the_expected_distances():
    distances = 40 * torch.rand(4, 9, generator=draws(7), dtype=torch.float64)
    p = probabilities(20, 4, 8)
    torch.testing.assert_close(FrechetDecoder(distances).risks(p), p @ distances**2)
    kept = torch.tensor([8, 2])
    torch.testing.assert_close(
        FrechetDecoder(distances, candidates=kept).risks(p), (p @ distances**2)[:, kept]
    )


@pytest.mark.parametrize("labels_at_once", [1, 3, 5, 12, 100])
def test_labels_in_parts_give_the_same_decisions(labels_at_once: int):
    distances = torch.randint(0, 4, (5, 12), generator=draws(9)).double()  # with ties
    p = torch.cat([probabilities(100, 5, 10), torch.eye(5, dtype=torch.float64)])
    found = FrechetDecoder(distances, labels_at_once=labels_at_once)(p)
    assert torch.equal(found, FrechetDecoder(distances)(p))


def test_candidates_restrict_the_decisions():
    distances = torch.rand(5, 12, generator=draws(11), dtype=torch.float64)
    p, kept = probabilities(200, 5, 12), torch.tensor([11, 0, 4])
    found = FrechetDecoder(distances, candidates=kept)(p)
    assert torch.equal(found, kept[(p @ distances[:, kept] ** 2).argmin(1)])
    assert set(found.tolist()) <= set(kept.tolist())


def test_a_temperature_decides_as_softened_scores_do():
    scores = 3 * torch.randn(200, 6, generator=draws(13), dtype=torch.float64)
    line = torch.linspace(0, 1, 6, dtype=torch.float64)
    distances = (line[:, None] - line).abs()
    soft = FrechetDecoder(distances, temperature=2.5)(scores.softmax(1))
    assert torch.equal(soft, FrechetDecoder(distances)((scores / 2.5).softmax(1)))
    assert not torch.equal(soft, FrechetDecoder(distances)(scores.softmax(1))), "vacuous: no effect"


def test_certain_and_impossible_classes_stay_so_at_any_temperature():
    distances = 1 - torch.eye(3)
    found = FrechetDecoder(distances, temperature=0.1)(torch.tensor([[0.0, 1.0, 0.0], [0.7, 0.3, 0.0]]))
    assert found.tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(10))
def test_reachable_nodes_of_a_tree_are_those_between_seen_ones(seed: int):
    tree = random_tree(14, seed)
    seen = torch.randperm(14, generator=draws(seed))[: 2 + seed % 4]
    distances = tree_distances(tree)
    found = reachable(distances, seen)
    assert torch.equal(found, spanned_subtree(tree, seen))
    # The distance to a node between a and b is part of the way from a to b.
    on_way = (
        (distances[seen][:, None] + distances[seen][None, :] == distances[seen][:, seen, None]).any(0).any(0)
    )
    assert torch.equal(found, on_way)


def test_an_unseen_leaf_of_a_tree_is_never_decided_for():
    tree = binary_tree(3)
    seen = torch.tensor(tree.leaves[::2])
    distances = tree_distances(tree)
    found = reachable(distances, seen)
    hidden = torch.tensor(tree.leaves[1::2])
    assert not bool(found[hidden].any())
    p = mixtures(3000, 4, 0.3, 0)
    decided = FrechetDecoder(distances[seen])(p)
    assert set(decided.tolist()) == set(found.nonzero().flatten().tolist())
    # Forced to answer with a leaf, it names seen ones only, but where two are exactly as near.
    leaves = FrechetDecoder(distances[seen], candidates=torch.tensor(tree.leaves))(p)
    assert not set(leaves.tolist()) & set(hidden.tolist())


def test_reach_in_the_plane_is_what_many_draws_find():
    places = torch.rand(25, 2, generator=draws(14))
    distances = embedding_distances(places, between="euclidean").double()
    seen = torch.arange(4)
    p = mixtures(60000, 4, 0.7, 1)
    drawn = torch.zeros(25, dtype=torch.bool)
    drawn[FrechetDecoder(distances[seen])(p)] = True
    found = reachable(distances, seen)
    assert torch.equal(found, drawn)
    assert 4 < int(found.sum()) < 25, "vacuous: all or none"


def test_ties_and_copies_are_not_within_reach():
    line = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    ends = torch.tensor([0, 2])
    assert reachable(line, ends).tolist() == [True, True, True]
    # The median of two points is one of them: the middle needs p = 1/2 exactly.
    assert reachable(line, ends, power=1.0).tolist() == [True, False, True]
    twice = line[[0, 1, 1, 2]][:, [0, 1, 1, 2]]
    assert reachable(twice, torch.tensor([0, 3])).tolist() == [True, True, False, True]


def test_the_next_label_is_the_farthest_from_all_within_reach():
    line = (torch.arange(9.0)[:, None] - torch.arange(9.0)).abs()
    assert next_label(line, torch.tensor([3])) == 8
    assert next_label(line, torch.tensor([3, 8])) == 0
    assert next_label(line, torch.tensor([0, 3, 8])) is None


def test_chosen_labels_cover_a_tree_with_fewer_than_random_ones():
    chosen, random = [], []
    for seed in range(10):
        tree = random_tree(40, 100 + seed)
        distances = tree_distances(tree)
        start = torch.tensor([tree.leaves[0]])
        order = torch.randperm(40, generator=draws(seed))
        chosen.append(_until_covered(tree, start, lambda s, r, d=distances: next_label(d, s, reached=r)))
        random.append(
            _until_covered(
                tree, start,
                lambda _, r, o=order: next((int(v) for v in o if not r[v]), None),
            )
        )  # fmt: skip
    assert all(few <= many for few, many in zip(chosen, random, strict=True))
    assert sum(chosen) < 0.9 * sum(random)


def _until_covered(tree: Taxonomy, seen: Tensor, choose) -> int:
    while (label := choose(seen, spanned_subtree(tree, seen))) is not None:
        seen = torch.cat([seen, torch.tensor([label])])
    assert bool(spanned_subtree(tree, seen).all())
    return len(seen)


def test_tree_distances_count_edges_or_add_their_lengths():
    tree = random_tree(20, 15)
    counted = tree_distances(tree)
    torch.testing.assert_close(tree_distances(tree, edge_lengths=torch.ones(20)), counted)
    lengths = 0.5 + torch.rand(20, generator=draws(16))
    for u, v in itertools.product(range(20), repeat=2):
        ups = [set(tree.ancestors(node, include_self=True)) for node in (u, v)]
        way = sum(float(lengths[node]) for node in ups[0] ^ ups[1])
        assert tree_distances(tree, edge_lengths=lengths)[u, v] == pytest.approx(way, abs=1e-5)


def test_embedding_distances_are_those_of_their_names():
    vectors = torch.randn(6, 3, generator=draws(17), dtype=torch.float64)
    gap = vectors[:, None] - vectors
    torch.testing.assert_close(embedding_distances(vectors, between="euclidean"), gap.square().sum(2).sqrt())
    torch.testing.assert_close(embedding_distances(vectors, between="manhattan"), gap.abs().sum(2))
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors, dim=2)
    torch.testing.assert_close(embedding_distances(vectors), 1 - cosines, atol=1e-12, rtol=0)
    assert mean_distance(torch.tensor([0, 1]), torch.tensor([0, 2]), gap.abs().sum(2)) == pytest.approx(
        float(gap[1, 2].abs().sum()) / 2
    )


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: FrechetDecoder(-torch.ones(2, 2)), "distances"),
        (lambda: FrechetDecoder(torch.full((2, 2), torch.inf)), "one root"),
        (lambda: FrechetDecoder(torch.ones(2, 2), power=0), "power"),
        (lambda: FrechetDecoder(torch.ones(2, 2), temperature=-1), "temperature"),
        (lambda: FrechetDecoder(torch.ones(2, 2), candidates=torch.tensor([2])), "candidates"),
        (lambda: FrechetDecoder(torch.ones(2, 2), candidates=torch.tensor([1, 1])), "each label once"),
        (lambda: FrechetDecoder(torch.ones(2, 2))(torch.ones(1, 3)), "probabilities"),
        (lambda: FrechetDecoder(torch.ones(2, 2))(torch.tensor([[-1.0, 2.0]])), "softmax"),
        (lambda: reachable(torch.ones(2, 3), torch.tensor([0])), "distances"),
        (lambda: reachable(torch.ones(2, 2), torch.tensor([0.0])), "seen"),
        (lambda: next_label(torch.ones(2, 2), torch.tensor([0]), reached=torch.zeros(2).bool()), "reached"),
        (lambda: embedding_distances(torch.ones(2, 2), between="l3"), "between"),
        (lambda: tree_distances(binary_tree(1), edge_lengths=torch.ones(2)), "edge_lengths"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_name(call, argument: str):
    with pytest.raises(MarginsError, match=argument):
        call()


def test_roots_without_a_common_ancestor_are_refused_with_the_cure():
    forest = Taxonomy.from_mapping({"a": None, "b": None, "c": "a"})
    with pytest.raises(MarginsError, match="one root above"):
        FrechetDecoder(tree_distances(forest)[:2])
    with pytest.raises(MarginsError, match="one root"):
        spanned_subtree(forest, torch.tensor([0]))
