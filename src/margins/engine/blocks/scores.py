"""The scores of a block, and their gradient brought back to embeddings, candidates and bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from margins.engine.blocks.layout import Layout, Span, narrowed
from margins.engine.blocks.plan import BlockPlan
from margins.engine.score_rules import Dot, ProductRule, as_linked, as_product
from margins.engine.scratch import Scratch
from margins.engine.sources import accumulator, at_least_float32
from margins.targets import Positives

Sums = Sequence[Tensor | None]
Kept = dict[tuple[Span, Span], Tensor]


class BlockScores(ABC):
    """Makes one block after the other in one buffer: candidates by candidates, and of these rows by rows.

    Args:
        layout: of the tensors.
        tensors: embeddings, candidates, perhaps the bias, and learned tensors that the rule reads itself.
        plan: of the blocks.
        sums: for every tensor the gradient so far, added to in place; None where none is wanted.
        kept: blocks made before, and where to put others; None to keep none.
    """

    def __init__(
        self,
        layout: Layout,
        tensors: Sequence[Tensor],
        plan: BlockPlan,
        sums: Sums,
        kept: Kept | None,
    ) -> None:
        self._layout, self._tensors, self._sums, self._kept = layout, tensors, sums, kept
        self._buffer = at_least_float32(tensors[0][:0]).new_empty(plan.rows * plan.columns)
        self._rows: Span = (0, 0)
        self._columns: Span = (0, 0)

    @staticmethod
    def of(
        layout: Layout,
        tensors: Sequence[Tensor],
        plan: BlockPlan,
        sums: Sums | None = None,
        *,
        kept: Kept | None = None,
    ) -> BlockScores:
        """The fitting way to make them; without `sums` nothing will be brought back."""
        sums = sums or [None] * len(tensors)
        if as_product(layout.rule) is None:
            return _ByRule(layout, tensors, plan, sums, None)
        return _Products(layout, tensors, plan, sums, kept)

    @property
    def needs_scores(self) -> bool:
        """Whether the scores of a block must still be there when its gradient is brought back."""
        return False

    @property
    def gradient_dtype(self) -> torch.dtype:
        """In which the gradient of a block is brought back."""
        return self._buffer.dtype

    @property
    def keeps(self) -> bool:
        """Whether blocks are kept: nobody may overwrite them."""
        return self._kept is not None

    def shaped(self, buffer: Tensor) -> Tensor:
        """The part of a flat buffer that has the shape of the block made last."""
        height, width = self._rows[1] - self._rows[0], self._columns[1] - self._columns[0]
        return buffer[: height * width].view(height, width)

    def scratch(self) -> Scratch:
        """Buffers as large as the one that scores are made in."""
        return Scratch(self._buffer, self._buffer.shape[0])

    def turn_to(self, columns: Span) -> None:
        """Goes to other candidates."""
        self._columns = columns

    @abstractmethod
    def make(self, rows: Span) -> Tensor:
        """The scores of some anchors; they may be overwritten."""

    @abstractmethod
    def bring_back(self, gradient: Tensor) -> None:
        """Adds the share of the block made last to the gradients, from that of its scores."""

    @abstractmethod
    def leave(self) -> None:
        """Brings back what was put off until all blocks of these candidates were made."""

    @abstractmethod
    def finish(self) -> None:
        """Brings back what was put off to the end."""


class _Products(BlockScores):
    """Inner products of prepared vectors, by matrix products into the buffer."""

    def __init__(
        self, layout: Layout, tensors: Sequence[Tensor], plan: BlockPlan, sums: Sums, kept: Kept | None
    ) -> None:
        super().__init__(layout, tensors, plan, sums, kept)
        rule = as_product(layout.rule)
        assert rule is not None  # noqa: S101  (chosen by it)
        self._rule, self._linked = rule, as_linked(rule)
        self._takes_half = on_tensor_cores(rule, tensors[0])
        self._spans = plan.row_spans()
        self._anchors = self._prepare(tensors[0], learns=False)[1]

    def _prepare(self, vectors: Tensor, *, learns: bool) -> tuple[Tensor, Tensor]:
        """Vectors as the products take them, and what they were made of on the graph."""
        if self._takes_half:
            return vectors, vectors
        with torch.enable_grad():
            leaf = at_least_float32(vectors.detach()).requires_grad_(learns)
            return leaf, self._rule.prepared(leaf)

    def turn_to(self, columns: Span) -> None:
        super().turn_to(columns)
        start, stop = columns
        vectors, total = self._tensors[1][start:stop], self._sums[1]
        self._block = self._prepare(vectors, learns=total is not None)
        self._candidates = self._block[1].detach()
        self._bias = self._tensors[2][start:stop].detach() if self._layout.has_bias else None
        # Of half-precision candidates the gradient is added up elsewhere before it is rounded.
        is_half = total is not None and total.dtype != self._buffer.dtype
        self._into = None if total is None else accumulator(vectors) if is_half else total[start:stop]

    @property
    def gradient_dtype(self) -> torch.dtype:
        return self._anchors.dtype

    @property
    def needs_scores(self) -> bool:
        return self._linked is not None

    def make(self, rows: Span) -> Tensor:
        self._rows = rows
        self._made = self._block_of(rows)
        if self._linked is not None and self._bias is not None:
            return self._made + self._bias
        return self._made

    def _block_of(self, rows: Span) -> Tensor:
        """The block, kept or made; of a linked rule without the bias."""
        if self._kept is None:
            return self._filled(self.shaped(self._buffer))
        place = (rows, self._columns)
        if place not in self._kept:
            self._kept[place] = self._filled(torch.empty_like(self.shaped(self._buffer)))
        return self._kept[place]

    def _filled(self, out: Tensor) -> Tensor:
        anchors = self._anchors[slice(*self._rows)]
        if self._linked is not None:
            return self._linked.link_(torch.mm(anchors, self._candidates.T, out=out))
        if self._takes_half:
            made = half_product(anchors, self._candidates.T, out)
            return made if self._bias is None else made.add_(self._bias)
        if self._bias is None:
            return torch.mm(anchors, self._candidates.T, out=out)
        return torch.addmm(self._bias, anchors, self._candidates.T, out=out)

    def bring_back(self, gradient: Tensor) -> None:
        (top, bottom), (start, stop) = self._rows, self._columns
        if self._layout.has_bias and self._sums[2] is not None:
            self._sums[2][start:stop] += gradient.sum(0, dtype=self._sums[2].dtype)
        if self._linked is not None:
            gradient = self._linked.slope(self._made).mul_(gradient)
        if self._takes_half:
            gradient = gradient.to(self._anchors.dtype)
        own = None if self._sums[0] is None else self._sums[0][top:bottom]
        self._add_product(own, gradient, self._candidates, is_first=False)
        self._add_product(self._into, gradient.T, self._anchors[top:bottom], is_first=top == 0)

    def _add_product(self, total: Tensor | None, left: Tensor, right: Tensor, *, is_first: bool) -> None:
        """Adds a product to a gradient, or writes it there when it is the first."""
        if total is None:
            return
        if self._takes_half:
            if is_first:
                half_product(left, right, total)
            else:
                total += half_product(left, right)
        elif is_first:
            torch.mm(left, right, out=total)
        else:
            total.addmm_(left, right)

    def leave(self) -> None:
        leaf, prepared = self._block
        if self._into is None or self._sums[1] is None:
            return
        found = self._into
        if leaf is not prepared:
            (found,) = torch.autograd.grad(prepared, leaf, found)
        into = self._sums[1][slice(*self._columns)]
        if into.data_ptr() != found.data_ptr():
            into.copy_(found)

    def finish(self) -> None:
        into = self._sums[0]
        if into is None or self._takes_half:
            return
        for start, stop in self._spans:  # the gradient of the prepared anchors becomes that of the anchors
            leaf, prepared = self._prepare(self._tensors[0][start:stop], learns=True)
            if leaf is not prepared:
                into[start:stop] = torch.autograd.grad(prepared, leaf, into[start:stop])[0]


def on_tensor_cores(rule: ProductRule, vectors: Tensor) -> bool:
    """Whether vectors are multiplied as they are, in bfloat16, into products in float32: tensor cores do."""
    return vectors.is_cuda and vectors.dtype == torch.bfloat16 and type(rule) is Dot


def half_product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """The product in float32 of matrices in bfloat16."""
    if out is None:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right, out_dtype=torch.float32, out=out)


class _ByRule(BlockScores):
    """Any rule, differentiated block by block; nothing is put off."""

    def leave(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def make(self, rows: Span) -> Tensor:
        self._rows = rows
        factors = self._layout.num_factors
        axes = self._layout.axes[:factors]
        with torch.enable_grad():
            self._leaves = [
                at_least_float32(narrowed(t, a, rows, self._columns).detach()).requires_grad_(s is not None)
                for t, a, s in zip(self._tensors, axes, self._sums, strict=False)
            ]
            self._scores = self._layout.scores(self._leaves)
        return self._scores.detach()

    def bring_back(self, gradient: Tensor) -> None:
        factors = self._layout.num_factors
        reached = [*self._leaves, *self._tensors[factors:]]
        axes = [*self._layout.axes[:factors], *((None, None) for _ in self._tensors[factors:])]
        active = [i for i, s in enumerate(self._sums) if s is not None]
        if not active or not self._scores.requires_grad:
            return
        parts = torch.autograd.grad(self._scores, [reached[i] for i in active], gradient, allow_unused=True)
        for i, part in zip(active, parts, strict=True):
            add_part(self._sums[i], part, axes[i], self._rows, self._columns)


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
        pair = at_least_float32(leaves[0][rows]), at_least_float32(leaves[1][columns])
        scores = (rule.prepared(pair[0]) * rule.prepared(pair[1])).sum(1)
    for own, places, total in zip(pair, (rows, columns), sums[:2], strict=True):
        if total is not None:
            (part,) = torch.autograd.grad(scores, own, upstream, retain_graph=True)
            total.index_add_(0, places, part.to(total.dtype))
    if len(tensors) > 2 and sums[2] is not None:
        sums[2].index_add_(0, columns, upstream)
