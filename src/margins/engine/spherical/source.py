"""Scores of a spherical layer as an evaluator sees them: sums over all classes, and single entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.engine.sources import at_least_float32, checked
from margins.engine.spherical.factored_weights import FactoredWeights
from margins.engine.spherical.layer_gradient import LayerGradient
from margins.errors import MarginsError, OnceDifferentiableError, describe


@dataclass(frozen=True, eq=False)
class SphericalSource:
    """Scores of embeddings under a spherical layer, made only where they are asked for. All in float64.

    Args:
        weights: of the layer.
        inputs: [B, w] the embeddings, with a 1 after each when the layer has a bias.
        gradient: takes in what is differentiated; None when the weights are frozen.
    """

    weights: FactoredWeights
    inputs: Float[Tensor, "anchors width"]
    gradient: LayerGradient | None

    @classmethod
    def of(
        cls, weights: FactoredWeights, embeddings: Tensor, gradient: LayerGradient | None
    ) -> SphericalSource:
        """Checked embeddings."""
        if embeddings.ndim != 2 or embeddings.shape[1] != weights.dim or not embeddings.is_floating_point():
            raise MarginsError(
                "embeddings",
                expected=f"[B, dim] floats with dim = {weights.dim}",
                received=describe(embeddings),
            )
        if embeddings.device != weights.table.device:
            raise MarginsError(
                "embeddings", expected=f"embeddings on {weights.table.device}, as the head",
                received=str(embeddings.device),
            )  # fmt: skip
        inputs = weights.with_bias_feature(checked("embeddings", at_least_float32(embeddings)))
        return cls(weights, inputs, gradient)

    @property
    def shape(self) -> tuple[int, int]:
        """(anchors, candidates)."""
        return self.inputs.shape[0], self.weights.num_classes

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and device of the scores."""
        return self.inputs

    def moments(self) -> tuple[Float[Tensor, " anchors"], Float[Tensor, " anchors"]]:
        """The sum of the scores of each row, and the sum of their squares."""
        return _Moments.apply(self.inputs, self._token(), self.weights, self.gradient)  # pyright: ignore[reportReturnType]

    def listed(
        self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], *, in_order: bool
    ) -> Float[Tensor, " n"]:
        """Scores of single entries."""
        inputs = self.inputs if in_order else self.inputs[rows]
        return _Listed.apply(inputs, self._token(), self.weights, self.gradient, columns)  # pyright: ignore[reportReturnType]

    def matrix(self) -> Float[Tensor, "anchors candidates"]:
        """All scores: to look at, not to learn from."""
        return self.weights(self.inputs[:, : self.weights.dim])

    def _token(self) -> Tensor:
        """Asks for a backward pass even where the embeddings learn nothing."""
        return self.inputs.new_zeros(0).requires_grad_(self.gradient is not None)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, _token: Tensor, weights: FactoredWeights, gradient: LayerGradient | None
    ) -> tuple[Tensor, Tensor]:
        through, total = inputs @ weights.gram, weights.total
        ctx.save_for_backward(inputs, through, total)
        ctx.weights, ctx.gradient, ctx.version = weights, gradient, weights.version
        return inputs @ total, torch.linalg.vecdot(inputs, through)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        of_sums, of_squares = upstream
        _check_first_and_fresh(ctx)
        inputs, through, total = ctx.saved_tensors
        if ctx.gradient is not None:
            ctx.gradient.add_moments(inputs, of_sums, of_squares)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return (2 * of_squares[:, None] * through).addr_(of_sums, total), None, None, None


class _Listed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        _token: Tensor,
        weights: FactoredWeights,
        gradient: LayerGradient | None,
        columns: Tensor,
    ) -> Tensor:
        rows = torch.addmm(weights.shift, weights.table[columns].double(), weights.factor)
        ctx.save_for_backward(inputs, rows, columns)
        ctx.weights, ctx.gradient, ctx.version = weights, gradient, weights.version
        return torch.linalg.vecdot(inputs, rows)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        _check_first_and_fresh(ctx)
        inputs, rows, columns = ctx.saved_tensors
        if ctx.gradient is not None:
            ctx.gradient.add_listed(columns, upstream[0][:, None] * inputs)
        by_inputs = upstream[0][:, None] * rows if ctx.needs_input_grad[0] else None
        return by_inputs, None, None, None, None


def _check_first_and_fresh(ctx: Any) -> None:
    if torch.is_grad_enabled():
        raise OnceDifferentiableError("a spherical head gives first derivatives only")
    if ctx.version != ctx.weights.version:
        raise MarginsError(
            "backward", expected="a backward pass before the head's next step or load",
            received="weights that have changed since the forward pass", fix="run the forward pass again",
        )  # fmt: skip
