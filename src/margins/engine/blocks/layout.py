"""How the tensors of a pass are cut into blocks, and put together again as the entries of one block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from margins.engine.entries import BlockEntries, Holes
from margins.engine.evaluators import Pass
from margins.engine.score_rules import ScoreRule, as_product
from margins.engine.sources import Factored
from margins.engine.statistics import SlopedPhi, Statistic
from margins.targets import Targets

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Layout:
    """How the flat list of a pass's tensors is put back together; it holds none of those itself.

    The order is embeddings, candidates, bias, side blocks, row values, learned tensors inside targets.

    Args:
        rule: of the scores.
        has_bias: whether there is a bias.
        side: names of the side blocks.
        rows: names of the row values.
        targets: of the whole matrix.
        axes: for every tensor, the axis that runs with the anchors and the one that runs with candidates.
    """

    rule: ScoreRule
    has_bias: bool
    side: tuple[str, ...]
    rows: tuple[str, ...]
    targets: Targets
    axes: tuple[tuple[int | None, int | None], ...]

    @classmethod
    def of(cls, source: Factored, here: Pass) -> tuple[Layout, tuple[Tensor, ...]]:
        """The layout of a pass, and its tensors."""
        bias = () if source.bias is None else (source.bias,)
        side, rows = tuple(here.side.values()), tuple(here.rows.values())
        learned = tensors_with_gradient(here.targets)
        axes = [(0, None), (None, 0), *((None, 0) for _ in bias)]
        axes += [(None if b.shape[0] == 1 else 0, None if b.shape[1] == 1 else 1) for b in side]
        axes += [*((0, None) for _ in rows), *((None, None) for _ in learned)]
        layout = cls(source.rule, bool(bias), tuple(here.side), tuple(here.rows), here.targets, tuple(axes))
        return layout, (source.embeddings, source.candidates, *bias, *side, *rows, *learned)

    @property
    def num_factors(self) -> int:
        """Tensors that scores are made of: embeddings, candidates, and the bias if there is one."""
        return 2 + self.has_bias

    @property
    def has_learned_targets(self) -> bool:
        """Whether targets hold tensors that ask for a gradient."""
        return len(self.axes) > self.num_factors + len(self.side) + len(self.rows)

    def cut(self, tensors: Sequence[Tensor], rows: Span, columns: Span) -> list[Tensor]:
        """The part of every tensor that one block needs."""
        return [narrowed(t, axes, rows, columns) for t, axes in zip(tensors, self.axes, strict=True)]

    def cut_beside(self, tensors: Sequence[Tensor], rows: Span, columns: Span) -> list[Tensor]:
        """The parts that one block needs, of all tensors but those that scores are made of."""
        beside = zip(tensors[self.num_factors :], self.axes[self.num_factors :], strict=False)
        return [narrowed(t, axes, rows, columns) for t, axes in beside]

    def entries(
        self, scores: Tensor, beside: Sequence[Tensor], targets: Targets, columns: Span, holes: Holes | None
    ) -> BlockEntries:
        """The entries of a block, from its scores and the cut tensors after the factors."""
        place = iter(beside)
        side = {name: next(place) for name in self.side}
        rows = {name: next(place) for name in self.rows}
        if self.has_learned_targets:
            swap = dict(zip(map(id, tensors_with_gradient(targets)), place, strict=True))
            targets = targets.map_tensors(lambda t: swap.get(id(t), t))
        return BlockEntries(scores, targets, *columns, side=side, rows=rows, holes=holes)

    def scores(self, factors: Sequence[Tensor]) -> Tensor:
        """The scores of a block by the rule, on the graph."""
        bias = factors[2] if self.has_bias else None
        return Factored(self.rule, factors[0], factors[1], bias).matrix()

    def outside_tensors(
        self, statistics: Sequence[Statistic], tensors: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Learned tensors that phi or the score rule read by themselves: parameters of a loss or a gate.

        One column is scored from constants; what still asks for a gradient came from elsewhere. The rules
        and functions of this house that read nothing else are known.
        """
        if as_product(self.rule) is not None and all(isinstance(s.phi, SlopedPhi) for s in statistics):
            return ()
        rows, first = (0, tensors[0].shape[0]), (0, 1)
        constants = [t.detach() for t in self.cut(tensors, rows, first)]
        with torch.enable_grad():
            scores = self.scores(constants[: self.num_factors])
            entries = self.entries(scores, constants[self.num_factors :], self.targets, first, None)
            terms = [entries.terms(s) for s in statistics]
        return tuple(leaves_of([scores, *terms]))


def narrowed(tensor: Tensor, axes: tuple[int | None, int | None], rows: Span, columns: Span) -> Tensor:
    """The part of a tensor over some rows and columns of the matrix of scores."""
    for axis, (start, stop) in zip(axes, (rows, columns), strict=True):
        if axis is not None and tensor.shape[axis] != stop - start:
            tensor = tensor.narrow(axis, start, stop - start)
    return tensor


def tensors_with_gradient(targets: Targets) -> list[Tensor]:
    """Tensors inside targets that ask for a gradient (learned or distilled grades, margins, weights)."""
    found: dict[int, Tensor] = {}

    def look(tensor: Tensor) -> Tensor:
        if tensor.requires_grad:
            found.setdefault(id(tensor), tensor)
        return tensor

    targets.map_tensors(look)
    return list(found.values())


def leaves_of(outputs: Sequence[Tensor]) -> Iterator[Tensor]:
    """Leaves with a gradient that the outputs depend on, each once."""
    found: dict[int, Tensor] = {}
    waiting, seen = [t.grad_fn for t in outputs if t.grad_fn is not None], set[Any]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # of the nodes that gather a leaf's gradient
        if leaf is not None:
            found[id(leaf)] = leaf
        waiting.extend(parent for parent, _ in node.next_functions if parent is not None)
    return iter(found.values())
