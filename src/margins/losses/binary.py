"""Losses of independent labels: one sigmoid a candidate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from margins.cards import LossCard, carded
from margins.engine.evaluators import Rows
from margins.engine.statistics import Entries, Sloped, Statistic, total
from margins.losses.forms.base import in_range, refuse_grades_beyond_one
from margins.losses.forms.statistics import StatisticsLoss
from margins.losses.softplus import softplus
from margins.targets import Targets

_PRESSED = Sloped(lambda e: softplus(e.s), lambda e: e.s.sigmoid())


class _IndependentLabels(StatisticsLoss):
    """A sum over known labels; a mean divides by the number of known labels, as torch does."""

    takes_columns = True

    def units(self, targets: Targets) -> Float[Tensor, " anchors"] | None:
        """A row counts as often as it has known labels."""
        return targets.num_known().to(torch.get_default_dtype())

    def check_targets(self, targets: Targets) -> None:
        """Grades are probabilities."""
        super().check_targets(targets)
        refuse_grades_beyond_one(targets)


@carded(
    LossCard(
        name="Binary cross-entropy",
        summary="the plain baseline for labels that do not exclude each other",
        paper="Cox, The regression analysis of binary sequences, J. R. Stat. Soc. B 1958",
        targets=("label sets", "scores", "classes"),
        distributed="independent",
        comparable=True,
        collapse="log 2: all scores 0",
        limits=("torch.nn.functional.binary_cross_entropy_with_logits",),
    )
)
class BinaryCrossEntropy(_IndependentLabels):
    r"""Sigmoid cross-entropy of every known label.

    For multi-label problems and one-versus-rest classification. Row sums are
    $L_i = \sum_j \mathrm{softplus}(s_{ij}) - t_{ij} s_{ij}$; `mean` divides by the number of known labels.

    Args:
        reduction: see `margins.engine.reduction`.

    Example:
        >>> BinaryCrossEntropy()(torch.zeros(2, 3), Targets.of_label_sets([[0, 2], []], 3))
        tensor(0.6931)
    """

    def statistics(self) -> Mapping[str, Statistic]:
        """Softplus of every score, and the target score."""
        return {"pressed": total("all", _PRESSED), "own": total("targets")}

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """Their difference."""
        return z.pressed - z.own


@carded(
    LossCard(
        name="Focal loss (independent labels)",
        summary="multi-label focal loss: plays down labels that are already right",
        paper="Lin et al., Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002",
        targets=("label sets", "scores", "classes"),
        distributed="independent",
        comparable=True,
        collapse="2^(-gamma) log 2: all scores 0",
        limits=("gamma = 0: BinaryCrossEntropy",),
    )
)
class BinaryFocal(_IndependentLabels):
    r"""Sigmoid focal loss.

    $L_i = \sum_j t_{ij} (1 - p_{ij})^\gamma (-\log p_{ij}) + (1 - t_{ij}) p_{ij}^\gamma (-\log(1 - p_{ij}))$

    Args:
        gamma: >= 0.
        reduction: see `margins.engine.reduction`.

    References:
        Lin et al. 2017, arXiv 1708.02002, eq. 4.
    """

    def __init__(self, gamma: float = 2.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.gamma = in_range("gamma", gamma, low=0)

    def _against(self, e: Entries) -> Tensor:
        return -(self.gamma * logsigmoid(e.s)).exp() * logsigmoid(-e.s)

    def _change_at_positive(self, e: Entries) -> Tensor:
        return -(self.gamma * logsigmoid(-e.s)).exp() * logsigmoid(e.s) - self._against(e)

    def statistics(self) -> Mapping[str, Statistic]:
        """The loss of all as negatives, and what the positives change."""
        return {"against": total("all", self._against), "change": total("targets", self._change_at_positive)}

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """Their sum."""
        return z.against + z.change
