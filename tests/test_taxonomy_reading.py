"""Taxonomy: how it is read from edges, paths and mappings, and that a refusal names the labels at fault."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from margins.errors import MarginsError
from margins.taxonomy import Taxonomy

TREE_EDGES = [("thing", "animal"), ("animal", "dog"), ("animal", "cat"), ("dog", "poodle"), ("thing", "tool")]


def test_all_constructors_agree():
    tree = Taxonomy.from_edges(TREE_EDGES)
    parents, children = zip(*TREE_EDGES, strict=True)
    assert Taxonomy.from_columns(parents=parents, children=children) == tree
    assert Taxonomy.from_edges(np.array(TREE_EDGES)) == tree
    order = ["thing", "animal", "dog", "cat", "poodle", "tool"]
    above = {child: parent for parent, child in TREE_EDGES}
    assert Taxonomy.from_mapping({name: above.get(name) for name in order}) == tree
    assert Taxonomy.from_mapping({name: [above[name]] if name in above else [] for name in order}) == tree
    paths = ["thing/animal", "thing/animal/dog", "thing/animal/cat", "thing/animal/dog/poodle", "thing/tool"]
    assert Taxonomy.from_paths(paths) == tree
    assert Taxonomy.from_paths(path.replace("/", " > ") for path in paths) != tree
    assert Taxonomy.from_paths((path.replace("/", " > ") for path in paths), separator=" > ") == tree
    assert Taxonomy.from_paths([path.split("/") for path in paths]) == tree


def test_ids_are_topological_and_follow_first_appearance():
    assert Taxonomy.from_edges([("b", "c"), ("a", "b"), ("a", "d")]).names == ("a", "b", "c", "d")
    assert Taxonomy.from_edges([("r", "z"), ("r", "y"), ("q", "x")]).names == ("r", "z", "y", "q", "x")
    listed = Taxonomy.from_edges([("r", "z"), ("r", "y")], nodes=["y", "r", "z"])
    assert listed.names == ("r", "y", "z")


def test_a_path_column_may_repeat_its_paths():
    assert Taxonomy.from_paths(["a/b", "a", "a/b", "a/c", "a/b"]) == Taxonomy.from_edges(
        [("a", "b"), ("a", "c")]
    )


def test_qualified_paths_keep_equal_parts_apart():
    taxonomy = Taxonomy.from_qualified_paths(["animal/seal", ("office", "seal")])
    assert taxonomy.names == ("animal", "animal/seal", "office", "office/seal")
    assert taxonomy.parents(taxonomy.index("office/seal")) == (taxonomy.index("office"),)


def test_a_mapping_without_marked_roots_takes_parents_that_are_no_keys_as_roots():
    taxonomy = Taxonomy.from_mapping({"dog": "animal", "cat": "animal"})
    assert [taxonomy.names[root] for root in taxonomy.roots] == ["animal"]


def test_a_root_marked_in_a_mapping_may_stand_alone():
    taxonomy = Taxonomy.from_mapping({"neutral": None, "joy": (), "delight": "joy"})
    assert taxonomy.roots == (0, 1)
    assert taxonomy.leaves == (0, 2)


def test_a_chain_of_many_labels_needs_no_recursion():
    names = [f"{number}" for number in range(5000)]
    chain = Taxonomy.from_edges(itertools.pairwise(names))
    assert chain.distance(0, 4999) == 4999
    assert int(chain.depth.max()) == 4999


# -------------------------------------------------------------------------------- refusals

REFUSALS = {
    "cycle": (
        Taxonomy.from_edges,
        [("r", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "x")],
        "a > b > c > a",
    ),
    "cycle without a root": (Taxonomy.from_mapping, {"a": "b", "b": "a"}, "a > b > a"),
    "self-loop": (Taxonomy.from_edges, [("a", "b"), ("twin", "twin")], "self-loops: 'twin'"),
    "self-loop in a mapping": (Taxonomy.from_mapping, {"a": "twin", "twin": ["twin"]}, "self-loops: 'twin'"),
    "duplicate edge": (Taxonomy.from_edges, [("a", "b"), ("a", "c"), ("a", "b")], "duplicate edges: a > b;"),
    "duplicate parent": (Taxonomy.from_mapping, {"b": ["a", "a"]}, "duplicate edges: a > b;"),
    "name in two places": (Taxonomy.from_paths, ["x/seal", "y/seal"], "'seal', under 'x' and under 'y'"),
    "name as root too": (Taxonomy.from_paths, ["x/seal", "seal"], "'seal', under 'x' and as a root"),
    "name under itself": (Taxonomy.from_paths, ["a/b/a"], "'a', as a root and under 'b'"),
    "orphan in a mapping": (
        Taxonomy.from_mapping,
        {"r": None, "a": "r", "b": "R", "c": "a"},
        "orphans, .*'R';",
    ),
    "empty name in an edge": (Taxonomy.from_edges, [("a", "b"), ("a", " ")], r"' ' in \('a', ' '\)"),
    "empty name in a path": (Taxonomy.from_paths, ["a/b", "a//c"], "'' in 'a//c'"),
    "empty key": (Taxonomy.from_mapping, {"": "a"}, "empty name ''"),
    "number in an edge": (Taxonomy.from_edges, [("a", "b"), ("a", 7)], r"7 \(int\) in \('a', 7\)"),
    "number in a mapping": (
        Taxonomy.from_mapping,
        {"a": "r", "b": ["r", 7]},
        r"7 \(int\) in {'b': \['r', 7\]}",
    ),
    "number as a parent": (Taxonomy.from_mapping, {"a": "r", "b": 7}, r"7 \(int\) in {'b': 7}"),
    "missing path": (Taxonomy.from_paths, ["a/b", float("nan")], r"nan \(float\)"),
    "no pair": (Taxonomy.from_edges, [("a", "b"), ("a", "b", "c")], r"\('a', 'b', 'c'\)"),
    "two letters are no pair": (Taxonomy.from_edges, [("a", "b"), "xy"], "'xy'"),
    "separator in a part": (Taxonomy.from_qualified_paths, [("a/b", "c")], "'a/b' in"),
    "path without parts": (Taxonomy.from_paths, ["a", ()], r"the empty path \(\)"),
    "one string": (Taxonomy.from_paths, "a/b", "the one string 'a/b'"),
    "set of edges": (Taxonomy.from_edges, {("a", "b")}, "a set"),
    "set of parents": (Taxonomy.from_mapping, {"a": {"b", "c"}}, "a set"),
    "no edges": (Taxonomy.from_edges, [], "edges: .*at least one label"),
    "no paths": (Taxonomy.from_paths, [], "paths: .*at least one label"),
    "empty mapping": (Taxonomy.from_mapping, {}, "mapping: .*at least one label"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_names_the_culprit(case):
    build, given, message = REFUSALS[case]
    with pytest.raises(MarginsError, match=message):
        build(given)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (["a", "b", "lonely"], "nodes: .*orphans, .*'lonely'"),
        (["a"], "edges: .*got others: 'b'"),
        (["a", "b", "a"], "nodes: .*duplicate names: 'a'"),
        (["a", "b", 3], r"nodes: .*3 \(int\)"),
    ],
)
def test_a_list_of_nodes_that_does_not_fit_the_edges_is_refused_by_name(nodes, message):
    with pytest.raises(MarginsError, match=message):
        Taxonomy.from_edges([("a", "b")], nodes=nodes)
    assert Taxonomy.from_edges([("a", "b")], nodes=["b", "a"]).names == ("a", "b")


def test_columns_of_different_length_are_refused():
    with pytest.raises(MarginsError, match="2 parents and 1 children"):
        Taxonomy.from_columns(parents=["a", "a"], children=["b"])


def test_a_separator_of_no_characters_is_refused():
    with pytest.raises(MarginsError, match="separator"):
        Taxonomy.from_paths(["a/b"], separator="")


def test_many_culprits_are_counted_and_not_all_printed():
    with pytest.raises(MarginsError, match="'label 7' and 92 more"):
        Taxonomy.from_edges([("a", "b")], nodes=["a", "b", *(f"label {number}" for number in range(100))])


def test_a_plain_constructor_call_with_a_cycle_is_refused():
    with pytest.raises(MarginsError, match="parent_ids"):
        Taxonomy(("a", "b"), ((1,), (0,)))
    with pytest.raises(MarginsError, match="parent_ids"):
        Taxonomy(("a", "a"), ((), (0,)))
    with pytest.raises(MarginsError, match="parent_ids"):
        Taxonomy(("a", "b"), ((), (-1,)))
    assert Taxonomy(("a", "b"), ((), (0,))) == Taxonomy.from_edges([("a", "b")])
