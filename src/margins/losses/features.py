"""Penalties on the geometry of embeddings."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.score_rules import unit
from margins.errors import MarginsError
from margins.losses.forms.base import in_range
from margins.losses.forms.features import FeaturesLoss

Apart = Literal["abs_mean", "mean", "mean_abs", "mean_square"]


@carded(
    LossCard(
        name="Orthogonal projection loss",
        summary="beside cross-entropy: features of a class align, those of different classes are orthogonal",
        paper="Ranasinghe et al., Orthogonal Projection Loss, 2021, arXiv 2103.14021",
        entry=107,
        targets=("classes",),
        distributed="gathered",
        comparable=True,
        collapse="gamma: all features equal",
        limits=("orthonormal class directions: 0",),
    )
)
class OrthogonalProjection(FeaturesLoss):
    r"""One minus the mean cosine within classes, plus gamma times that between classes.

    $L = (1 - s) + \gamma |n|$ with $s$, $n$ the mean cosines of pairs of one and of different labels; the
    denominators are the numbers of such pairs. A part without a pair is 1 for $s$ and 0 for $n$, a constant.
    With few training classes it can hurt transfer to new ones.

    Args:
        gamma: weight of the second part, >= 0.
        apart: its form: "abs_mean" |mean| (the paper), "mean", "mean_abs", "mean_square".

    References:
        Ranasinghe et al. 2021, arXiv 2103.14021.

    Example:
        >>> OrthogonalProjection()(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]))
        tensor(0.)
    """

    def __init__(self, gamma: float = 0.5, *, apart: Apart = "abs_mean") -> None:
        super().__init__(reduction="mean")
        if apart not in get_args(Apart):
            raise MarginsError("apart", expected=f"one of {get_args(Apart)}", received=repr(apart))
        self.gamma = in_range("gamma", gamma, low=0)
        self.apart: Apart = apart

    def of_features(
        self, embeddings: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]
    ) -> Float[Tensor, ""]:
        """The penalty of the batch."""
        directions = unit(embeddings)
        cosines = directions @ directions.T
        same = labels[:, None] == labels[None, :]
        itself = torch.eye(labels.shape[0], dtype=torch.bool, device=labels.device)
        within = _mean_where(cosines, same & ~itself)
        return (1 - within) + self.gamma * self._between(cosines, ~same)

    def _between(self, cosines: Tensor, different: Tensor) -> Tensor:
        if self.apart == "mean_abs":
            return _mean_where(cosines.abs(), different)
        if self.apart == "mean_square":
            return _mean_where(cosines.square(), different)
        mean = _mean_where(cosines, different)
        return mean.abs() if self.apart == "abs_mean" else mean


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
