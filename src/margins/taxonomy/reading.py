"""From what users have (edges, paths, a mapping) to checked names and parent ids in topological order.

Whatever is wrong with the input is refused here, and the message names the labels at fault.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate

from margins.errors import MarginsError, describe

Edge = tuple[str, str]
"""(parent, child)"""

MOST_LISTED = 8
"""How many culprits a message names before it says how many more there are."""


def read_pairs(edges: Iterable[object]) -> list[Edge]:
    """(parent, child) pairs, each checked to be two names."""
    return [_edge(pair) for pair in _in_stable_order(edges, argument="edges")]


def read_columns(parents: Iterable[object], children: Iterable[object]) -> list[Edge]:
    """Two columns of a table, row by row one edge."""
    above = list(_in_stable_order(parents, argument="parents"))
    below = list(_in_stable_order(children, argument="children"))
    if len(above) != len(below):
        raise MarginsError(
            "parents, children",
            expected="two columns of one length",
            received=f"{len(above)} parents and {len(below)} children",
            fix="take both columns from the same rows",
        )
    return [_edge(pair) for pair in zip(above, below, strict=True)]


def read_mapping(mapping: Mapping[str, object]) -> tuple[list[str], list[Edge]]:
    """Names by first appearance and edges of {child: parent, parents or None}.

    A mapping that marks one root with None marks them all, so that a misspelt parent cannot slip in as
    one more root.
    """
    names: list[str] = []
    edges: list[Edge] = []
    marks_roots = False
    for key, value in mapping.items():
        child = _name(key, argument="mapping")
        parents = _parents_in(value, child=child)
        marks_roots = marks_roots or not parents
        names.extend((child, *parents))
        edges.extend((parent, child) for parent in parents)
    orphans = [name for name in dict.fromkeys(names) if marks_roots and name not in mapping]
    if orphans:
        raise MarginsError(
            "mapping",
            expected="every parent to be a key too, as the mapping marks its roots with None",
            received=f"orphans, without an entry of their own: {_listed(orphans)}",
            fix=f"correct the name, or add {orphans[0]!r}: None to make it a root",
        )
    return names, edges


def read_paths(paths: Iterable[object], *, separator: str) -> tuple[list[str], list[Edge]]:
    """Names by first appearance and edges of paths whose parts name the nodes."""
    above: dict[str, str | None] = {}
    for parts in _parts_of(paths, separator=separator):
        parent = None
        for name in parts:
            if above.setdefault(name, parent) != parent:
                _refuse_second_place(name, above[name], parent)
            parent = name
    return list(above), [(parent, name) for name, parent in above.items() if parent is not None]


def read_qualified_paths(paths: Iterable[object], *, separator: str) -> tuple[list[str], list[Edge]]:
    """Names by first appearance and edges of paths whose beginnings name the nodes."""

    def beginnings() -> Iterable[tuple[str, ...]]:
        for parts in _parts_of(paths, separator=separator):
            ambiguous = [part for part in parts if separator in part]
            if ambiguous:
                raise MarginsError(
                    "paths",
                    expected=f"parts without the separator {separator!r}, which joins them to names",
                    received=f"{_listed(ambiguous)} in {parts!r}",
                    fix="choose another separator",
                )
            yield tuple(accumulate(parts, lambda path, part: f"{path}{separator}{part}"))

    return read_paths(beginnings(), separator=separator)


def read_nodes(nodes: Iterable[object], *, edges: Sequence[Edge]) -> list[str]:
    """Read the complete list of names; an orphan on either side is refused."""
    listed = [_name(node, argument="nodes") for node in _in_stable_order(nodes, argument="nodes")]
    _refuse_repeats(listed, argument="nodes", kind="names")
    linked = dict.fromkeys(name for edge in edges for name in edge)
    known = set(listed)
    strangers = [name for name in linked if name not in known]
    if strangers:
        raise MarginsError(
            "edges",
            expected="names that stand in nodes",
            received=f"others: {_listed(strangers)}",
            fix="correct the name, or add it to nodes",
        )
    orphans = [name for name in listed if name not in linked]
    if orphans:
        raise MarginsError(
            "nodes",
            expected="names that stand in an edge",
            received=f"orphans, without a parent and a child: {_listed(orphans)}",
            fix="add their edges, or mark roots that stand alone by name: None in Taxonomy.from_mapping",
        )
    return listed


def in_topological_order(
    names: Iterable[str], edges: Sequence[Edge], *, argument: str
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Names and parent ids, parents first; among nodes whose parents are placed, first appearance decides."""
    appeared = tuple(dict.fromkeys(names))
    _refuse_wrong_edges(appeared, edges, argument=argument)
    place = {name: number for number, name in enumerate(appeared)}
    parents: list[list[int]] = [[] for _ in appeared]
    children: list[list[int]] = [[] for _ in appeared]
    for parent, child in edges:
        parents[place[child]].append(place[parent])
        children[place[parent]].append(place[child])
    waiting_for = [len(above) for above in parents]
    ready = [node for node, count in enumerate(waiting_for) if count == 0]
    order: list[int] = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for child in children[node]:
            waiting_for[child] -= 1
            if waiting_for[child] == 0:
                heapq.heappush(ready, child)
    if len(order) < len(appeared):
        _refuse_cycle(appeared, parents, argument=argument)
    new_id = {node: number for number, node in enumerate(order)}
    return (
        tuple(appeared[node] for node in order),
        tuple(tuple(sorted(new_id[parent] for parent in parents[node])) for node in order),
    )


