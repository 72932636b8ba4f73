"""The taxonomy: an immutable tree or directed acyclic graph of named labels."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from margins.errors import MarginsError
from margins.taxonomy import reading
from margins.taxonomy.ancestry import Ancestry


@dataclass(frozen=True, repr=False)
class Taxonomy:
    """Labels with parents: a tree, a forest, or a directed acyclic graph.

    Use it where labels stand one under another: for targets that count ancestors, for graded positives,
    and for metrics that weigh a near miss less than a far one. Build it with `from_edges`, `from_columns`,
    `from_mapping`, `from_paths` or `from_qualified_paths`; the plain constructor takes what these make.

    Ids run from 0 in topological order: parents before children, first appearance otherwise. Two taxonomies
    are equal when the same names have the same ids and the same parents. The tensors it hands out are its
    own, not copies: do not write into them.

    Args:
        names: name of each id.
        parent_ids: the parents of each id, ascending, each smaller than the id itself.

    Raises:
        MarginsError: names that repeat, or parents out of order.

    Example:
        >>> animals = Taxonomy.from_edges([("animal", "dog"), ("animal", "cat"), ("dog", "poodle")])
        >>> animals
        Taxonomy(tree, num_nodes=4, roots=1, leaves=2, depth=2)
        >>> animals.names
        ('animal', 'dog', 'cat', 'poodle')
        >>> animals.distance(animals.index("poodle"), animals.index("cat"))
        3.0
    """

    names: tuple[str, ...]
    parent_ids: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        ids_in_order = all(
            all(low < high for low, high in pairwise((-1, *parents, node)))
            for node, parents in enumerate(self.parent_ids)
        )
        if not (ids_in_order and 0 < len(self.names) == len(self.parent_ids) == len(set(self.names))):
            raise MarginsError(
                "names, parent_ids",
                expected="distinct names, and for each its parents' ids, ascending and smaller than its own",
                received=f"{len(self.names)} names and {len(self.parent_ids)} tuples of parents",
                fix="build it with from_edges, from_columns, from_mapping or from_paths",
            )

    @classmethod
    def from_edges(cls, edges: Iterable[Iterable[str]], *, nodes: Iterable[str] | None = None) -> Taxonomy:
        """Build from (parent, child) pairs of names.

        Args:
            edges: the pairs, in an order that stays the same from run to run.
            nodes: all names there should be. With it, a name in an edge that is not listed and a listed name
                without an edge (an orphan) are refused, and ids follow the list where the edges allow it.

        Returns:
            The taxonomy; a node that is nobody's child is a root.

        Raises:
            MarginsError: no edges, an empty name or one that is not text, a self-loop, a duplicate edge,
                a cycle, an orphan. The message names the labels.

        Example:
            >>> Taxonomy.from_edges([("a", "b"), ("b", "c"), ("c", "a")])
            Traceback (most recent call last):
            margins.errors.MarginsError: edges: expected no label to be its own ancestor, got the cycle
            a > b > c > a; remove or turn round one of these edges (parent > child)
        """
        return cls._of_edges(reading.read_pairs(edges), nodes=nodes)

    @classmethod
    def from_columns(
        cls, *, parents: Iterable[str], children: Iterable[str], nodes: Iterable[str] | None = None
    ) -> Taxonomy:
        """Build from two columns of a table, one edge a row.

        Args:
            parents: [E] the parent of each row.
            children: [E] its child.
            nodes: as for `from_edges`.

        Returns:
            The taxonomy; a node that is nobody's child is a root.

        Raises:
            MarginsError: columns of different length, and whatever `from_edges` refuses.

        Example:
            >>> Taxonomy.from_columns(parents=["animal", "animal"], children=["dog", "cat"]).num_nodes
            3
        """
        return cls._of_edges(reading.read_columns(parents, children), nodes=nodes)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str | Iterable[str] | None]) -> Taxonomy:
        """Build from {child: parent} or {child: [parents]}.

        Args:
            mapping: None or no parents marks a root, which may stand alone. If no root is marked, a parent
                that is not a key is one; if any is marked, all must be, and such a parent is an orphan.

        Returns:
            The taxonomy.

        Raises:
            MarginsError: an orphan, and whatever `from_edges` refuses.

        Example:
            >>> Taxonomy.from_mapping({"liger": ["lion", "tiger"], "lion": "cat", "tiger": "cat"})
            Taxonomy(directed acyclic graph, num_nodes=4, roots=1, leaves=1, depth=2)
        """
        names, edges = reading.read_mapping(mapping)
        return cls(*reading.in_topological_order(names, edges, argument="mapping"))

    @classmethod
    def from_paths(cls, paths: Iterable[str | Sequence[str]], *, separator: str = "/") -> Taxonomy:
        """Build from paths such as "animal/dog/poodle"; a node is named by its own part, "poodle".

        Args:
            paths: strings, split at `separator`, or sequences of names from the root down. A column of a
                table may be given as it is: paths may repeat, and need not end in a leaf.
            separator: what stands between two parts of a string.

        Returns:
            The taxonomy, a tree or forest.

        Raises:
            MarginsError: no paths, an empty part, a part that is not text, the same name in two places (then
                use `from_qualified_paths`).

        Example:
            >>> Taxonomy.from_paths(["animal/dog/poodle", "animal/cat"]).names
            ('animal', 'dog', 'poodle', 'cat')
        """
        names, edges = reading.read_paths(paths, separator=separator)
        return cls(*reading.in_topological_order(names, edges, argument="paths"))

    @classmethod
    def from_qualified_paths(cls, paths: Iterable[str | Sequence[str]], *, separator: str = "/") -> Taxonomy:
        """Build from paths; a node is named by its whole path, so that the same part may stand in two places.

        Args:
            paths: as for `from_paths`.
            separator: what stands between two parts, in the paths and in the names.

        Returns:
            The taxonomy, a tree or forest.

        Raises:
            MarginsError: no paths, an empty part, a part that is not text or holds the separator.

        Example:
            >>> Taxonomy.from_qualified_paths(["animal/seal", "office/seal"]).names
            ('animal', 'animal/seal', 'office', 'office/seal')
        """
        names, edges = reading.read_qualified_paths(paths, separator=separator)
        return cls(*reading.in_topological_order(names, edges, argument="paths"))

    @classmethod
    def _of_edges(cls, edges: Sequence[tuple[str, str]], *, nodes: Iterable[str] | None) -> Taxonomy:
        linked = (name for edge in edges for name in edge)
        names = linked if nodes is None else reading.read_nodes(nodes, edges=edges)
        return cls(*reading.in_topological_order(names, edges, argument="edges"))

    @property
    def num_nodes(self) -> int:
        """How many labels there are."""
        return len(self.names)

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """Ids without a parent."""
        return tuple(node for node, parents in enumerate(self.parent_ids) if not parents)

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """Ids without a child."""
        return tuple(node for node, children in enumerate(self._child_ids) if not children)

    @cached_property
    def is_tree(self) -> bool:
        """Whether no label has two parents. Several roots, a forest, are still a tree in this sense."""
        return all(len(parents) <= 1 for parents in self.parent_ids)

    @cached_property
    def depth(self) -> Int64[Tensor, "N"]:
        """Length of the shortest way down from a root to each node; 0 at the roots."""
        depth: list[int] = []
        for parents in self.parent_ids:
            depth.append(min((depth[parent] for parent in parents), default=-1) + 1)
        return torch.tensor(depth)

    def index(self, name: str) -> int:
        """Id of a name.

        Raises:
            MarginsError: there is no such name; the message offers the nearest ones.
        """
        try:
            return self._ids[name]
        except KeyError:
            near = difflib.get_close_matches(str(name), self.names)
            raise MarginsError(
                "name",
                expected=f"one of the taxonomy's {self.num_nodes} labels",
                received=repr(name),
                fix=f"the nearest are {', '.join(map(repr, near))}" if near else "no label is near it",
            ) from None

    def parents(self, node: int) -> tuple[int, ...]:
        """Ids one step above a node, ascending; none for a root."""
        return self.parent_ids[self._checked(node)]

    def children(self, node: int) -> tuple[int, ...]:
        """Ids one step below a node, ascending; none for a leaf."""
        return self._child_ids[self._checked(node)]

    def ancestors(self, node: int, *, include_self: bool = False) -> dict[int, int]:
        """Every id above a node with the length of the shortest way up to it, nearest first.

        Args:
            node: an id.
            include_self: whether the node itself, at distance 0, comes first.

        Returns:
            {ancestor: way up}, by distance and then by id.

        Raises:
            MarginsError: the id does not exist.

        Example:
            >>> Taxonomy.from_paths(["animal/dog/poodle"]).ancestors(2)
            {1: 1, 0: 2}
        """
        frontier = [self._checked(node)]
        found = {frontier[0]: 0}
        way = 0
        while frontier:
            way += 1
            above = {parent for below in frontier for parent in self.parent_ids[below]}
            frontier = sorted(above - found.keys())
            found.update(dict.fromkeys(frontier, way))
        return found if include_self else {ancestor: up for ancestor, up in found.items() if up}

    def lowest_common_ancestor(self, u: int, v: int) -> int | None:
        """Find the common ancestor (a node is its own) below which there is no other.

        A directed acyclic graph may have several: then the deepest (by `depth`), of these the smallest id.

        Returns:
            Its id, or None when the two have no common ancestor.

        Raises:
            MarginsError: an id does not exist.

        Example:
            >>> animals = Taxonomy.from_paths(["animal/dog/poodle", "animal/cat"])
            >>> animals.names[animals.lowest_common_ancestor(2, 3)]
            'animal'
        """
        common = self.ancestors(u, include_self=True).keys() & self.ancestors(v, include_self=True).keys()
        lowest = common.difference(*(self.parent_ids[node] for node in common))
        return min(lowest, key=lambda node: (-int(self.depth[node]), node), default=None)

    def distance(self, u: int, v: int) -> float:
        """Length of the shortest way from u up to a common ancestor and down to v.

        In a tree this is the number of edges between the two, a metric. In a directed acyclic graph it need
        not obey the triangle inequality, and the best common ancestor need not be the lowest.

        Returns:
            The length, infinite when the two have no common ancestor.

        Raises:
            MarginsError: an id does not exist.
        """
        up_u, up_v = self.ancestors(u, include_self=True), self.ancestors(v, include_self=True)
        return float(min((up_u[node] + up_v[node] for node in up_u.keys() & up_v.keys()), default=torch.inf))

    @property
    def ancestor_table(self) -> tuple[Int64[Tensor, "N A"], Int64[Tensor, "N A"]]:
        """Ids of all ancestors of each node, itself included, and the shortest ways up to them.

        Computed once. A is the largest number of ancestors; ids ascend along a row (the node itself is the
        last), and both tensors hold -1 where a row is shorter. A chain of N labels needs N x N entries.
        """
        return self._ancestry(torch.device("cpu")).padded

    def ancestor_sets(
        self, labels: Int64[Tensor, "B"]
    ) -> tuple[Int64[Tensor, "B+1"], Int64[Tensor, "entries"]]:
        """All ancestors of each label, itself included, as sparse rows.

        Args:
            labels: [B] ids.

        Returns:
            Offsets [B + 1] and columns: row i is `columns[offsets[i]:offsets[i + 1]]`, ascending.

        Raises:
            MarginsError: labels of another shape or type, or ids that do not exist.

        Example:
            >>> Taxonomy.from_paths(["animal/dog", "animal/cat"]).ancestor_sets(torch.tensor([2, 0]))
            (tensor([0, 2, 3]), tensor([0, 2, 0]))
        """
        return self._ancestry(labels.device).sets(labels)

    def distances(self, a: Int64[Tensor, "B"], b: Int64[Tensor, "M"]) -> Float[Tensor, "B M"]:
        """`distance` of every label of `a` to every label of `b`, on their device.

        Args:
            a: [B] ids.
            b: [M] ids, on the same device.

        Returns:
            [B, M] float32, infinite where two labels have no common ancestor. Takes memory for a few such
            matrices and the ancestors' table, time for B x M x A.

        Raises:
            MarginsError: labels of another shape or type, or ids that do not exist.

        Example:
            >>> Taxonomy.from_paths(["pet/dog", "pet/cat"]).distances(torch.tensor([1]), torch.tensor([0, 2]))
            tensor([[1., 2.]])
        """
        return self._ancestry(a.device).distances(a, b)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: node for node, name in enumerate(self.names)}

    @cached_property
    def _child_ids(self) -> tuple[tuple[int, ...], ...]:
        below: list[list[int]] = [[] for _ in self.names]
        for node, parents in enumerate(self.parent_ids):
            for parent in parents:
                below[parent].append(node)
        return tuple(map(tuple, below))

    @cached_property
    def _ancestry_on(self) -> dict[torch.device, Ancestry]:
        return {torch.device("cpu"): Ancestry.of(self.parent_ids)}

    def _ancestry(self, device: torch.device) -> Ancestry:
        """Move it once to each device that labels come from, so that no batch pays for it again."""
        kept = self._ancestry_on
        if device not in kept:
            kept[device] = kept[torch.device("cpu")].to(device)
        return kept[device]

    def _checked(self, node: int) -> int:
        if 0 <= operator.index(node) < self.num_nodes:
            return operator.index(node)
        raise MarginsError("node", expected=f"an id in [0, {self.num_nodes})", received=str(node))

    def __reduce__(self) -> tuple[type[Taxonomy], tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]]:
        # Without the tables: a worker that needs them computes them.
        return type(self), (self.names, self.parent_ids)

    def __copy__(self) -> Taxonomy:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Taxonomy:
        return self  # immutable

    def __repr__(self) -> str:
        forest = "tree" if len(self.roots) == 1 else "forest"
        kind = forest if self.is_tree else "directed acyclic graph"
        return (
            f"Taxonomy({kind}, num_nodes={self.num_nodes}, roots={len(self.roots)}, "
            f"leaves={len(self.leaves)}, depth={int(self.depth.max())})"
        )
