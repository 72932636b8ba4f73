"""Triplets: each anchor's positives against its negatives, by a margin."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.pairs.semi_hard import semi_hard_totals
from margins.engine.reduction import divided
from margins.engine.score_rules import ScoreRule, UnitEuclidean
from margins.engine.sources import Source, factored, matrix_of
from margins.errors import MarginsError
from margins.losses.forms.base import (
    Loss,
    as_targets,
    check_device,
    in_range,
    refuse_real_values,
    refuse_shares,
)
from margins.targets import Targets


@carded(
    LossCard(
        name="Triplet loss with semi-hard mining",
        summary="pushes apart what is nearly as near as a positive; embeddings from class labels",
        paper="Schroff, Kalenichenko, Philbin, FaceNet, 2015, arXiv 1503.03832",
        targets=("matches", "label sets", "classes"),
        distributed="gathered",
        comparable=False,
        collapse="0: no negative is below a positive when all embeddings are equal",
        limits=("margin large, every negative below its positive: margin plus the mean score difference",),
    )
)
class SemiHardTriplet(Loss):
    r"""Mean hinge of the semi-hard triplets of the batch.

    Over anchors a, positives p and negatives n with $s_{an} < s_{ap} < s_{an} + m$ (the negative is further
    away than the positive, but not by the margin): $L = \mathrm{mean} \; m - s_{ap} + s_{an}$. On embeddings
    a score is minus the Euclidean distance of the unit vectors.

    The denominator is the number of such triplets in the batch, their weight with weights; which triplets
    are taken passes no gradient. Triplets are never listed. Without any the loss is 0. Prefer
    `MultiSimilarity` or `SupCon` when batches are small: few triplets are semi-hard late in training.

    Args:
        margin: m > 0, in units of distance; at most 2 makes sense on unit vectors.
        reduction: "mean", or "sum" over triplets.

    References:
        Schroff, Kalenichenko, Philbin 2015, arXiv 1503.03832 (all semi-hard negatives of a batch here).

    Example:
        >>> scores = torch.tensor([[-1.0, -1.1, -1.5]])
        >>> SemiHardTriplet(margin=0.2)(scores, torch.tensor([0]))
        tensor(0.1000)
    """

    form = "pairs"

    def __init__(self, margin: float = 0.2, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if self.reduction not in ("mean", "sum"):
            raise MarginsError("reduction", expected="'mean' or 'sum' over triplets", received=reduction)
        self.margin = in_range("margin", margin, low=0, open_low=True)

    def forward(
        self,
        scores: Float[Tensor, "anchors candidates"],
        targets: Targets | Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of a matrix of scores.

        Args:
            scores: [B, C].
            targets: as for other losses.
            denominator: number of triplets to divide by, instead of this batch's own.
        """
        source = matrix_of(scores)
        return self._reduced(source, as_targets(targets, source.shape), denominator)

    def on_embeddings(
        self,
        embeddings: Float[Tensor, "anchors dim"],
        labels: Int[Tensor, " anchors"] | Targets,
        *,
        references: Float[Tensor, "references dim"] | None = None,
        reference_labels: Int[Tensor, " references"] | None = None,
        same_items: Int[Tensor, " anchors"] | None = None,
        rule: ScoreRule | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, ""]:
        """Every embedding is an anchor; items of its label are its positives, itself excepted.

        No anchors x references tensor is kept, whatever the size of the batch.

        Args:
            embeddings: [B, d].
            labels: [B] integers, or `Targets` over the references.
            references: [R, d] candidates; the embeddings themselves when None.
            reference_labels: [R] integers, with references.
            same_items: [B] place of each anchor among the references, -1 when it is not there.
            rule: another score rule; higher must mean nearer.
            denominator: see `forward`.
        """
        candidates = embeddings if references is None else references
        targets = labels if isinstance(labels, Targets) else Targets.of_matches(
            labels, reference_labels, same_items=same_items
        )  # fmt: skip
        source = factored(rule or UnitEuclidean(), embeddings, candidates)
        return self._reduced(source, as_targets(targets, source.shape), denominator)

    def _reduced(self, source: Source, targets: Targets, denominator: Tensor | float | None) -> Tensor:
        check_device(source.like, targets)
        refuse_real_values(targets)
        refuse_shares(targets)
        if source.shape[1] == 0:
            raise MarginsError("scores", expected="[B, C] with C >= 1", received=str(list(source.shape)))
        rows = targets.known_rows()
        if rows is not None:
            targets = targets.weigh(rows=rows.to(torch.get_default_dtype()))
        hinge, count = semi_hard_totals(source, targets, self.margin)
        if self.reduction == "sum":
            return hinge
        return divided(hinge, count if denominator is None else denominator)
