"""A linear output layer for spherical losses, exact at a cost that does not depend on the number of classes.

A spherical loss needs of the C scores o = W x only their sum, the sum of their squares and a few listed ones
(targets). Then a step of gradient descent on all of W is a product with a small matrix, plus one vector for
all rows, plus changes of listed rows. So W is held as V U + 1 w' and the step changes U, w and rows of V.
Vincent, de Brebisson, Bouthillier, Efficient exact gradient update for training deep networks with very
large sparse targets, 2015, arXiv 1412.7091; here U is solved with, so that no inverse of it can drift.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.spherical.balancing import balance
from margins.engine.spherical.factored_weights import FactoredWeights
from margins.engine.spherical.layer_gradient import LayerGradient
from margins.engine.spherical.source import SphericalSource
from margins.errors import MarginsError


class SphericalLayer(FactoredWeights):
    """Scores of C classes whose weights W [C, dim] and bias [C] are held as V U + 1 w'.

    It learns by `step`, plain gradient descent, from what was differentiated through `source` since the last
    step; several backward passes add up. No optimiser sees its weights: they are buffers. A step costs
    O((B + w) w^2), w = dim + 1, whatever C is. Every number but V is in float64; V is in float32, and the
    statistics of W are kept exactly for the V that is held.

    Args:
        dim: of the embeddings.
        num_classes: C.
        bias: whether each class has a bias; it does not decay.
        balance_every: steps between two looks at the singular values of U; there is one sooner when they may
            have moved far.
        generator: draws the first weights, uniform as those of `torch.nn.Linear`; the bias starts at 0.

    Example:
        >>> layer = SphericalLayer(4, 1000, generator=torch.Generator().manual_seed(0))
        >>> sums, squares = layer.source(torch.ones(2, 4)).moments()
        >>> torch.allclose(squares.float(), layer.scores(torch.ones(2, 4)).square().sum(1))
        True
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        bias: bool = True,
        balance_every: int = 100,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(dim, num_classes, bias=bias, generator=generator)
        if balance_every < 1:
            raise MarginsError("balance_every", expected="at least 1", received=str(balance_every))
        self.balance_every = balance_every
        self.is_trained = True
        self.gradient = LayerGradient(self.width)

    @property
    def num_repaired(self) -> int:
        """Singular values of U that were moved into V so far."""
        return int(self.counts[1])

    @property
    def num_taken_in(self) -> int:
        """How often V took in all of U, because too many singular values had moved."""
        return int(self.counts[2])

    def source(self, embeddings: Tensor) -> SphericalSource:
        """The scores of embeddings [B, dim], for a loss under the evaluator `Spherical`.

        Raises:
            MarginsError: not [B, dim] finite floats on the layer's device.
        """
        return SphericalSource.of(self, embeddings, self.gradient if self.is_trained else None)

    def forward(self, embeddings: Float[Tensor, "anchors dim"]) -> Float[Tensor, "anchors classes"]:
        """All scores [B, C], for prediction.

        Raises:
            MarginsError: a gradient is wanted in training: it would reach the embeddings but not the weights.
        """
        if self.training and self.is_trained and torch.is_grad_enabled():
            raise MarginsError(
                "head",
                expected="the evaluator Spherical in training: loss.on_source(head.source(x), targets)",
                received="all scores asked for, which train no weights here",
                fix="for prediction call head.eval() or use torch.no_grad()",
            )  # fmt: skip
        return self.scores(embeddings)

    def zero_gradient(self) -> None:
        """Forgets what was differentiated since the last step."""
        self.gradient.clear()

    def scale_gradient(self, factor: Tensor | float) -> None:
        """Multiplies the gradient of the weights."""
        self.gradient.scale(factor)

    @torch.no_grad()
    def gradient_norm(self) -> Float[Tensor, ""]:
        """The norm of the gradient by all of W, for clipping; it is not written out for that."""
        curvature, lift = self.gradient.shared(self.factor)
        columns, rows = self.gradient.listed(self.factor)
        weights = self.table[columns].double() @ self.factor + self.shift
        squared = (curvature @ self.gram * curvature).sum() + self.num_classes * lift.square().sum()
        squared = squared + rows.square().sum() + 2 * (curvature @ self.total) @ lift
        squared = squared + 2 * (weights @ curvature * rows).sum() + 2 * rows.sum(0) @ lift
        return squared.clamp(min=0.0).sqrt()

    @torch.no_grad()
    def step(self, rate: float, *, weight_decay: float = 0.0) -> None:
        """W less `rate` times its gradient and `weight_decay` times W; the gradient is cleared.

        Nothing happens when nothing was differentiated.

        Raises:
            MarginsError: the gradient is not finite.
        """
        if self.gradient.is_empty:
            return
        curvature, lift = self.gradient.shared(self.factor)
        columns, rows = self.gradient.listed(self.factor)
        size = rate * float(curvature.norm())
        if not math.isfinite(size + float(rows.sum())):
            raise MarginsError(
                "gradient of the spherical head", expected="finite numbers", received="NaN or infinity",
                fix="lower the learning rate",
            )  # fmt: skip
        keep = torch.full_like(lift, 1 - rate * weight_decay)
        keep[self.dim :] = 1.0  # the bias
        self._move_all(torch.diag(keep) - rate * curvature, rate * lift)
        self.reach = self.reach * self.reach.new_tensor([max(float(keep.min()) - size, 0.0), 1 + size])
        self.counts[0] += 1
        self.counts[3] += 1
        balance(self, every=self.balance_every)
        self._move_listed(columns, rate * rows)
        self.version += 1
        self.gradient.clear()

    def _move_all(self, map_: Float[Tensor, "width width"], lift: Float[Tensor, " width"]) -> None:
        """W becomes W map - 1 lift'; the map is symmetric."""
        total = map_ @ self.total
        cross = torch.outer(total, lift)
        lifted = self.num_classes * torch.outer(lift, lift)
        self.gram = map_ @ self.gram @ map_ - cross - cross.T + lifted
        self.total = total - self.num_classes * lift
        self.factor = self.factor @ map_
        self.shift = map_ @ self.shift - lift

    def _move_listed(self, columns: Tensor, change: Float[Tensor, "n width"]) -> None:
        """Rows of W less `change`; the Gram matrix follows what rounding of V leaves of it."""
        if not len(columns):
            return
        old = self.table[columns].double()
        held = (old - torch.linalg.solve(self.factor.T, change.T).T).to(self.table.dtype)
        self.table.index_copy_(0, columns, held)
        new = held.double()
        moved, middle = (torch.cat([new - old, (new + old) / 2]) @ self.factor).chunk(2)
        cross = (middle + self.shift).T @ moved
        self.gram = self.gram + cross + cross.T
        self.total = self.total + moved.sum(0)

    def requires_grad_(self, requires_grad: bool = True) -> SphericalLayer:
        """Whether it learns; a frozen layer passes gradients on and keeps none."""
        self.is_trained = requires_grad
        super().requires_grad_(requires_grad)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)
        self.gradient.clear()
