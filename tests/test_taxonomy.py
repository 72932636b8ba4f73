"""Taxonomy: what it answers, by hand, by brute force on random graphs, and on real data."""

from __future__ import annotations

import copy
import csv
import dataclasses
import gzip
import itertools
import json
import math
import pickle
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from margins.errors import MarginsError
from margins.taxonomy import Taxonomy

DATA = Path(__file__).parents[2] / "shared" / "data"
SEEDS = range(12)

TREE_EDGES = [("thing", "animal"), ("animal", "dog"), ("animal", "cat"), ("dog", "poodle"), ("thing", "tool")]
# root > a > c > d, and a way round: root > d. d and e share the parents c and b.
DAG_EDGES = [
    ("root", "a"), ("root", "b"), ("a", "c"), ("c", "d"), ("root", "d"), ("b", "d"), ("c", "e"), ("b", "e"),
]  # fmt: skip

# -------------------------------------------------------------------------------- the slow reference


def names_of(edges):
    return list(dict.fromkeys(name for edge in edges for name in edge))


def steps_from(starts, neighbours):
    """Breadth first: {node: steps} from the nearest of `starts`."""
    found = dict.fromkeys(starts, 0)
    waiting = deque(starts)
    while waiting:
        node = waiting.popleft()
        for other in neighbours[node]:
            if other not in found:
                found[other] = found[node] + 1
                waiting.append(other)
    return found


class Reference:
    """Names and edges only, every question answered by its definition."""

    def __init__(self, edges):
        self.names = names_of(edges)
        self.above = {name: [p for p, c in edges if c == name] for name in self.names}
        self.below = {name: [c for p, c in edges if p == name] for name in self.names}
        self.up = {name: steps_from([name], self.above) for name in self.names}
        self.depth = steps_from([name for name in self.names if not self.above[name]], self.below)

    def common(self, u, v):
        return self.up[u].keys() & self.up[v].keys()

    def lowest(self, u, v):
        """All common ancestors under which no other one stands."""
        common = self.common(u, v)
        return {a for a in common if not any(a in self.up[other] for other in common - {a})}

    def distance(self, u, v):
        return min((self.up[u][a] + self.up[v][a] for a in self.common(u, v)), default=math.inf)


def assert_agrees(taxonomy, edges):
    reference = Reference(edges)
    names, index = taxonomy.names, taxonomy.index
    assert sorted(names) == sorted(reference.names)
    assert all(index(parent) < index(child) for parent, child in edges)
    assert taxonomy.depth.tolist() == [reference.depth[name] for name in names]
    assert {names[i] for i in taxonomy.roots} == {n for n in names if not reference.above[n]}
    assert {names[i] for i in taxonomy.leaves} == {n for n in names if not reference.below[n]}
    for i, name in enumerate(names):
        assert {names[j] for j in taxonomy.parents(i)} == set(reference.above[name])
        assert {names[j] for j in taxonomy.children(i)} == set(reference.below[name])
        found = taxonomy.ancestors(i, include_self=True)
        assert {names[j]: up for j, up in found.items()} == reference.up[name]
        assert list(found.items()) == sorted(found.items(), key=lambda entry: (entry[1], entry[0]))
        assert taxonomy.ancestors(i) == {j: up for j, up in found.items() if j != i}
    for (i, u), (j, v) in itertools.product(enumerate(names), repeat=2):
        assert taxonomy.distance(i, j) == reference.distance(u, v)
        lowest = sorted(map(index, reference.lowest(u, v)), key=lambda a: (-reference.depth[names[a]], a))
        assert taxonomy.lowest_common_ancestor(i, j) == (lowest[0] if lowest else None)


def assert_batched_equals_scalar(taxonomy):
    every = torch.arange(taxonomy.num_nodes)
    ids, up = taxonomy.ancestor_table
    offsets, columns = taxonomy.ancestor_sets(every)
    for i in range(taxonomy.num_nodes):
        expected = taxonomy.ancestors(i, include_self=True)
        length = len(expected)
        assert ids[i, :length].tolist() == columns[offsets[i] : offsets[i + 1]].tolist() == sorted(expected)
        assert dict(zip(ids[i, :length].tolist(), up[i, :length].tolist(), strict=True)) == expected
        assert (ids[i, length:] == -1).all()
        assert (up[i, length:] == -1).all()
    scalar = [[taxonomy.distance(i, j) for j in range(taxonomy.num_nodes)] for i in range(taxonomy.num_nodes)]
    assert taxonomy.distances(every, every).tolist() == scalar


