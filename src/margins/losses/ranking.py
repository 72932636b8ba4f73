"""Losses of the order of scores: all pairs, or the top of a list."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.pairs.sums import Method, Surrogate
from margins.errors import MarginsError, values_are_readable
from margins.losses.forms.lists import ListLoss
from margins.losses.forms.pairs import PairsLoss, Scope
from margins.losses.softplus import softplus


@carded(
    LossCard(
        name="Mann-Whitney (AUC) loss",
        summary="optimises the area under the ROC curve; rare classes, ranking, one global threshold",
        paper="Optimizing What Matters: AUC-Driven Learning for Neural Retrieval, 2025, arXiv 2510.00137",
        entry=9,
        targets=("classes", "label sets", "scores", "pairs", "matches"),
        distributed="global",
        comparable=True,
        collapse="the surrogate at 0 (log 2 for logistic): all scores equal",
        limits=(
            "one positive and one negative a row, scope 'row': CrossEntropy of the two",
            "divided by log 2 (logistic): an upper bound of 1 - AUC",
        ),
    )
)
class MannWhitney(PairsLoss):
    r"""Mean over pairs of a surrogate of "the negative scores higher than the positive".

    $L = \mathrm{mean}_{p, n} \ell((s_n - s_p) / \tau)$ with $\ell(x) = \log(1 + e^x)$ (logistic),
    $\max(0, 1 + x)$ (hinge), its square (squared hinge), $(1 + x)^2$ (square) or $x$ (linear). The time grows
    with the number of scores, not of pairs, and no matrix of pairs is held.

    Its scores have no meaning beyond their order: do not read them as probabilities.

    Args:
        surrogate: "logistic", "hinge", "squared_hinge", "square" or "linear". "linear" has no minimum: use it
            with bounded scores.
        temperature: $\tau$ > 0.
        scope: "global" pairs all positives with all negatives of the batch, across queries, so that one
            threshold serves all; "row" stays within a query (or within `groups` of the call); "column" is
            one-versus-rest for classes.
        method: how the pairs are summed, see `margins.engine.pairs.sums`; `sums` says which ran.
        reduction: over rows or columns; see `margins.engine.reduction`.

    References:
        arXiv 2510.00137.

    Example:
        >>> MannWhitney()(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))
        tensor(0.1269)
    """

    def __init__(
        self,
        surrogate: Surrogate = "logistic",
        *,
        temperature: float = 1.0,
        scope: Scope = "global",
        method: Method = "auto",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            surrogate=surrogate, temperature=temperature, scope=scope, method=method, reduction=reduction
        )


_LARGEST_GRADE = 60


@carded(
    LossCard(
        name="LambdaRank",
        summary="graded relevance judged by nDCG: pairs weighted by what swapping them would change",
        paper="Burges, From RankNet to LambdaRank to LambdaMART, 2010, MSR-TR-2010-82",
        entry=142,
        targets=("scores", "label sets", "taxonomy"),
        distributed="independent",
        comparable=False,
        collapse="depends on the grades of the row: all scores equal",
        limits=("two candidates, one relevant: |swap gain| times the logistic loss of the pair",),
    )
)
class LambdaRank(ListLoss):
    r"""RankNet over the best-scored candidates, each pair weighted by its swap's change of nDCG.

    $L_i = \sum_{t_a > t_b} \frac{|2^{t_a} - 2^{t_b}| \, |D_a - D_b|}{\max DCG}
    \log(1 + e^{-(s_a - s_b)})$ with $D = 1 / \log_2(1 + rank)$ by the current scores, a constant to the
    gradient.

    Args:
        top: candidates of a row that take part, >= 2.
        reduction: see `margins.engine.reduction`.

    References:
        Burges 2010, MSR-TR-2010-82.
    """

    def __init__(self, *, top: int = 100, reduction: str = "mean") -> None:
        super().__init__(top=top, reduction=reduction)

    def of_list(
        self,
        scores: Float[Tensor, "anchors top"],
        grades: Float[Tensor, "anchors top"],
        there: Bool[Tensor, "anchors top"],
        ideal: Float[Tensor, "anchors top"],
    ) -> Float[Tensor, " anchors"]:
        """The weighted pairs of each list."""
        if values_are_readable(ideal) and ideal.numel() and float(ideal.max()) > _LARGEST_GRADE:
            raise MarginsError(
                "targets",
                expected=f"grades up to {_LARGEST_GRADE}: a gain is 2 to the grade",
                received=f"{float(ideal.max()):g}",
                fix="number the grades of relevance 0, 1, 2, ...",
            )
        ranks = torch.arange(scores.shape[1], device=scores.device, dtype=scores.dtype)
        discount = 1 / torch.log2(ranks + 2)
        best = ((torch.exp2(ideal) - 1) * discount).sum(1)
        gains = torch.exp2(grades) - 1
        swap = (gains[:, :, None] - gains[:, None, :]).abs() * (discount[:, None] - discount[None, :]).abs()
        ordered = (grades[:, :, None] > grades[:, None, :]) & there[:, :, None] & there[:, None, :]
        pairs = torch.where(ordered, swap * softplus(scores[:, None, :] - scores[:, :, None]), 0.0)
        return pairs.sum((1, 2)) / torch.where(best > 0, best, 1.0)
