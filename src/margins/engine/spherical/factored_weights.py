"""Weights of a linear layer held as V U + 1 w', with what is known of them without looking at every class."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from margins.engine.sources import at_least_float32
from margins.errors import MarginsError, describe

_BLOCK = 65_536  # classes at a time, where all are gone through


class FactoredWeights(nn.Module):
    """W [C, w] = V U + 1 w', the Gram matrix W'W and the column sums of W.

    V is `table` [C, w], in float32; all else is small and in float64: U is `factor`, w is `shift`. The last
    column of W is the bias, if there is one: embeddings get a 1 appended.

    Args:
        dim: of the embeddings.
        num_classes: C.
        bias: whether each class has one.
        generator: draws the first weights, uniform as those of `torch.nn.Linear`; the bias starts at 0.
    """

    table: Float[Tensor, "classes width"]
    factor: Float[Tensor, "width width"]
    shift: Float[Tensor, " width"]
    gram: Float[Tensor, "width width"]
    total: Float[Tensor, " width"]
    reach: Float[Tensor, "2"]
    counts: Tensor

    def __init__(
        self, dim: int, num_classes: int, *, bias: bool = True, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if dim < 1 or num_classes < 1:
            raise MarginsError("dim, num_classes", expected="at least 1", received=f"{dim}, {num_classes}")
        self.dim, self.has_bias = dim, bias
        self.version = 0  # of W: goes up when it changes
        width = dim + int(bias)
        table = torch.empty(num_classes, width, dtype=torch.float32)
        bound = 1 / math.sqrt(dim)
        table.uniform_(-bound, bound, generator=generator)
        if bias:
            table[:, dim] = 0.0
        self.register_buffer("table", table)
        for name, shape in (("factor", (width, width)), ("shift", (width,)), ("gram", (width, width)),
                            ("total", (width,)), ("reach", (2,))):  # fmt: skip
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        # Steps since the last look at U, singular values repaired, times that V took in U, steps.
        self.register_buffer("counts", torch.zeros(4, dtype=torch.long))
        self.begin_anew()

    @property
    def num_classes(self) -> int:
        """C."""
        return self.table.shape[0]

    @property
    def width(self) -> int:
        """w: of the embeddings, and one for a bias."""
        return self.table.shape[1]

    @torch.no_grad()
    def begin_anew(self) -> None:
        """W is V: U becomes the identity, w zero, and the statistics of W are taken from all classes."""
        self.factor = torch.eye(self.width, dtype=torch.float64, device=self.table.device)
        self.shift = torch.zeros_like(self.shift)
        self.reach = torch.ones_like(self.reach)  # of U's singular values over their middle: bounds
        gram, total = torch.zeros_like(self.gram), torch.zeros_like(self.total)
        for block in self.table.split(_BLOCK):
            rows = block.double()
            gram.addmm_(rows.T, rows)
            total += rows.sum(0)
        self.gram, self.total = gram, total
        self.version += 1

    @torch.no_grad()
    def dense(self) -> Float[Tensor, "classes width"]:
        """W written out, the bias last; block by block, so that only the result is of its size."""
        written = torch.empty_like(self.table)
        for block, target in zip(self.table.split(_BLOCK), written.split(_BLOCK), strict=True):
            target.copy_(torch.addmm(self.shift, block.double(), self.factor))
        return written

    def weight(self) -> Float[Tensor, "classes dim"]:
        """The weights, written out."""
        return self.dense()[:, : self.dim]

    @torch.no_grad()
    def bias(self) -> Float[Tensor, " classes"] | None:
        """The bias of each class; None without."""
        if not self.has_bias:
            return None
        column, own = self.factor[:, self.dim], self.shift[self.dim]
        return torch.cat([rows.double() @ column + own for rows in self.table.split(_BLOCK)]).to(
            self.table.dtype
        )

    def scores(self, embeddings: Float[Tensor, "anchors dim"]) -> Float[Tensor, "anchors classes"]:
        """All scores [B, C]; O(B C w)."""
        through, own = self._through(embeddings)
        return through @ self.table.T.to(through.dtype) + own

    @torch.no_grad()
    def top(self, embeddings: Float[Tensor, "anchors dim"], k: int) -> tuple[Tensor, Tensor]:
        """The best `k` scores [B, k] of each row, best first, and their classes, without a [B, C] tensor.

        Raises:
            MarginsError: k is not in [1, C].
        """
        if not 1 <= k <= self.num_classes:
            raise MarginsError("k", expected=f"a number in [1, {self.num_classes}]", received=str(k))
        through, own = self._through(embeddings)
        values = through.new_zeros(len(through), 0)
        classes = torch.zeros(values.shape, dtype=torch.long, device=values.device)
        size = max(_BLOCK // 4, k)
        for number, block in enumerate(self.table.split(size)):
            found = through @ block.T.to(through.dtype)
            best, places = found.topk(min(k, found.shape[1]), dim=1)
            values, classes = torch.cat([values, best], 1), torch.cat([classes, places + number * size], 1)
            values, kept = values.topk(k, dim=1)
            classes = classes.gather(1, kept)
        return values + own, classes

    def to_linear(self) -> nn.Linear:
        """A plain layer with the same scores."""
        linear = nn.Linear(self.dim, self.num_classes, bias=self.has_bias, device="meta")
        linear.weight = nn.Parameter(self.weight().contiguous())
        bias = self.bias()
        if bias is not None:
            linear.bias = nn.Parameter(bias)
        return linear

    @torch.no_grad()
    def load_linear(self, weight: Float[Tensor, "classes dim"], bias: Tensor | None = None) -> None:
        """Takes over the weights of a plain layer; they are copied.

        Raises:
            MarginsError: another shape, or a bias that is missing or too much.
        """
        wanted = (self.num_classes, self.dim)
        if tuple(weight.shape) != wanted:
            raise MarginsError("weight", expected=f"[C, dim] = {list(wanted)}", received=describe(weight))
        if (bias is not None) != self.has_bias or (bias is not None and bias.shape != weight.shape[:1]):
            expected = f"[C] = [{self.num_classes}]" if self.has_bias else "none"
            received = "none" if bias is None else describe(bias)
            raise MarginsError("bias", expected=expected, received=received)
        self.table[:, : self.dim] = weight
        if bias is not None:
            self.table[:, self.dim] = bias
        self.begin_anew()

    def with_bias_feature(self, embeddings: Float[Tensor, "anchors dim"]) -> Float[Tensor, "anchors width"]:
        """The embeddings in float64, with a 1 after each where there is a bias."""
        inputs = embeddings.double()
        return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1) if self.has_bias else inputs

    def _through(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """[B, w] what V is multiplied with, and [B, 1] what all scores of a row get."""
        given = at_least_float32(embeddings)
        inputs = self.with_bias_feature(given)
        return (inputs @ self.factor.T).to(given.dtype), (inputs @ self.shift[:, None]).to(given.dtype)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        for name, own in self.named_buffers(recurse=False):
            there = state_dict.get(prefix + name)
            if isinstance(there, Tensor) and there.shape != own.shape:
                raise MarginsError(
                    f"{prefix}{name}", expected=f"{list(own.shape)}, of this head's classes and embeddings",
                    received=str(list(there.shape)), fix="build the head with the sizes of the saved one",
                )  # fmt: skip
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)
        self.version += 1

    def extra_repr(self) -> str:
        """Sizes."""
        return f"dim={self.dim}, num_classes={self.num_classes}, bias={self.has_bias}"
