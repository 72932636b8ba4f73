"""Losses of a softmax over candidates: cross-entropy, focal, and the comp-sum family."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from margins.cards import LossCard, carded
from margins.engine.evaluators import Dense, Evaluator, Rows
from margins.engine.reduction import RowLosses
from margins.engine.sources import ScoreMatrix, Source, full_precision
from margins.engine.statistics import Entries, Program, Stage, Statistic, logsumexp, total
from margins.losses.forms.base import check_device, in_range
from margins.losses.forms.statistics import StatisticsLoss
from margins.targets import Targets
from margins.targets.storage import ClassIndex


@carded(
    LossCard(
        name="Cross-entropy",
        summary="the plain baseline for one or several graded classes a row; every comparison starts here",
        paper="Good, Rational Decisions, J. R. Stat. Soc. B 1952",
        targets=("classes", "scores", "label sets", "pairs", "matches", "taxonomy"),
        distributed="independent",
        comparable=True,
        collapse="log C: all scores equal",
        limits=("torch.nn.functional.cross_entropy", "CompSum(tau=1)", "LDRKL(lam=1) + log C"),
    )
)
class CrossEntropy(StatisticsLoss):
    r"""Softmax cross-entropy with hard, soft or smoothed targets.

    The baseline for classification. Prefer `CompSum` or `ALDRKL` when many labels are wrong; for
    independent labels use `BinaryCrossEntropy`. Label smoothing, logit adjustment, per-class margins and
    class weights are properties of the targets: `targets.smooth`, `.margin`, `.weigh_classes`.

    $L_i = \sum_j t_{ij} (\log \sum_k e^{s_{ik}} - s_{ij})$

    Args:
        reduction: see `margins.engine.reduction`.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> CrossEntropy()(logits, torch.tensor([0, 1]))
        tensor(0.2201)
    """

    needs = frozenset({"positives"})

    def statistics(self) -> Mapping[str, Statistic]:
        """Log-partition and target score."""
        return {"log_partition": logsumexp("all"), "own": total("targets")}

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The target mass times the log-partition, minus the target score."""
        return z.log_partition * z.mass - z.own

    def evaluate(
        self,
        source: Source,
        targets: Targets,
        evaluator: Evaluator,
        *,
        side: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
    ) -> RowLosses:
        """As declared; for plain class ids and scores that are there, by torch's fused function."""
        is_plain = (
            type(self) is CrossEntropy  # a subclass may declare something else
            and isinstance(evaluator, Dense)
            and targets.has_one_positive
            and targets.margin_of(0, 0) is None
            and self._valid(targets) is None
            and not side
        )
        if not (is_plain and isinstance(source, ScoreMatrix) and isinstance(targets.storage, ClassIndex)):
            return super().evaluate(source, targets, evaluator, side=side, ids=ids)
        check_device(source.scores, targets)
        with full_precision(source.scores.device):
            values = functional.cross_entropy(source.scores, targets.storage.labels, reduction="none")
        return RowLosses(values, weight=targets.row_weight)


class OfLogProbability(StatisticsLoss):
    """A loss that is a function of the log-probability of each target, weighted by its grade."""

    needs = frozenset({"positives"})

    def stages(self) -> Program:
        """The log-partition first, then the function at the targets."""
        return Stage({"log_partition": logsumexp("all")}), Stage({"loss": total("targets", self._phi)})

    def _phi(self, e: Entries) -> Tensor:
        # Bounded above so that an unknown entry, which may exceed the partition, cannot overflow.
        return self.of_log_probability((e.s - e.row.log_partition).clamp(max=30.0))

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """The loss of a target with this log-probability."""
        raise NotImplementedError

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The sum over targets."""
        return z.loss


@carded(
    LossCard(
        name="Focal loss",
        summary="plays down examples that are already right; can help when easy examples swamp the batch",
        paper="Lin et al., Focal Loss for Dense Object Detection, 2017, arXiv 1708.02002",
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="(1 - 1/C)^gamma log C: all scores equal",
        limits=("gamma = 0: CrossEntropy",),
    )
)
class Focal(OfLogProbability):
    r"""Softmax focal loss.

    $L_i = \sum_j t_{ij} (1 - p_{ij})^\gamma (-\log p_{ij})$. It distorts probabilities: calibrate them
    before use. For independent labels use `BinaryFocal`.

    Args:
        gamma: >= 0; 0 is cross-entropy, 2 the authors' choice.
        reduction: see `margins.engine.reduction`.

    References:
        Lin et al. 2017, arXiv 1708.02002, eq. 4 (given there for two classes).

    Example:
        >>> Focal(gamma=2.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.0018)
    """

    def __init__(self, gamma: float = 2.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.gamma = in_range("gamma", gamma, low=0)

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Cross-entropy times the share that is missing, to the power gamma."""
        if self.gamma == 0:
            return -log_p
        missing = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
        return -missing.pow(self.gamma) * log_p


@carded(
    LossCard(
        name="Comp-sum losses (generalized cross-entropy)",
        summary="one knob from cross-entropy to mean absolute error: bounded, so wrong labels pull less",
        paper="Mao, Mohri, Zhong, Cross-Entropy Loss Functions, 2023, arXiv 2304.07288",
        entry=95,
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="(C^(1 - tau) - 1) / (1 - tau): all scores equal",
        limits=(
            "tau = 0: sum of exponentials of the score differences",
            "tau = 1: CrossEntropy",
            "tau = 1 + q: generalized cross-entropy (1 - p^q) / q",
            "tau = 2: mean absolute error 1 - p",
        ),
        recipe={"objective": {"loss": "comp_sum", "settings": {"tau": 1.7}}},
        tests=(
            "tests/test_robust_losses.py::test_the_infimum_is_what_a_minimiser_finds",
            "tests/test_robust_losses.py::test_recalibration_gives_back_the_shares_that_labels_have",
        ),
        study="comp_sum_noise",
    )
)
class CompSum(OfLogProbability):
    r"""The comp-sum family: sum-exponential, cross-entropy, generalized cross-entropy, absolute error.

    $L_i = \sum_j t_{ij} \Phi_\tau(1 / p_{ij} - 1)$ with
    $\Phi_\tau(u) = ((1 + u)^{1 - \tau} - 1) / (1 - \tau)$ and $\Phi_1(u) = \log(1 + u)$.

    Use tau near 1.7 when a tenth or more of the labels are wrong. Robustness grows with tau, and so does
    the difficulty of training; at tau = 2 the loss often stalls. Below 1 it is unbounded: where it would
    pass e^60, at a score gap of 60 / (1 - tau), it goes on as a straight line. At another tau than 1 its
    softmax is not the share of labels: see `margins.evaluation.recalibrate_comp_sum`.

    Args:
        tau: in [0, 2].
        reduction: see `margins.engine.reduction`.

    References:
        Mao, Mohri, Zhong 2023, arXiv 2304.07288; generalized cross-entropy: Zhang and Sabuncu
        2018, arXiv 1805.07836, with q = tau - 1.

    Example:
        >>> CompSum(tau=2.0)(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        tensor(0.5000)
    """

    def __init__(self, tau: float = 1.7, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.tau = in_range("tau", tau, low=0, high=2)

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """Phi_tau(1 / p - 1), by expm1 so that nothing cancels near tau = 1 or p = 1."""
        if self.tau == 1:
            return -log_p
        exponent = (self.tau - 1) * log_p
        line = math.exp(60.0) * (exponent - 59.0) - 1  # the tangent at 60
        return torch.where(exponent > 60, line, torch.expm1(exponent.clamp(max=60.0))) / (1 - self.tau)
