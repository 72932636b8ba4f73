"""Losses that wrong labels pull on less: bounded or normalised functions of a row's probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.evaluators import Rows
from margins.engine.statistics import Entries, Program, Stage, Statistic, logsumexp, total
from margins.errors import MarginsError, values_are_readable
from margins.losses.forms.base import in_range, refuse_entry_weights, refuse_grades_beyond_one
from margins.losses.forms.statistics import StatisticsLoss
from margins.losses.softmax import OfLogProbability
from margins.targets import Targets

_ASYMMETRIC = "Zhou et al., Asymmetric Loss Functions for Learning with Noisy Labels, 2021, arXiv 2106.03110"


@carded(
    LossCard(
        name="Truncated generalized cross-entropy",
        summary="goes on from a warmed-up model: rows whose label looks impossible stop pulling at all",
        paper="Zhang, Sabuncu, Generalized Cross Entropy Loss, 2018, arXiv 1805.07836",
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="(1 - max(1 / C, threshold)^q) / q: all scores equal",
        limits=("threshold = 0: CompSum(tau = 1 + q)",),
        recipe={"objective": {"loss": "truncated_gce", "settings": {"threshold": 0.1}}},
        tests=("tests/test_robust_losses.py::test_truncated_rows_have_a_constant_loss_and_no_gradient",),
    )
)
class TruncatedGCE(OfLogProbability):
    r"""Generalized cross-entropy that is constant below a probability of the label.

    Use it to go on training with wrong labels once a model is warmed up by `CompSum` or `CrossEntropy`. Do
    not start with it where 1 / C is below the threshold: every row is then cut, and nothing has a gradient.

    $L_i = \sum_j t_{ij} \min\left(\frac{1 - p_{ij}^q}{q}, \frac{1 - k^q}{q}\right)$ with the threshold $k$.

    Args:
        q: in (0, 1]; near 0 cross-entropy, 1 the absolute error.
        threshold: $k$ in [0, 1), the probability below which a label has no pull; 0 cuts nothing.
        reduction: see `margins.engine.reduction`.

    References:
        Zhang, Sabuncu 2018, arXiv 1805.07836, the truncated loss.

    Example:
        >>> loss = TruncatedGCE(1.0, threshold=0.4)
        >>> loss.per_anchor(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 0]))
        tensor([0.5000, 0.6000])
    """

    def __init__(self, q: float = 0.7, *, threshold: float = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.q = in_range("q", q, low=0, high=1, open_low=True)
        self.threshold = in_range("threshold", threshold, low=0, high=1)
        if threshold == 1:
            raise MarginsError(
                "threshold", expected="a number in [0, 1)", received="1", fix="nothing would learn"
            )

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """(1 - p^q) / q of a probability that is at least the threshold."""
        if self.threshold > 0:
            log_p = log_p.clamp(min=math.log(self.threshold))
        return -torch.expm1(self.q * log_p) / self.q


@carded(
    LossCard(
        name="Asymmetric generalized cross-entropy (AGCE)",
        summary="wrong labels, as long as the right one is the most frequent of its kind of row",
        paper=_ASYMMETRIC,
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="((shift + 1)^q - (shift + 1 / C)^q) / q: all scores equal",
        limits=("shift -> 0: CompSum(tau = 1 + q)", "q = 1: the mean absolute error 1 - p, CompSum(tau=2)"),
        recipe={"objective": {"loss": "asymmetric_gce"}},
    )
)
class AsymmetricGCE(OfLogProbability):
    r"""Generalized cross-entropy with shifted probabilities.

    Use it, or `AsymmetricUnhinged`, under heavy label noise as the passive part of a `WeightedSum` with
    `NormalizedCrossEntropy`. Alone it underfits many classes, as all bounded losses do.

    $L_i = \sum_j t_{ij} \frac{(a + 1)^q - (a + p_{ij})^q}{q}$.

    Args:
        shift: $a$ > 0.
        q: > 0.
        reduction: see `margins.engine.reduction`.

    References:
        Zhou et al. 2021, arXiv 2106.03110.

    Example:
        >>> AsymmetricGCE(1.0, q=1.0)(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        tensor(0.5000)
    """

    def __init__(self, shift: float = 0.6, *, q: float = 0.6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.shift = in_range("shift", shift, low=0, open_low=True)
        self.q = in_range("q", q, low=0, open_low=True)

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """The difference of the powers of shifted probabilities, over q."""
        return ((1 + self.shift) ** self.q - (self.shift + log_p.exp()).pow(self.q)) / self.q


@carded(
    LossCard(
        name="Asymmetric unhinged loss (AUL)",
        summary="wrong labels, as long as the right one is the most frequent of its kind of row",
        paper=_ASYMMETRIC,
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="((top - 1 / C)^q - (top - 1)^q) / q: all scores equal",
        limits=("q = 1: the mean absolute error 1 - p, CompSum(tau=2)",),
        recipe={"objective": {"loss": "asymmetric_unhinged"}},
    )
)
class AsymmetricUnhinged(OfLogProbability):
    r"""A power of what a probability lacks.

    See `AsymmetricGCE` for when to use it.

    $L_i = \sum_j t_{ij} \frac{(a - p_{ij})^q - (a - 1)^q}{q}$.

    Args:
        top: $a$ > 1.
        q: > 0.
        reduction: see `margins.engine.reduction`.

    References:
        Zhou et al. 2021, arXiv 2106.03110.

    Example:
        >>> AsymmetricUnhinged(2.0, q=2.0)(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        tensor(0.6250)
    """

    def __init__(self, top: float = 6.3, *, q: float = 1.5, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.top = in_range("top", top, low=1, open_low=True)
        self.q = in_range("q", q, low=0, open_low=True)

    def of_log_probability(self, log_p: Tensor) -> Tensor:
        """The difference of the powers of what is missing to the top, over q."""
        missing = (self.top - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).tiny)
        return (missing.pow(self.q) - (self.top - 1) ** self.q) / self.q


class _OfDistribution(StatisticsLoss):
    """A loss that compares all probabilities of a row with its targets; entries all weigh 1."""

    needs = frozenset({"positives"})

    def check_targets(self, targets: Targets) -> None:
        """No entry weights, no grade above 1."""
        super().check_targets(targets)
        refuse_entry_weights(targets)
        refuse_grades_beyond_one(targets)


@carded(
    LossCard(
        name="Normalized cross-entropy",
        summary="the active part of an active-passive loss: cross-entropy as a share of that of every label",
        paper="Ma et al., Normalized Loss Functions for Learning with Noisy Labels, 2020, arXiv 2006.13554",
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="1 / C: all scores equal",
        limits=("the mean over all labels: 1 / C",),
        recipe={"objective": {"loss": "normalized_cross_entropy"}},
        tests=("tests/test_robust_losses.py::test_normalized_losses_add_up_to_a_constant_over_all_labels",),
    )
)
class NormalizedCrossEntropy(_OfDistribution):
    r"""Cross-entropy divided by its sum over all labels; in [0, 1] for one class a row.

    Use it in a `WeightedSum` with `ReverseCrossEntropy` or `AsymmetricGCE`. Alone it underfits: it can also
    fall by making other classes less probable, whichever they are.

    $L_i = \frac{\sum_j t_{ij} \log p_{ij}}{\sum_k \log p_{ik}}$ over the known candidates.

    Args:
        reduction: see `margins.engine.reduction`.

    References:
        Ma et al. 2020, arXiv 2006.13554.

    Example:
        >>> NormalizedCrossEntropy()(torch.zeros(1, 4), torch.tensor([0]))
        tensor(0.2500)
    """

    def statistics(self) -> Mapping[str, Statistic]:
        """Log-partition, target score, and the sum of all scores."""
        return {"log_partition": logsumexp("all"), "own": total("targets"), "every": total("all")}

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The ratio; with a single candidate its limit, the grade."""
        # K candidates have a denominator of K log K at least: the bound is for K = 1 alone.
        every = (z.num_known * z.log_partition - z.every).clamp(min=1.0)
        return torch.where(z.num_known > 1, (z.mass * z.log_partition - z.own) / every, z.mass)


@carded(
    LossCard(
        name="Reverse cross-entropy",
        summary="the passive part of an active-passive loss: bounded, for hard labels the absolute error",
        paper="Wang et al., Symmetric Cross Entropy for Robust Learning, 2019, arXiv 1908.06112",
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="-log_zero (1 - 1 / C): all scores equal",
        limits=("hard labels: -log_zero times CompSum(tau=2)",),
        recipe={"objective": {"loss": "reverse_cross_entropy"}},
    )
)
class ReverseCrossEntropy(_OfDistribution):
    r"""Cross-entropy with predictions and targets exchanged.

    Use it as a part of a `WeightedSum`, or of `SymmetricCrossEntropy`. Alone it often stalls, as `CompSum`
    does at tau = 2, to which it is in proportion for hard labels.

    $L_i = -\sum_k p_{ik} \max(\log t_{ik}, A)$ over the known candidates, $A$ in place of $\log 0$.

    Args:
        log_zero: $A$ < 0; the default is the logarithm of 1e-4.
        reduction: see `margins.engine.reduction`.

    References:
        Wang et al. 2019, arXiv 1908.06112.

    Example:
        >>> ReverseCrossEntropy(log_zero=-4.0)(torch.zeros(1, 4), torch.tensor([0]))
        tensor(3.)
    """

    def __init__(self, *, log_zero: float = math.log(1e-4), reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if not (log_zero < 0 and math.isfinite(log_zero)):
            raise MarginsError("log_zero", expected="a finite number below 0", received=repr(log_zero))
        self.log_zero = log_zero

    def stages(self) -> Program:
        """The log-partition and the target score first, then the sum over all candidates."""
        first = {"log_partition": logsumexp("all"), "own": total("targets")}
        return Stage(first), Stage({"spared": total("all", self._spared)})

    def _spared(self, e: Entries) -> Tensor:
        # Measured from log_zero, so that candidates of grade 0 add nothing: their gradients would cancel.
        log_t = e.t.clamp(min=math.exp(self.log_zero)).log() - self.log_zero
        return (e.s - e.row.log_partition).clamp(max=0.0).exp() * log_t

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """What a prediction outside the targets costs, less what those inside them spare."""
        return -self.log_zero - z.spared


@carded(
    LossCard(
        name="Symmetric cross-entropy",
        summary="a tenth or more of the labels wrong: cross-entropy for speed, its reverse for robustness",
        paper="Wang et al., Symmetric Cross Entropy for Robust Learning, 2019, arXiv 1908.06112",
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="(1 - beta) log C - beta log_zero (1 - 1 / C): all scores equal",
        limits=("beta = 0: CrossEntropy", "beta = 1: ReverseCrossEntropy"),
        recipe={"objective": {"loss": "symmetric_cross_entropy"}},
    )
)
class SymmetricCrossEntropy(ReverseCrossEntropy):
    r"""Cross-entropy and its reverse, in shares that add up to one.

    Use it where labels are wrong and a loss should still be easy to train. Its cross-entropy part goes on
    fitting wrong labels: with long training take beta near 1, or `CompSum`.

    $L = (1 - \beta) L_{CE} + \beta L_{RCE}$; `ReverseCrossEntropy` for the second.

    Args:
        beta: in [0, 1].
        log_zero: see `ReverseCrossEntropy`.
        reduction: see `margins.engine.reduction`.

    References:
        Wang et al. 2019, arXiv 1908.06112 (with free weights of both parts).

    Example:
        >>> SymmetricCrossEntropy(0.0)(torch.zeros(1, 4), torch.tensor([0]))
        tensor(1.3863)
    """

    def __init__(self, beta: float = 0.5, *, log_zero: float = -4.0, reduction: str = "mean") -> None:
        super().__init__(log_zero=log_zero, reduction=reduction)
        self.beta = in_range("beta", beta, low=0, high=1)

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The weighted sum of both."""
        return (1 - self.beta) * (z.mass * z.log_partition - z.own) + self.beta * super().row(z)


@carded(
    LossCard(
        name="Jensen-Shannon loss",
        summary="one knob from cross-entropy to the absolute error, as a divergence of distributions",
        paper="Englesson, Azizpour, Generalized Jensen-Shannon Divergence Loss, 2021, arXiv 2105.04522",
        targets=("classes", "scores"),
        distributed="independent",
        comparable=True,
        collapse="between log C and 1 - 1 / C, by the weight: all scores equal",
        limits=("target_weight -> 0: CrossEntropy",),
        recipe={"objective": {"loss": "jensen_shannon"}},
        tests=("tests/test_robust_losses.py::test_jensen_shannon_is_zero_exactly_where_distributions_agree",),
    )
)
class JensenShannon(_OfDistribution):
    r"""Jensen-Shannon divergence of the target distribution and the prediction, normalised.

    Use it where labels are wrong, or soft and to be matched: unlike the other bounded losses it is 0 at
    p = t for soft targets. Near weight 1 it is as hard to train as the absolute error.

    With $m = \pi t + (1 - \pi) p$:
    $L = \frac{\pi KL(t \| m) + (1 - \pi) KL(p \| m)}{-(1 - \pi) \log(1 - \pi)}$.

    Args:
        target_weight: $\pi$ in (0, 1).
        reduction: see `margins.engine.reduction`.

    Raises:
        MarginsError: a row whose grades do not sum to one.

    References:
        Englesson, Azizpour 2021, arXiv 2105.04522, with one distribution beside the target.

    Example:
        >>> JensenShannon(0.5)(torch.tensor([[0.0, 200.0]]), torch.tensor([0]))
        tensor(2.)
    """

    def __init__(self, target_weight: float = 0.5, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.target_weight = in_range("target_weight", target_weight, low=0, high=1, open_low=True)
        if target_weight == 1:
            raise MarginsError(
                "target_weight", expected="a number in (0, 1)", received="1", fix="CompSum(tau=2)"
            )

    def check_targets(self, targets: Targets) -> None:
        """Distributions: no entry weights, and grades that sum to one."""
        super().check_targets(targets)
        if targets.has_one_positive or not values_are_readable(targets.mass()):
            return
        mass = targets.mass()
        if bool(((mass > 0) & ((mass - 1).abs() > 1e-4)).any()):
            raise MarginsError(
                "targets", expected="grades that sum to one in every row", received=repr(targets),
                fix="divide them by their sum",
            )  # fmt: skip

    def stages(self) -> Program:
        """The log-partition first, then the sum over all candidates."""
        return Stage({"log_partition": logsumexp("all")}), Stage({"divergence": total("all", self._terms)})

    def _terms(self, e: Entries) -> Tensor:
        weight = self.target_weight
        log_p = (e.s - e.row.log_partition).clamp(max=0.0)
        # A grade of 0 has the logarithm -inf, which takes no part in the mixture, and 0 log 0 = 0.
        log_mixture = torch.logaddexp(e.t.log() + math.log(weight), log_p + math.log1p(-weight))
        of_target = torch.xlogy(e.t, e.t) - e.t * log_mixture
        return weight * of_target + (1 - weight) * log_p.exp() * (log_p - log_mixture)

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The divergence over its slope at weight 0."""
        rest = 1 - self.target_weight
        return z.divergence / -(rest * math.log(rest))
