"""All ancestors of all nodes as arrays, and what follows from them for whole batches of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from margins.errors import MarginsError, describe, values_are_readable

_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ancestry:
    """Those of node n, itself included, ascending: `columns[offsets[n]:offsets[n + 1]]`.

    Ids are topological, so every row ends with the node itself.

    Args:
        offsets: [N + 1] where each node's row begins.
        columns: ids of the ancestors, row after row.
        up: for each of them the length of the shortest way up to it.
    """

    offsets: Int64[Tensor, "nodes_and_end"]
    columns: Int64[Tensor, "entries"]
    up: Int64[Tensor, "entries"]

    @classmethod
    def of(cls, parent_ids: Sequence[Sequence[int]]) -> Ancestry:
        """Each node's row is its parents' rows, merged and one step further up, then the node itself."""
        rows: list[_Ids] = []
        ups: list[_Ids] = []
        for node, parents in enumerate(parent_ids):
            above, up = _merged([rows[parent] for parent in parents], [ups[parent] for parent in parents])
            rows.append(np.concatenate((above, np.array([node]))))
            ups.append(np.concatenate((up + 1, np.array([0]))))
        lengths = np.array([0, *map(len, rows)])
        return cls(
            offsets=torch.from_numpy(lengths.cumsum()),
            columns=torch.from_numpy(np.concatenate(rows)),
            up=torch.from_numpy(np.concatenate(ups)),
        )

    def to(self, device: torch.device) -> Ancestry:
        """Copy to another device."""
        return Ancestry(self.offsets.to(device), self.columns.to(device), self.up.to(device))

    @cached_property
    def padded(self) -> tuple[Int64[Tensor, "N A"], Int64[Tensor, "N A"]]:
        """Ids and up-distances as two matrices, -1 where a node has fewer than A ancestors."""
        lengths = self.offsets.diff()
        filled = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        ids, up = filled.long() - 1, filled.long() - 1
        ids[filled] = self.columns
        up[filled] = self.up
        return ids, up

    def sets(self, labels: Int64[Tensor, "B"]) -> tuple[Int64[Tensor, "B+1"], Int64[Tensor, "entries"]]:
        """Give the rows of `labels`, one after the other, and where each begins."""
        self._check(labels, argument="labels")
        begins = self.offsets[labels]
        lengths = self.offsets[labels + 1] - begins
        offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        shift = torch.repeat_interleave(begins - offsets[:-1], lengths)
        return offsets, self.columns[torch.arange(len(shift), device=shift.device) + shift]

    def distances(self, a: Int64[Tensor, "B"], b: Int64[Tensor, "M"]) -> Float[Tensor, "B M"]:
        """Shortest way up from `a` and down to `b`; infinite without a common ancestor.

        For a block of `b` the way down from every shared ancestor is laid out densely, ancestors x block; one
        gather of its rows then serves one column of the ancestors of `a`. The block is as wide as keeps it
        within B x M entries.
        """
        self._check(a, argument="a")
        self._check(b, argument="b")
        shared_a, shared_b, num_shared = self._shared(a, b)
        up = self.padded[1]
        up_a, up_b = up[a].float(), up[b].float()
        out = torch.full((len(a), len(b)), torch.inf, device=a.device)
        width = max(1, out.numel() // (num_shared + 1))
        for start in range(0, len(b), width):
            block = slice(start, start + width)
            nearest = out[:, block]
            down = out.new_full((num_shared + 1, nearest.shape[1]), torch.inf)
            down.scatter_(0, shared_b[block].T, up_b[block].T)
            down[num_shared] = torch.inf  # where ancestors that are not shared, and padding, went
            for column in range(up_a.shape[1]):
                way = down[shared_a[:, column]].add_(up_a[:, column, None])
                torch.minimum(nearest, way, out=nearest)
        return out

    def _check(self, labels: Tensor, *, argument: str) -> None:
        num_nodes = len(self.offsets) - 1
        expected = f"[B] int64 ids in [0, {num_nodes})"
        if labels.dim() != 1 or labels.dtype != torch.int64:
            received = describe(labels)
        elif values_are_readable(labels) and len(wrong := labels[(labels < 0) | (labels >= num_nodes)]):
            received = f"{len(wrong)} others: {wrong[:8].tolist()}"
        else:
            return
        raise MarginsError(argument, expected=expected, received=received, fix="Taxonomy.index gives them")

    def _shared(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, int]:
        """Renumber the ancestors of `a` and `b` that both have; the others get one number more."""
        ids = self.padded[0]
        ids_a, ids_b = ids[a], ids[b]
        seen = torch.zeros(2, len(ids) + 1, dtype=torch.bool, device=ids.device)
        seen[0, ids_a.flatten()] = True
        seen[1, ids_b.flatten()] = True
        seen[:, -1] = False  # padding, -1, is the last entry
        shared = seen.all(dim=0).nonzero().flatten()
        number = ids.new_full((len(ids) + 1,), len(shared))
        number[shared] = torch.arange(len(shared), device=ids.device)
        return number[ids_a], number[ids_b], len(shared)


def _merged(rows: Sequence[_Ids], ups: Sequence[_Ids]) -> tuple[_Ids, _Ids]:
    """Union of ascending rows, the smallest up-distance of each id."""
    if not rows:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if len(rows) == 1:
        return rows[0], ups[0]
    ids, up = np.concatenate(rows), np.concatenate(ups)
    order = np.lexsort((up, ids))
    ids, up = ids[order], up[order]
    is_first = np.concatenate((np.array([True]), ids[1:] != ids[:-1]))
    return ids[is_first], up[is_first]