def random_edges(seed, *, most_parents):
    """Draw a shuffled forest (`most_parents` 1) or graph of 30 nodes; names say nothing of their place."""
    generator = np.random.default_rng(seed)
    names = [f"label {number}" for number in generator.permutation(30)]
    edges = []
    for place, child in enumerate(names[2:], start=2):  # two roots
        count = min(place, int(generator.integers(1, most_parents + 1)))
        parents = generator.choice(place, size=count, replace=False) if place > 3 else [place - 2]
        edges.extend((names[parent], child) for parent in parents)
    return [edges[number] for number in generator.permutation(len(edges))]


# -------------------------------------------------------------------------------- by hand


def test_tree_of_six_labels_equals_hand_computation():
    tree = Taxonomy.from_edges(TREE_EDGES)
    assert tree.names == ("thing", "animal", "dog", "cat", "poodle", "tool")
    assert (tree.num_nodes, tree.is_tree, tree.roots, tree.leaves) == (6, True, (0,), (3, 4, 5))
    assert tree.depth.tolist() == [0, 1, 2, 2, 3, 1]
    assert (tree.parents(0), tree.parents(4), tree.children(1), tree.children(4)) == ((), (2,), (2, 3), ())
    assert list(tree.ancestors(4, include_self=True).items()) == [(4, 0), (2, 1), (1, 2), (0, 3)]
    assert tree.lowest_common_ancestor(4, 3) == 1
    assert tree.lowest_common_ancestor(4, 2) == 2
    assert tree.distances(torch.tensor([4, 5]), torch.arange(6)).tolist() == [
        [3, 2, 1, 3, 0, 4],
        [1, 2, 3, 3, 4, 0],
    ]
    offsets, columns = tree.ancestor_sets(torch.tensor([4, 0, 4]))
    assert offsets.tolist() == [0, 4, 5, 9]
    assert columns.tolist() == [0, 1, 2, 4, 0, 0, 1, 2, 4]


def test_dag_takes_shortest_ways_and_the_lowest_common_ancestor():
    dag = Taxonomy.from_edges(DAG_EDGES)
    root, a, b, c, d, e = map(dag.index, ("root", "a", "b", "c", "d", "e"))
    assert not dag.is_tree
    assert dag.depth[d] == 1  # by root > d, not by root > a > c > d
    assert dag.ancestors(d) == {root: 1, b: 1, c: 1, a: 2}
    assert dag.distance(d, e) == 2  # by b or c
    assert dag.distance(root, d) == 1
    assert dag.lowest_common_ancestor(d, e) == c  # b and c are both lowest: c lies deeper
    assert dag.lowest_common_ancestor(d, c) == c
    assert dag.lowest_common_ancestor(d, d) == d  # though c, above it, has the greater depth
    assert dag.depth[c] > dag.depth[d]


def test_equally_deep_lowest_common_ancestors_give_the_smallest_id():
    dag = Taxonomy.from_edges([(parent, child) for child in "uv" for parent in ("late", "early")], nodes=[
        "early", "late", "u", "v",
    ])  # fmt: skip
    assert dag.lowest_common_ancestor(2, 3) == dag.index("early") == 0


def test_labels_without_a_common_ancestor_are_infinitely_far():
    forest = Taxonomy.from_mapping({"dog": "animal", "saw": "tool"})
    dog, saw = forest.index("dog"), forest.index("saw")
    assert forest.is_tree
    assert len(forest.roots) == 2
    assert forest.lowest_common_ancestor(dog, saw) is None
    assert forest.distance(dog, saw) == math.inf
    assert forest.distances(torch.tensor([dog]), torch.tensor([dog, saw])).tolist() == [[0, math.inf]]


# -------------------------------------------------------------------------------- by brute force