def _refuse_wrong_edges(names: Sequence[str], edges: Sequence[Edge], *, argument: str) -> None:
    if not names:
        raise MarginsError(
            argument, expected="at least one label", received="none", fix="check that the input was read"
        )
    loops = [parent for parent, child in edges if parent == child]
    if loops:
        raise MarginsError(
            argument,
            expected="no label to be its own parent",
            received=f"self-loops: {_listed(loops)}",
            fix="leave the edge out if the label is a root, or correct its parent",
        )
    _refuse_repeats(edges, argument=argument, kind="edges")


def _refuse_repeats(items: Sequence[str] | Sequence[Edge], *, argument: str, kind: str) -> None:
    if len(set(items)) == len(items):
        return
    repeated = [item for item, count in Counter[str | Edge](items).items() if count > 1]
    raise MarginsError(
        argument,
        expected=f"{kind} that differ",
        received=f"duplicate {kind}: {_listed(repeated)}",
        fix="leave the repetitions out, or correct the one that was meant to be another",
    )


def _refuse_cycle(names: Sequence[str], parents: Sequence[Sequence[int]], *, argument: str) -> None:
    try:
        TopologicalSorter(dict(enumerate(parents))).prepare()
    except CycleError as error:
        cycle: list[int] = error.args[1][:-1]
        first = cycle.index(min(cycle))
        around = [names[node] for node in (*cycle[first:], *cycle[:first], cycle[first])]
        raise MarginsError(
            argument,
            expected="no label to be its own ancestor",
            received=f"the cycle {' > '.join(around)}",
            fix="remove or turn round one of these edges (parent > child)",
        ) from None


def _refuse_second_place(name: str, *parents: str | None) -> None:
    first, second = ("as a root" if parent is None else f"under {parent!r}" for parent in parents)
    raise MarginsError(
        "paths",
        expected="each name in one place only",
        received=f"the duplicate {name!r}, {first} and {second}",
        fix="name the nodes by their whole paths with Taxonomy.from_qualified_paths, or use from_edges if a "
        "node really has several parents",
    )


def _parts_of(paths: Iterable[object], *, separator: str) -> Iterable[tuple[str, ...]]:
    """Parts of each path; a string comes once, as a column repeats the path of every row of a label."""
    if not separator:
        raise MarginsError("separator", expected="at least one character", received="''")
    seen: set[str] = set()
    for path in _in_stable_order(paths, argument="paths"):
        if isinstance(path, str):
            if path in seen:
                continue
            seen.add(path)
            parts = path.split(separator)
        else:  # what is no path at all is refused below, by value and type
            parts = path if isinstance(path, Iterable) else (path,)
        read = tuple(_name(part, argument="paths", within=path) for part in parts)
        if not read:
            raise MarginsError(
                "paths", expected="paths of at least one name", received=f"the empty path {path!r}"
            )
        yield read


def _parents_in(value: object, *, child: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Iterable):
        parents = (value,)
    else:
        parents = _in_stable_order(value, argument="mapping")
    return tuple(_name(parent, argument="mapping", within={child: value}) for parent in parents)


def _edge(pair: object) -> Edge:
    parts = () if isinstance(pair, str) or not isinstance(pair, Iterable) else tuple(pair)
    if len(parts) != 2:
        raise MarginsError(
            "edges",
            expected="pairs (parent, child) of names",
            received=repr(pair),
            fix="two columns go to Taxonomy.from_columns, a mapping to Taxonomy.from_mapping",
        )
    parent, child = (_name(part, argument="edges", within=parts) for part in parts)
    return parent, child


def _name(value: object, *, argument: str, within: object = None) -> str:
    if isinstance(value, str) and value.strip():
        return str(value)  # numpy's strings become plain ones
    if isinstance(value, str):
        received, fix = (
            f"the empty name {value!r}",
            "a root has no parent: leave its edge out, or map it to None",
        )
    else:
        received, fix = (
            f"{value!r} ({describe(value)})",
            "turn codes into text, and leave out what has no name",
        )
    where = "" if within is None else f" in {within!r}"
    raise MarginsError(argument, expected="names as non-empty strings", received=received + where, fix=fix)


def _in_stable_order(items: Iterable[object], *, argument: str) -> Iterable[object]:
    """Refuse sets: their order differs from process to process, and ids would follow it."""
    if isinstance(items, set | frozenset):
        raise MarginsError(
            argument,
            expected="an ordered collection, because ids follow first appearance",
            received=f"a {type(items).__name__}",
            fix="pass sorted(...) of it",
        )
    if isinstance(items, str):
        raise MarginsError(argument, expected="a collection", received=f"the one string {items!r}")
    return items


def _listed(items: Sequence[str | Edge]) -> str:
    shown = [
        repr(item) if isinstance(item, str) else f"{item[0]} > {item[1]}" for item in items[:MOST_LISTED]
    ]
    more = len(items) - MOST_LISTED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
