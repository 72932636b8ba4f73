"""Coding of ways down a taxonomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Int64
from torch import Tensor

from margins.data.coding import TargetCoding, as_names, as_numpy, numbers_of, refuse_empty
from margins.data.columns import TargetKind
from margins.data.row_names import named_rows, true_rows
from margins.errors import MarginsError
from margins.targets import Targets
from margins.taxonomy import Taxonomy

if TYPE_CHECKING:
    import polars as pl

_SIGN = " > "


@dataclass(frozen=True)
class PathCoding(TargetCoding):
    """A way down a taxonomy in each row, "animal > dog > poodle": every node on it is a positive.

    Nodes are named by their whole paths, so that two nodes called "other" stay apart. A path may end at an
    inner node.

    Args:
        taxonomy: all nodes on all paths.
        separator: between the steps in a cell.
        notes: paths with one row.

    Example:
        >>> import polars as pl
        >>> coding = PathCoding.fit(pl.Series("y", ["a > b", "a > c"]))
        >>> coding.names
        ('a', 'a > b', 'a > c')
        >>> coding.targets(pl.Series("y", ["a>c"])).block(0, 3).grades
        tensor([[1., 0., 1.]])
    """

    kind: ClassVar[TargetKind] = "path"

    taxonomy: Taxonomy
    separator: str = ">"
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def fit(cls, cells: pl.Series, *, separator: str = ">") -> Self:
        """The taxonomy of the paths in these cells.

        Raises:
            MarginsError: an empty cell or step, or a single path.
        """
        counted = _paths(cells, separator).value_counts(name="count", sort=True).sort(cells.name)
        paths = counted[cells.name].to_list()
        if len(paths) < 2:
            raise MarginsError(
                f"target {cells.name!r}",
                expected="at least two paths",
                received=f"{paths[0]!r} in every row" if paths else "no rows",
                fix="choose the column that tells the rows apart",
            )
        num_single = int((counted["count"] == 1).sum())
        single = (f"{num_single} of {len(paths)} paths have a single row.",) if num_single else ()
        return cls(
            Taxonomy.from_qualified_paths([p.split(_SIGN) for p in paths], separator=_SIGN), separator, single
        )

    @property
    def names(self) -> tuple[str, ...]:
        return self.taxonomy.names

    @cached_property
    def leaves(self) -> tuple[int, ...]:
        """The nodes without children: the classes at the ends."""
        return self.taxonomy.leaves

    def nodes(self, cells: pl.Series) -> Int64[Tensor, " rows"]:
        """The node at the end of each row's path.

        Raises:
            MarginsError: a path that the taxonomy does not have, with its row.
        """
        paths = _paths(cells, self.separator)
        numbers = numbers_of(paths, self.names, argument=f"target {cells.name!r}", what="a known path")
        return torch.from_numpy(as_numpy(numbers))

    def targets(self, cells: pl.Series) -> Targets:
        return Targets.of_label_sets(self.taxonomy.ancestor_sets(self.nodes(cells)), self.num_outputs)

    def to_data(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "names": list(self.taxonomy.names),
            "parents": [list(parents) for parents in self.taxonomy.parent_ids],
            "separator": self.separator,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        parents = tuple(tuple(ids) for ids in data["parents"])
        return cls(Taxonomy(tuple(data["names"]), parents), data["separator"])


def _paths(cells: pl.Series, separator: str) -> pl.Series:
    """Paths with the house's sign between steps that carry no spaces at their ends."""
    import polars as pl

    sign = separator.strip() or separator
    if not sign:
        raise MarginsError("separator", expected="at least one character", received="''")
    if isinstance(cells.dtype, pl.List):
        steps = cells.cast(pl.List(pl.String))
        clash = true_rows(steps.list.eval(pl.element().str.contains(_SIGN, literal=True)).list.any())
        if len(clash):
            raise MarginsError(
                f"target {cells.name!r}",
                expected=f"steps without {_SIGN!r}, which joins them to names",
                received=f"one in {named_rows(clash)}",
            )
    else:
        texts = as_names(cells)
        refuse_empty(texts, "a path in every row")
        steps = texts.str.split(sign)
    steps = steps.list.eval(pl.element().str.strip_chars())
    is_wrong = steps.list.eval(pl.element().is_null() | (pl.element() == "")).list.any()
    wrong = true_rows(is_wrong | steps.is_null() | (steps.list.len() == 0))
    if len(wrong):
        raise MarginsError(
            f"target {cells.name!r}",
            expected=f"names between the separators {sign!r}",
            received=f"an empty step in {named_rows(wrong)}",
            fix="correct these paths",
        )
    return steps.list.join(_SIGN).alias(cells.name)
