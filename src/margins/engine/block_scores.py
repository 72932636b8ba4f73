"""The scores of a block, and their gradient brought back to embeddings, candidates and bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from margins.engine.block_layout import Layout, Span, narrowed
from margins.engine.score_rules import ProductRule
from margins.targets import Positives

Sums = Sequence[Tensor | None]


class BlockScores(ABC):
    """Makes the blocks of some anchors, one after the other, in one buffer.

    Args:
        layout: of the tensors.
        tensors: embeddings, candidates, perhaps the bias, and learned tensors that the rule reads itself.
        rows: the anchors.
        columns: candidates a block, at most.
        sums: for every tensor the gradient so far, added to in place; None where none is wanted.
    """

    def __init__(
        self, layout: Layout, tensors: Sequence[Tensor], rows: Span, columns: int, sums: Sums
    ) -> None:
        self._layout, self._tensors, self._rows, self._sums = layout, tensors, rows, sums
        self.buffer = tensors[0].new_empty((rows[1] - rows[0]) * columns)

    @staticmethod
    def of(
        layout: Layout, tensors: Sequence[Tensor], rows: Span, columns: int, sums: Sums = ()
    ) -> BlockScores:
        """The fitting way to make them; with no `sums` nothing will be brought back."""
        kind = _Products if isinstance(layout.rule, ProductRule) else _ByRule
        return kind(layout, tensors, rows, columns, sums or [None] * len(tensors))

    @abstractmethod
    def make(self, columns: Span) -> Tensor:
        """The scores of some candidates; they may be overwritten."""

    @abstractmethod
    def bring_back(self, gradient: Tensor, columns: Span) -> None:
        """Adds the share of the block made last to the gradients, from that of its scores."""

    @abstractmethod
    def finish(self) -> None:
        """Brings back what was put off to the end of the stripe."""


class _Products(BlockScores):
    """Inner products of prepared vectors, by matrix products into the buffer."""

    def __init__(
        self, layout: Layout, tensors: Sequence[Tensor], rows: Span, columns: int, sums: Sums
    ) -> None:
        super().__init__(layout, tensors, rows, columns, sums)
        own = tensors[0][rows[0] : rows[1]]
        self._leaf, self._prepared = self._prepare(own, learns=sums[0] is not None)
        self._anchors = self._prepared.detach()
        self._sum = torch.zeros_like(self._anchors) if sums[0] is not None else None

    def _prepare(self, vectors: Tensor, *, learns: bool) -> tuple[Tensor, Tensor]:
        rule = self._layout.rule
        assert isinstance(rule, ProductRule)  # noqa: S101  (chosen by it)
        with torch.enable_grad():
            leaf = vectors.detach().requires_grad_(learns)
            return leaf, rule.prepared(leaf)

    def make(self, columns: Span) -> Tensor:
        start, stop = columns
        learns = self._sums[1] is not None
        self._made_of = self._prepare(self._tensors[1][start:stop], learns=learns)
        block = self._made_of[1].detach()
        count = self._anchors.shape[0] * (stop - start)
        out = self.buffer[:count].view(self._anchors.shape[0], stop - start)
        if not self._layout.has_bias:
            return torch.mm(self._anchors, block.T, out=out)
        return torch.addmm(self._tensors[2][start:stop].detach(), self._anchors, block.T, out=out)

    def bring_back(self, gradient: Tensor, columns: Span) -> None:
        start, stop = columns
        leaf, prepared = self._made_of
        if self._sum is not None:
            self._sum.addmm_(gradient, prepared.detach())
        if self._sums[1] is not None:
            into = self._sums[1][start:stop]
            if leaf is prepared and self._rows[0] == 0:  # the first to write there
                torch.mm(gradient.T, self._anchors, out=into)
            elif leaf is prepared:
                into.addmm_(gradient.T, self._anchors)
            else:
                into += torch.autograd.grad(prepared, leaf, gradient.T @ self._anchors)[0]
        if self._layout.has_bias and self._sums[2] is not None:
            self._sums[2][start:stop] += gradient.sum(0)

    def finish(self) -> None:
        if self._sum is None or self._sums[0] is None:
            return
        is_plain = self._leaf is self._prepared
        part = self._sum if is_plain else torch.autograd.grad(self._prepared, self._leaf, self._sum)[0]
        self._sums[0][self._rows[0] : self._rows[1]] += part


class _ByRule(BlockScores):
    """Any rule, differentiated block by block."""

    def finish(self) -> None:
        """Nothing was put off."""

    def make(self, columns: Span) -> Tensor:
        factors = self._layout.num_factors
        axes = self._layout.axes[:factors]
        with torch.enable_grad():
            self._leaves = [
                narrowed(t, a, self._rows, columns).detach().requires_grad_(s is not None)
                for t, a, s in zip(self._tensors, axes, self._sums, strict=False)
            ]
            self._scores = self._layout.scores(self._leaves)
        return self._scores.detach()

    def bring_back(self, gradient: Tensor, columns: Span) -> None:
        factors = self._layout.num_factors
        reached = [*self._leaves, *self._tensors[factors:]]
        axes = [*self._layout.axes[:factors], *((None, None) for _ in self._tensors[factors:])]
        active = [i for i, s in enumerate(self._sums) if s is not None]
        if not active or not self._scores.requires_grad:
            return
        parts = torch.autograd.grad(self._scores, [reached[i] for i in active], gradient, allow_unused=True)
        for i, part in zip(active, parts, strict=True):
            add_part(self._sums[i], part, axes[i], self._rows, columns)


def add_part(
    total: Tensor | None, part: Tensor | None, axes: tuple[int | None, int | None], rows: Span, columns: Span
) -> None:
    """Adds a block's share to a gradient in place; nothing where there is no share."""
    if part is not None and total is not None:
        target = narrowed(total, axes, rows, columns)
        target += part


def listed_gradient(
    rule: ProductRule, tensors: Sequence[Tensor], sums: Sums, listing: Positives, upstream: Tensor
) -> None:
    """Adds the gradients of single entries, where nothing else of their blocks is asked for."""
    rows, columns, _ = listing
    with torch.enable_grad():
        learned = zip(tensors[:2], sums[:2], strict=True)
        leaves = [t.detach().requires_grad_(s is not None) for t, s in learned]
        pair = leaves[0][rows], leaves[1][columns]
        scores = (rule.prepared(pair[0]) * rule.prepared(pair[1])).sum(1)
    for own, places, total in zip(pair, (rows, columns), sums[:2], strict=True):
        if total is not None:
            (part,) = torch.autograd.grad(scores, own, upstream, retain_graph=True)
            total.index_add_(0, places, part)
    if len(tensors) > 2 and sums[2] is not None:
        sums[2].index_add_(0, columns, upstream)
