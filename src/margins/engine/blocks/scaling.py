"""Vectors scaled to length 1, whose gradient takes no more memory than itself."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.score_rules import unit
from margins.engine.sources import at_least_float32
from margins.errors import refuse_second_derivative


def unit_once(vectors: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """As `unit`, once differentiable; in float32 at least."""
    return _Unit.apply(vectors)  # pyright: ignore[reportReturnType, reportGeneralTypeIssues]


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        scaled = unit(at_least_float32(vectors))
        ctx.save_for_backward(vectors, scaled)
        return scaled

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        refuse_second_derivative("blockwise")
        vectors, scaled = ctx.saved_tensors
        along = torch.bmm(upstream[0][:, None], scaled[:, :, None])[:, 0]
        length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True, dtype=scaled.dtype)
        # A vector that was too short to be scaled is zero there, and passes no gradient.
        inverse = torch.where(scaled.any(1, keepdim=True), 1 / length, 0.0)
        return torch.addcmul(upstream[0], scaled, along, value=-1).mul_(inverse).to(vectors.dtype)
