"""Overlap of predicted and true items: Dice, self-adjusting Dice, Tversky."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.errors import MarginsError, MarginsWarning
from margins.losses.forms.base import in_range
from margins.losses.forms.counts import Average, Confusion, CountsLoss, Items, Link, soft_confusion

Level = Literal["batch", "example"]


class OverlapLoss(CountsLoss):
    """One minus a smoothed overlap of predictions and truths.

    Args:
        smoothing: added to the overlap and to the size, >= 0.
        level: "batch" takes the overlap of all items of a column, "example" that of every item alone, and the
            mean over the items by their weights.
        ohem_ratio: keeps all positives of a column and of its negatives those that score highest, this many
            for each positive; 0 keeps all. Weights count as rows: two of weight 1/2 are one.
        average: "macro" or "micro" over columns.
        link: "sigmoid" or "softmax".
    """

    def __init__(
        self, *, smoothing: float, level: Level, ohem_ratio: float, average: Average, link: Link
    ) -> None:
        super().__init__(average=average, link=link)
        if level not in get_args(Level):
            raise MarginsError("level", expected=f"one of {get_args(Level)}", received=repr(level))
        self.level: Level = level
        # Without smoothing the loss of a lone negative is 1 whatever is predicted.
        self.smoothing = in_range("smoothing", smoothing, low=0, open_low=level == "example")
        self.ohem_ratio = in_range("ohem_ratio", ohem_ratio, low=0)
        if level == "example":
            text = f"{type(self).__name__}(level='example'): from scratch it often collapses"
            warnings.warn(MarginsWarning("MG031", text), stacklevel=3)

    def predicted(self, probabilities: Float[Tensor, "anchors columns"]) -> Float[Tensor, "anchors columns"]:
        """The probabilities themselves."""
        return probabilities

    @abstractmethod
    def overlap_of(self, counts: Confusion) -> tuple[Float[Tensor, "*columns"], Float[Tensor, "*columns"]]:
        """The overlap and the size that it is divided by, before smoothing."""

    def loss_of(self, counts: Confusion) -> Float[Tensor, "*columns"]:
        """One minus the smoothed quotient."""
        overlap, size = self.overlap_of(counts)
        return 1 - (overlap + self.smoothing) / (size + self.smoothing).clamp(min=1e-12)

    def of_items(self, items: Items) -> tuple[Float[Tensor, "*columns"], Bool[Tensor, "*columns"]]:
        """The loss of each column, and which columns have a positive."""
        if self.ohem_ratio:
            items = replace(items, weight=hard_weights(items, self.ohem_ratio))
        if self.level == "batch":
            return super().of_items(items)
        each = self.loss_of(soft_confusion(self.predicted(items.p), items.y, dims=()))
        total = items.weight.sum(self.summed_dims)
        mean = (items.weight * each).sum(self.summed_dims) / torch.where(total > 0, total, 1.0)
        return mean, (items.weight * items.y).sum(self.summed_dims) > 0


def hard_weights(items: Items, ratio: float) -> Float[Tensor, "anchors columns"]:
    """The weights of positives as they are, and of the best-scored negatives of a column up to a budget.

    The budget is the ratio times the weight of the column's positives; the negative at its end keeps what is
    left of it. A row of weight 2 is treated as the row twice.

    Args:
        items: of the batch.
        ratio: negatives a positive, > 0.
    """
    positive = items.y > 0
    budget = ratio * (items.weight * positive).sum(0)
    negatives = torch.where(positive, 0.0, items.weight)
    ranked = items.scores.detach().masked_fill(negatives == 0, -torch.inf)
    order = ranked.sort(dim=0, descending=True, stable=True).indices
    weights = negatives.gather(0, order)
    before = weights.cumsum(0) - weights
    kept = (budget - before).clamp(min=0.0).minimum(weights)
    return torch.where(positive, items.weight, torch.zeros_like(kept).scatter(0, order, kept))


@carded(
    LossCard(
        name="Self-adjusting Dice (DSC)",
        summary="F1 of soft predictions over the batch; few positives among many negatives",
        paper="Li et al., Dice Loss for Data-imbalanced NLP Tasks, 2020, arXiv 1911.02855",
        entry=22,
        targets=("label sets", "scores", "classes"),
        distributed="global",
        comparable=True,
        collapse="near 1: nothing predicted",
        limits=(
            "certain predictions, smoothing -> 0: 1 - F1",
            "square = False, smoothing -> 0: AnyLoss of F1, not amplified",
        ),
        tests=(
            "tests/test_overlap_losses.py::test_dice_of_certain_predictions_is_one_minus_the_f1_of_scikit_learn",
            "tests/test_overlap_losses.py::test_self_adjusting_dice_does_not_pull_at_a_negative_of_one_half",
            "tests/test_overlap_losses.py::test_an_unknown_item_is_an_item_that_is_not_there",
        ),
        study="dice",
    )
)
class Dice(OverlapLoss):
    r"""One minus the Dice coefficient of the batch; with `alpha`, items that are easy adjust themselves.

    $L = 1 - \frac{2 \sum q t + \gamma}{\sum q^{(2)} + \sum t^{(2)} + \gamma}$ with
    $q = (1 - p)^\alpha p$; predictions and truths are squared in the denominator by default, which trains
    more steadily. The paper's form is `alpha=1, level="example", square=False`: one such quotient an item.

    Use it for taggers and rare classes that are judged by F1 at a fixed threshold, and with models that are
    under-fitted or linear; compare it with cross-entropy and a tuned threshold, its honest rival. Do not use
    the paper's form to train from scratch: at small p its positives hardly pull, and it tends to end by
    calling all items positive or none. Give it a pretrained encoder, a small learning rate and balanced
    negatives, or let cross-entropy train first (a recipe's plan).

    Args:
        smoothing: $\gamma$ >= 0; > 0 with level "example".
        square: whether predictions and truths are squared in the denominator.
        alpha: $\alpha$ >= 0; 0 is plain Dice. With 1 a sure item no longer pulls. Warns with MG030.
        level: "batch" or "example", see `OverlapLoss`. "example" warns with MG031.
        ohem_ratio: hard negatives kept for each positive; 0 keeps all.
        average: "macro" or "micro" over columns.
        link: "sigmoid" or "softmax".

    Raises:
        MarginsError: a hyperparameter out of its range.

    References:
        Li et al. 2020, arXiv 1911.02855; Milletari et al. 2016, arXiv 1606.04797 (squared).

    Example:
        >>> Dice(smoothing=0.0)(torch.tensor([9.0, 9.0, -9.0]), torch.tensor([1.0, 0.0, 0.0]))
        tensor(0.3333)
    """

    def __init__(
        self,
        *,
        smoothing: float = 1.0,
        square: bool = True,
        alpha: float = 0.0,
        level: Level = "batch",
        ohem_ratio: float = 0.0,
        average: Average = "macro",
        link: Link = "sigmoid",
    ) -> None:
        super().__init__(smoothing=smoothing, level=level, ohem_ratio=ohem_ratio, average=average, link=link)
        self.square = square
        self.alpha = in_range("alpha", alpha, low=0)
        if alpha:
            text = f"Dice(alpha={alpha:g}): flat near probability 0; from scratch it often collapses"
            warnings.warn(MarginsWarning("MG030", text), stacklevel=2)

    def predicted(self, probabilities: Float[Tensor, "anchors columns"]) -> Float[Tensor, "anchors columns"]:
        """The probabilities, less of them the surer they are."""
        if not self.alpha:
            return probabilities
        return probabilities * (1 - probabilities).clamp(min=1e-12) ** self.alpha  # guarded: alpha may be < 1

    def overlap_of(self, counts: Confusion) -> tuple[Float[Tensor, "*columns"], Float[Tensor, "*columns"]]:
        """Twice the overlap, and the two sizes."""
        if self.square:
            return 2 * counts.tp, counts.squares + counts.true_squares
        return 2 * counts.tp, counts.tp + counts.fp + counts.tp + counts.fn


@carded(
    LossCard(
        name="Tversky loss",
        summary="Dice with a price of its own for false alarms and for misses",
        paper="Salehi, Erdogmus, Gholipour, Tversky Loss Function for Image Segmentation, 2017, "
        "arXiv 1706.05721",
        entry=22,
        targets=("label sets", "scores", "classes"),
        distributed="global",
        comparable=True,
        collapse="near 1: nothing predicted",
        limits=(
            "alpha = beta = 1/2: Dice of twice the smoothing, not squared",
            "alpha = beta = 1, certain predictions, smoothing -> 0: 1 - Jaccard index",
        ),
        tests=("tests/test_overlap_losses.py::test_tversky_of_one_half_and_one_half_is_dice",),
    )
)
class Tversky(OverlapLoss):
    r"""One minus the Tversky index of the batch.

    $L = 1 - \frac{TP + \gamma}{TP + \alpha FP + \beta FN + \gamma}$ of soft counts. `beta` above `alpha`
    asks for recall; `alpha=1, beta=1` is the soft Jaccard index.

    Use it where misses and false alarms cost differently, and say by how much; a threshold tuned for the
    F-beta you want does the same for a model that is fitted well.

    Args:
        alpha: price of a false positive, >= 0.
        beta: price of a false negative, >= 0; the sum of both is > 0, and 1 in the paper.
        smoothing: $\gamma$ >= 0; > 0 with level "example".
        level: "batch" or "example", see `OverlapLoss`. "example" warns with MG031.
        ohem_ratio: hard negatives kept for each positive; 0 keeps all.
        average: "macro" or "micro" over columns.
        link: "sigmoid" or "softmax".

    Raises:
        MarginsError: a hyperparameter out of its range.

    References:
        Salehi, Erdogmus, Gholipour 2017, arXiv 1706.05721.

    Example:
        >>> Tversky(0.3, 0.7, smoothing=0.0)(torch.tensor([9.0, -9.0]), torch.tensor([1.0, 1.0]))
        tensor(0.4118)
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        *,
        smoothing: float = 1.0,
        level: Level = "batch",
        ohem_ratio: float = 0.0,
        average: Average = "macro",
        link: Link = "sigmoid",
    ) -> None:
        super().__init__(smoothing=smoothing, level=level, ohem_ratio=ohem_ratio, average=average, link=link)
        self.alpha = in_range("alpha", alpha, low=0)
        self.beta = in_range("beta", beta, low=0, open_low=alpha == 0)

    def overlap_of(self, counts: Confusion) -> tuple[Float[Tensor, "*columns"], Float[Tensor, "*columns"]]:
        """What is predicted and true, and the same with the priced mistakes."""
        return counts.tp, counts.tp + self.alpha * counts.fp + self.beta * counts.fn
