"""An anchor's own text against the same text with one decisive word changed."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.score_rules import unit
from margins.engine.sources import at_least_float32, full_precision
from margins.errors import MarginsError, describe
from margins.losses.forms.pairs import PairsLoss
from margins.targets import Targets


@carded(
    LossCard(
        name="Counting-contrastive loss",
        summary="beside a contrastive loss: small words that decide (numbers, sides) must not be ignored",
        paper="Paiss et al., Teaching CLIP to Count to Ten, 2023, arXiv 2302.12066",
        entry=38,
        targets=("label sets", "pairs"),
        distributed="global",
        comparable=True,
        collapse="log 2: an anchor is as near to both texts",
        limits=(
            "one counterfactual an anchor: cross-entropy of the two scores",
            "several of them: MannWhitney within rows",
        ),
        tests=(
            "tests/test_counterfactual.py::test_equal_texts_cost_log_two",
            "tests/test_counterfactual.py::test_the_loss_is_the_cross_entropy_of_the_two_texts",
        ),
        study="counting",
    )
)
class CounterfactualPair(PairsLoss):
    r"""The logistic loss of "the anchor is nearer to its own text than to the counterfactual one".

    $L = \frac{1}{k} \sum_i \log(1 + e^{(v_i \cdot t_i^{cf} - v_i \cdot t_i) / \tau})$ over the $k$ anchors
    that have a counterfactual text, of unit vectors.

    Add it, with weight 1, to a contrastive loss of all pairs (`InfoNCE`), whose negatives seldom differ by
    the small word alone; a share of about 1/32 of a batch with counterfactuals is enough. Not alone: two
    texts an anchor say nothing of the rest. `mining.TokenSwapNegatives` makes the texts.

    As a loss of scores and targets it is the mean over the pairs of a positive and a negative of each row.

    Args:
        temperature: $\tau$ > 0; 1 in the paper, where cosines then differ by 2 at most and the loss stays
            above 0.127. With the contrastive loss's own temperature the pair is pulled apart as strongly.
        reduction: over the anchors: "mean", "sum" or "none".

    References:
        Paiss et al. 2023, arXiv 2302.12066.

    Example:
        >>> image, caption = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])
        >>> CounterfactualPair().on_triples(image, caption, torch.tensor([[0.0, 1.0]]))
        tensor(0.3133)
    """

    def __init__(self, temperature: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(surrogate="logistic", temperature=temperature, scope="row", reduction=reduction)

    def on_triples(
        self,
        anchors: Float[Tensor, "anchors dim"],
        positives: Float[Tensor, "texts dim"],
        counterfactuals: Float[Tensor, "others dim"],
        *,
        has_counterfactual: Bool[Tensor, " anchors"] | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The loss of embeddings; their lengths do not matter.

        Args:
            anchors: [B, d], of images.
            positives: [B, d], of their texts.
            counterfactuals: [B, d], of the changed texts.
            has_counterfactual: [B]; the other anchors do not count. None when all have one.
            denominator: number of anchors of the whole step that count.
        """
        for name, vectors in (("positives", positives), ("counterfactuals", counterfactuals)):
            if vectors.shape != anchors.shape:
                raise MarginsError(
                    name, expected=f"[B, d] = {list(anchors.shape)}, as the anchors",
                    received=describe(vectors),
                )  # fmt: skip
        with full_precision(anchors.device):
            directions = unit(at_least_float32(anchors))
            texts = torch.stack([unit(at_least_float32(t)) for t in (positives, counterfactuals)], 1)
            scores = (directions[:, None] * texts).sum(2)
        targets = Targets.of_classes(scores.new_zeros(len(scores), dtype=torch.int64), 2)
        if has_counterfactual is not None:
            targets = targets.ignore(rows=~has_counterfactual)
        return self(scores, targets, denominator=denominator)
