"""Ordered and nested classes: losses of the chances of "this class or a later one"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.errors import MarginsError
from margins.losses.forms.base import in_range, known_weights, refuse_entry_weights
from margins.losses.forms.counts import Average, Items
from margins.losses.forms.rows import RowsLoss
from margins.losses.overlap import Dice
from margins.losses.softplus import softplus
from margins.targets import Targets

_PAPER = (
    "Hu et al., Hierarchical multi-class segmentation of glioma images using networks with multi-level "
    "activation function, 2018, arXiv 1810.09488"
)


def cumulative_logits(
    scores: Float[Tensor, "anchors candidates"], known: Bool[Tensor, "anchors candidates"] | None = None
) -> tuple[Float[Tensor, "anchors cuts"], Bool[Tensor, "anchors cuts"] | None]:
    """The log-odds of "class c or a later one" for c = 1 ... C - 1, from the class scores of a softmax.

    Args:
        scores: [B, C] logits or log-probabilities, classes in their order.
        known: an unknown class is as one that is not there; None when all are known.

    Returns:
        [B, C - 1] log-odds, 0 where there is no cut; and where there is one: before a known class, after
        another; None if everywhere.

    Example:
        >>> cumulative_logits(torch.tensor([[0.2, 0.3, 0.5]]).log())[0].sigmoid()
        tensor([[0.8000, 0.5000]])
    """
    flipped = None if known is None else known.flip(1)
    later, earlier = _logsumexp_so_far(scores.flip(1), flipped).flip(1), _logsumexp_so_far(scores, known)
    logits = later[:, 1:] - earlier[:, :-1]
    if known is None:
        return logits, None
    is_cut = known[:, 1:] & known.cumsum(1)[:, :-1].bool()
    return torch.where(is_cut, logits, 0.0), is_cut


def _logsumexp_so_far(scores: Tensor, known: Tensor | None) -> Tensor:
    """[B, C] over the known candidates up to each one; a finite number that means nothing before the first.

    torch's logcumsumexp has no second derivative where a gradient is 0.
    """
    columns = scores.unbind(1)
    found, seen = [*columns[:1]], None if known is None else known[:, 0]
    for j, column in enumerate(columns[1:], start=1):
        total = torch.logaddexp(found[-1], column)
        if known is not None and seen is not None:
            total = torch.where(known[:, j], torch.where(seen, total, column), found[-1])
            seen = seen | known[:, j]
        found.append(total)
    return torch.stack(found, 1)


def masses_beside_cuts(
    grades: Float[Tensor, "anchors candidates"],
) -> tuple[Float[Tensor, "anchors cuts"], Float[Tensor, "anchors cuts"]]:
    """The grades of "class c or a later one", and of the earlier ones, for c = 1 ... C - 1."""
    return grades.flip(1).cumsum(1).flip(1)[:, 1:], grades.cumsum(1)[:, :-1]


@carded(
    LossCard(
        name="Cumulative cross-entropy",
        summary="ordered or nested classes: a mistake costs more the further it is off",
        paper=_PAPER,
        entry=126,
        targets=("classes", "scores"),
        distributed="independent",
        comparable=True,
        collapse="the mean over cuts of the entropy of the class shares on its two sides: all rows equal",
        limits=(
            "two classes: CrossEntropy",
            "scores of a nested head: the mean of BinaryCrossEntropy over its levels",
        ),
        tests=("tests/test_nested.py::test_the_cumulative_loss_of_a_nested_head_is_binary_over_its_levels",),
        study="nested",
    )
)
class Cumulative(RowsLoss):
    r"""Binary cross-entropy of every cut of an order of classes.

    With $f_c = P(class \ge c)$ of the softmax of the scores,
    $L = - \mathrm{mean}_{c = 1}^{C - 1} [y \ge c] \log f_c + [y < c] \log (1 - f_c)$.

    Use it for grades, stages and nested regions, with any head that scores all classes, and best with the
    nested head. The numbers of the classes are their order, lowest first (`class_order` of `margins.train`);
    do not use it where they have none.
    Its probabilities serve the expected and the median class; for the most likely one and for the log score,
    cross-entropy is the direct objective.

    Args:
        cut_weight: C - 1 weights >= 0 of the cuts, of which the loss is the weighted mean; None weighs all
            alike. More on the last ones helps a rare deepest class.
        reduction: see `margins.engine.reduction`.

    Raises:
        MarginsError: one candidate, weights for another number of classes, or entries that weigh differently.

    References:
        Hu et al. 2018, arXiv 1810.09488 ("modified" cross-entropy); Frank, Hall 2001 (the binary cuts).

    Example:
        >>> loss = Cumulative()
        >>> near, far = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 4.0, 0.0]])
        >>> bool(loss(near, torch.tensor([2])) > loss(far, torch.tensor([2])))
        True
    """

    cut_weight: Tensor | None

    def __init__(self, *, cut_weight: Sequence[float] | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        weights = None if cut_weight is None else [in_range("cut_weight", w, low=0) for w in cut_weight]
        if weights is not None and not sum(weights) > 0:
            raise MarginsError("cut_weight", expected="weights >= 0, some > 0", received=str(weights))
        self.register_buffer(
            "cut_weight", None if weights is None else torch.tensor(weights, dtype=torch.float64),
            persistent=False,
        )  # fmt: skip

    def of_rows(
        self,
        scores: Float[Tensor, "anchors candidates"],
        grades: Float[Tensor, "anchors candidates"],
        known: Bool[Tensor, "anchors candidates"] | None,
    ) -> Float[Tensor, " anchors"]:
        """The mean over the cuts that are there."""
        logits, is_cut = cumulative_logits(scores, known)
        later, earlier = masses_beside_cuts(grades)
        weight = self._weights(logits) if is_cut is None else self._weights(logits) * is_cut
        total = weight.sum(1)
        each = later * softplus(-logits) + earlier * softplus(logits)
        return (weight * each).sum(1) / torch.where(total > 0, total, 1.0)

    def _weights(self, logits: Tensor) -> Tensor:
        num_cuts = logits.shape[1]
        if num_cuts == 0:
            raise MarginsError(
                "scores", expected="[B, C] with C >= 2 ordered classes", received=f"C = {num_cuts + 1}"
            )
        if self.cut_weight is None:
            return torch.ones_like(logits)
        if len(self.cut_weight) != num_cuts:
            raise MarginsError(
                "cut_weight", expected=f"C - 1 = {num_cuts} weights", received=f"{len(self.cut_weight)}"
            )
        return self.cut_weight.to(logits).expand(logits.shape)


@carded(
    LossCard(
        name="Nested soft Dice",
        summary="nested regions or ordered classes judged by the overlap of each level",
        paper=_PAPER,
        entry=126,
        targets=("classes", "scores"),
        distributed="global",
        comparable=True,
        collapse="near 1: nothing predicted",
        limits=("two classes: Dice of the difference of their scores",),
        tests=(
            "tests/test_nested.py::test_nested_dice_of_certain_levels_is_one_minus_the_mean_f1_of_levels",
        ),
    )
)
class NestedDice(Dice):
    r"""Dice of "class c or a later one", averaged over c.

    $L = \mathrm{mean}_c \, Dice(f_c, [y \ge c])$ with $f_c$ as in `Cumulative`. A level without an item in
    the batch does not count.

    Use it for nested regions and rare deep levels judged by Dice or F1 of each level, with batches in which
    every level is met; add it to `Cumulative` or train with that first, for alone it is flat where nothing is
    predicted. The numbers of the classes are their order.

    Args:
        smoothing: see `Dice`.
        square: see `Dice`.
        average: "macro" averages over levels, "micro" adds their counts first.

    References:
        Hu et al. 2018, arXiv 1810.09488.

    Example:
        >>> NestedDice(smoothing=0.0)(20 * torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 2, 1]))
        tensor(0.1667)
    """

    form = "ordered counts"
    reads_order = True

    def __init__(self, *, smoothing: float = 1.0, square: bool = True, average: Average = "macro") -> None:
        super().__init__(smoothing=smoothing, square=square, average=average, link="softmax")

    def items(self, matrix: Float[Tensor, "anchors candidates"], targets: Targets) -> Items:
        """One item for each row and each cut."""
        refuse_entry_weights(targets)
        num_candidates = targets.num_candidates
        known = targets.known(0, num_candidates)
        known = None if known is None else known.expand(matrix.shape)
        grades = targets.grades(0, num_candidates).to(matrix.dtype)
        grades = grades if known is None else torch.where(known, grades, 0.0)
        logits, is_cut = cumulative_logits(matrix, known)
        mass = grades.sum(1, keepdim=True)
        later = masses_beside_cuts(grades)[0] / torch.where(mass > 0, mass, 1.0)
        # Without entry weights the largest weight of a row is the row's own, and 0 where nothing is known.
        weight = known_weights(targets, matrix.dtype).amax(1, keepdim=True) * (mass > 0)
        weight = weight.expand(logits.shape) if is_cut is None else weight * is_cut
        return Items(logits, torch.sigmoid(logits), later, weight)
