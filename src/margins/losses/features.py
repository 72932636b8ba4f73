"""Penalties on the geometry of embeddings."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from margins.cards import LossCard, carded
from margins.engine.score_rules import unit
from margins.errors import MarginsError, describe
from margins.losses.forms.base import in_range
from margins.losses.forms.features import FeaturesLoss
from margins.targets.checks import check_range

Apart = Literal["abs_mean", "mean", "mean_abs", "mean_square"]


@carded(
    LossCard(
        name="Orthogonal projection loss",
        summary="beside cross-entropy: features of a class align, those of different classes are orthogonal",
        paper="Ranasinghe et al., Orthogonal Projection Loss, 2021, arXiv 2103.14021",
        entry=107,
        targets=("classes",),
        stations=("penalties",),
        distributed="gathered",
        comparable=True,
        collapse="gamma: all features equal",
        limits=("orthonormal class directions: 0",),
        recipe={"objective": {"penalties": [{"loss": "orthogonal_projection"}]}},
        tests=(
            "tests/test_orthogonal_projection.py::test_two_tight_classes_give_gamma_times_the_cosine_between_them",
        ),
        study="orthogonal_projection",
    )
)
class OrthogonalProjection(FeaturesLoss):
    r"""One minus the mean cosine within classes, plus gamma times that between classes.

    $L = (1 - s) + \gamma |n|$ with $s$, $n$ the mean cosines of pairs of one and of different labels; the
    denominators are the numbers of such pairs. A part without a pair is 1 for $s$ and 0 for $n$, a constant.

    Use it beside cross-entropy, where classes are to stand apart in the embedding. Do not use it for classes
    to come: with few training classes the directions that they do not need collapse, and accuracy on new
    classes falls (`margins.compare.novel_class` shows how far).

    Args:
        gamma: weight of the second part, >= 0.
        apart: its form: "abs_mean" |mean| (the paper), "mean" (goes on below a right angle), "mean_abs" and
            "mean_square" (every pair is to be orthogonal, not their mean alone).
        attention: whether each embedding is first replaced by a mean of the batch, weighted by the softmax of
            its inner products with it.

    References:
        Ranasinghe et al. 2021, arXiv 2103.14021, eq. 5; attention is of the authors' code alone.

    Example:
        >>> OrthogonalProjection()(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]))
        tensor(0.)
    """

    def __init__(self, gamma: float = 0.5, *, apart: Apart = "abs_mean", attention: bool = False) -> None:
        super().__init__(reduction="mean")
        if apart not in get_args(Apart):
            raise MarginsError("apart", expected=f"one of {get_args(Apart)}", received=repr(apart))
        self.gamma = in_range("gamma", gamma, low=0)
        self.apart: Apart = apart
        self.attention = attention

    def of_features(
        self, embeddings: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]
    ) -> Float[Tensor, ""]:
        """The penalty of the batch."""
        directions = unit(_attended(embeddings) if self.attention else embeddings)
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


@carded(
    LossCard(
        name="Orthogonal projection loss with class centres",
        summary="the same with a learned centre a class: for batches that hold few rows of a class",
        paper="Ranasinghe et al., Orthogonal Projection Loss, 2021, arXiv 2103.14021 (authors' code)",
        entry=107,
        targets=("classes",),
        stations=("penalties",),
        distributed="gathered",
        comparable=True,
        collapse="gamma: all features and centres equal",
        limits=("orthonormal centres, features on their own: 0",),
        tests=("tests/test_orthogonal_projection.py::test_centres_do_not_care_who_else_is_in_the_batch",),
    )
)
class PrototypeOrthogonalProjection(FeaturesLoss):
    r"""Half of one minus the cosine to the own class's centre, plus gamma times that to the others'.

    $L = \frac12 (1 - s) + \gamma |n|$ with $s$ the mean of $\cos(h_i, c_{y_i})$ over items, and $n$ that of
    $\cos(h_i, c_k)$ over items and all $k \ne y_i$; the denominators are the numbers of such pairs.

    Use it where batches have too few rows of a class for `OrthogonalProjection`, which needs pairs. The
    centres are parameters: they are trained, and saved with the loss. The loss of a batch is the mean of what
    its items give, but for the absolute value.

    Args:
        num_classes: C, number of centres.
        width: d, of the embeddings.
        gamma: weight of the second part, >= 0.
        seed: draws the first centres, uniform in direction.

    References:
        Ranasinghe et al. 2021, arXiv 2103.14021; this form is of the authors' code alone.

    Example:
        >>> loss = PrototypeOrthogonalProjection(2, 2)
        >>> with torch.no_grad():
        ...     _ = loss.centres.copy_(torch.eye(2))
        >>> loss(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])).item()
        0.0
    """

    def __init__(self, num_classes: int, width: int, *, gamma: float = 1.0, seed: int = 0) -> None:
        super().__init__(reduction="mean")
        size = (int(in_range("num_classes", num_classes, low=1)), int(in_range("width", width, low=1)))
        self.gamma = in_range("gamma", gamma, low=0)
        self.centres = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(seed)))

    def of_features(
        self, embeddings: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]
    ) -> Float[Tensor, ""]:
        """The penalty of the batch."""
        num_classes, width = self.centres.shape
        if embeddings.shape[1] != width:
            raise MarginsError("embeddings", expected=f"[B, {width}]", received=describe(embeddings))
        check_range("labels", labels, num_classes)
        cosines = unit(embeddings) @ unit(self.centres.to(embeddings.dtype)).T
        own = labels[:, None] == torch.arange(num_classes, device=labels.device)
        return (1 - _mean_where(cosines, own)) / 2 + self.gamma * _mean_where(cosines, ~own).abs()


def _attended(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.T).softmax(1) @ embeddings


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