@pytest.mark.parametrize("most_parents", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_graph_agrees_with_breadth_first_search(seed, most_parents):
    edges = random_edges(seed, most_parents=most_parents)
    taxonomy = Taxonomy.from_edges(edges)
    assert taxonomy.is_tree == (most_parents == 1)
    assert_agrees(taxonomy, edges)
    assert_batched_equals_scalar(taxonomy)


def test_random_graphs_hold_the_hard_cases():
    references = [Reference(random_edges(seed, most_parents=3)) for seed in SEEDS]
    pairs = [(r, u, v) for r in references for u, v in itertools.combinations(r.names, 2)]
    assert any(len(r.lowest(u, v)) > 1 for r, u, v in pairs)
    assert any(r.distance(u, v) == math.inf for r, u, v in pairs)
    related = [(r, u, v, r.lowest(u, v)) for r, u, v in pairs if r.common(u, v)]
    # The lowest common ancestor is not always the one on the shortest way ...
    assert any(r.distance(u, v) < min(r.up[u][a] + r.up[v][a] for a in lowest) for r, u, v, lowest in related)
    # ... and not always the deepest.
    depths = [(r.depth, r.common(u, v), lowest) for r, u, v, lowest in related]
    assert any(max(map(d.get, common)) > max(map(d.get, lowest)) for d, common, lowest in depths)


def test_brute_force_sees_one_edge_moved():
    edges = random_edges(0, most_parents=3)
    moved = [*edges[:-1], next((p, edges[-1][1]) for p, _ in edges if (p, edges[-1][1]) not in edges)]
    with pytest.raises(AssertionError):
        assert_agrees(Taxonomy.from_edges(edges), moved)


@pytest.mark.parametrize("seed", SEEDS)
def test_distance_in_a_tree_is_the_metric_of_its_edges(seed):
    edges = random_edges(seed, most_parents=1)
    tree = Taxonomy.from_edges(edges)
    both_ways = {name: [] for name in tree.names}
    for parent, child in edges:
        both_ways[parent].append(child)
        both_ways[child].append(parent)
    every = torch.arange(tree.num_nodes)
    distance = tree.distances(every, every)
    for i, name in enumerate(tree.names):
        steps = steps_from([name], both_ways)
        assert distance[i].tolist() == [steps.get(other, math.inf) for other in tree.names]
    assert torch.equal(distance, distance.T)
    assert (distance.diagonal() == 0).all()
    assert (distance[:, None, :] <= distance[:, :, None] + distance[None, :, :]).all()
    assert distance.isinf().any()
    assert (distance[distance.isfinite()] > 3).any()


def test_distances_take_memory_for_the_result_and_not_for_every_ancestor():
    class LargestTensor(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                self.entries = max(self.entries, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return result

    # 4000 shared ancestors for 200 x 200 labels: laid out at once, 20 times the result.
    forest = Taxonomy.from_paths([[f"{chain}.{step}" for step in range(20)] for chain in range(200)])
    tips = torch.tensor(forest.leaves)
    assert forest.ancestor_table[0].shape == (4000, 20)  # made once, before the measurement
    with LargestTensor() as largest:
        distances = forest.distances(tips, tips)
    assert torch.equal(
        distances, torch.zeros(200, 200).masked_fill(~torch.eye(200, dtype=torch.bool), math.inf)
    )
    assert largest.entries == distances.numel()


@pytest.mark.parametrize(("num_a", "num_b"), [(0, 3), (3, 0), (1, 1), (30, 1), (1, 30)])
def test_distances_have_the_shape_of_their_labels_however_few(num_a, num_b):
    taxonomy = Taxonomy.from_edges(random_edges(0, most_parents=3))
    a, b = torch.arange(num_a), torch.arange(num_b)
    distances = taxonomy.distances(a, b)
    assert distances.shape == (num_a, num_b)
    assert distances.dtype == torch.float32
    assert distances.tolist() == [[taxonomy.distance(i, j) for j in range(num_b)] for i in range(num_a)]


def test_ancestor_sets_of_no_labels_are_empty():
    offsets, columns = Taxonomy.from_edges(TREE_EDGES).ancestor_sets(torch.arange(0))
    assert offsets.tolist() == [0]
    assert columns.tolist() == []


# -------------------------------------------------------------------------------- questions without an answer


def test_an_unknown_name_is_refused_with_the_nearest_ones():
    tree = Taxonomy.from_edges(TREE_EDGES)
    with pytest.raises(MarginsError, match="'poddle'; the nearest are 'poodle'"):
        tree.index("poddle")
    with pytest.raises(MarginsError, match="no label is near it"):
        tree.index("zzzzzz")


@pytest.mark.parametrize("node", [-1, 6])
def test_an_id_that_does_not_exist_is_refused(node):
    tree = Taxonomy.from_edges(TREE_EDGES)
    for ask in (tree.parents, tree.children, tree.ancestors):
        with pytest.raises(MarginsError, match=rf"\[0, 6\), got {node}"):
            ask(node)
    for ask in (tree.distance, tree.lowest_common_ancestor):
        with pytest.raises(MarginsError, match=rf"\[0, 6\), got {node}"):
            ask(0, node)
    for ask in (lambda ids: tree.distances(ids, torch.arange(2)), tree.ancestor_sets):
        with pytest.raises(MarginsError, match=rf"1 others: \[{node}\]"):
            ask(torch.tensor([0, node]))


# -------------------------------------------------------------------------------- as a value


def test_a_taxonomy_is_an_immutable_value():
    taxonomy = Taxonomy.from_edges(DAG_EDGES)
    twin = Taxonomy.from_edges(DAG_EDGES)
    taxonomy.distances(torch.arange(2), torch.arange(2))  # tables in place on one of them only
    assert taxonomy == twin
    assert hash(taxonomy) == hash(twin)
    assert taxonomy != Taxonomy.from_edges(DAG_EDGES[:-1])
    assert taxonomy != Taxonomy.from_edges([(p.upper(), c.upper()) for p, c in DAG_EDGES])
    with pytest.raises(dataclasses.FrozenInstanceError):
        taxonomy.names = ()


def test_copies_and_pickles_equal_the_original():
    taxonomy = Taxonomy.from_edges(DAG_EDGES)
    bare = len(pickle.dumps(taxonomy))
    expected = taxonomy.distances(torch.arange(6), torch.arange(6))
    assert len(pickle.dumps(taxonomy)) == bare  # the tables do not travel
    for again in (copy.copy(taxonomy), copy.deepcopy(taxonomy), pickle.loads(pickle.dumps(taxonomy))):  # noqa: S301
        assert again == taxonomy
        assert torch.equal(again.distances(torch.arange(6), torch.arange(6)), expected)


def test_repr_says_kind_and_size():
    assert repr(Taxonomy.from_edges(TREE_EDGES)) == "Taxonomy(tree, num_nodes=6, roots=1, leaves=3, depth=3)"
    assert "forest" in repr(Taxonomy.from_mapping({"a": None, "b": None}))
    assert "directed acyclic graph" in repr(Taxonomy.from_edges(DAG_EDGES))


# -------------------------------------------------------------------------------- real data


def table(path):
    if not path.exists():
        pytest.skip(f"{path.parent.name} of ../shared/data is not here")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_goods_nomenclature_is_a_tree_whose_codes_begin_with_their_parents():
    rows = table(DATA / "hs_codes" / "nodes.csv.gz")
    columns = [row["hscode"] for row in rows], [row["parent"] for row in rows]
    with pytest.raises(MarginsError, match="self-loops: 'TOTAL'"):  # as the table has it
        Taxonomy.from_columns(children=columns[0], parents=columns[1])
    goods = Taxonomy.from_mapping({c: None if c == p else p for c, p in zip(*columns, strict=True)})
    assert repr(goods) == "Taxonomy(tree, num_nodes=6940, roots=1, leaves=5613, depth=3)"
    some = range(1, goods.num_nodes, 23)
    codes = [goods.names[node] for node in some]

    def steps(code, other):
        shared = sum(code[:end] == other[:end] for end in range(2, min(len(code), len(other)) + 1, 2))
        return len(code) // 2 + len(other) // 2 - 2 * shared

    assert {len(code) for code in codes} == {2, 4, 6}
    expected = [[steps(code, other) for other in codes] for code in codes]
    assert goods.distances(torch.tensor(some), torch.tensor(some)).tolist() == expected


def test_wordnet_ancestors_are_the_labels_that_the_data_set_lists():
    edges = table(DATA / "wordnet_things" / "edges.csv.gz")
    things = Taxonomy.from_columns(parents=[e["parent"] for e in edges], children=[e["node"] for e in edges])
    assert (things.num_nodes, things.is_tree, len(things.roots)) == (33045, False, 1)
    with gzip.open(DATA / "wordnet_things" / "synsets.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = torch.tensor([things.index(json.loads(line)["id"]) for line in file])
    offsets, columns = things.ancestor_sets(rows)
    proper = columns[columns != torch.repeat_interleave(rows, offsets.diff())]
    listed = {row["label"] for row in table(DATA / "wordnet_things" / "labels.csv.gz")}
    assert {things.names[i] for i in proper.unique()} == listed
    assert len(proper) / len(rows) == pytest.approx(10.3, abs=0.05)
    some = rows[:: len(rows) // 40].tolist()
    assert things.distances(torch.tensor(some), torch.tensor(some)).tolist() == [
        [things.distance(i, j) for j in some] for i in some
    ]
