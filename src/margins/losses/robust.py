"""Label-distributionally robust losses: from Crammer-Singer to cross-entropy, with adaptive temperatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.evaluators import Dense, Rows
from margins.engine.sources import matrix_of
from margins.engine.statistics import (
    Affine,
    Entries,
    Program,
    Repeat,
    RowValues,
    Stage,
    Statistic,
    detached,
    logsumexp,
    through,
    total,
)
from margins.errors import MarginsError, describe, values_are_readable
from margins.losses.forms.base import as_targets, in_range, refuse_entry_weights, refuse_smoothing
from margins.losses.forms.statistics import StatisticsLoss
from margins.losses.softplus import softplus
from margins.targets import Targets

_PAPER = "Zhu, Ying, Yang, Label Distributionally Robust Losses, 2023, arXiv 2112.14869"


@carded(
    LossCard(
        name="LDR-KL",
        summary="one knob from the multi-class hinge (small lam) to cross-entropy and smoother (large lam)",
        paper=_PAPER,
        entry=3,
        targets=("classes", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="lam log((1 + (K - 1) e^(margin / lam)) / K): all scores equal",
        limits=("lam = 1, margin = 0: CrossEntropy - log K", "lam -> 0: the multi-class hinge"),
        recipe={"objective": {"loss": "ldrkl", "settings": {"lam": 10.0}}},
        tests=(
            "tests/test_robust_losses.py::test_ldr_is_the_largest_of_all_label_distributions",
            "tests/test_robust_losses.py::test_ldr_goes_from_the_hinge_to_the_mean_difference",
        ),
    )
)
class LDRKL(StatisticsLoss):
    r"""Label-distributionally robust loss with a Kullback-Leibler regulariser.

    With $v_k = s_k - s_y + c\,[k \ne y]$ over the K known candidates,
    $L = \lambda \log \frac{1}{K} \sum_k e^{v_k / \lambda}$. With several positives each is scored against
    the negatives alone, weighted by its grade.

    Args:
        lam: temperature $\lambda$ > 0. About 10 resists wrong labels, once scores are of order one.
        margin: $c$ >= 0.
        reduction: see `margins.engine.reduction`.

    References:
        Zhu, Ying, Yang 2023, arXiv 2112.14869 (LDR-KL).

    Example:
        >>> LDRKL(lam=1.0)(torch.zeros(1, 3), torch.tensor([0]))
        tensor(0.)
    """

    needs = frozenset({"positives"})

    def __init__(self, lam: float = 1.0, *, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.lam = in_range("lam", lam, low=0, open_low=True)
        self.margin = in_range("margin", margin, low=0)

    def check_targets(self, targets: Targets) -> None:
        """No entry weights, no smoothing."""
        super().check_targets(targets)
        refuse_smoothing(targets)
        # The uniform distribution over K candidates is part of the definition; with weights the temperature
        # of the adaptive form could even become negative.
        refuse_entry_weights(targets)

    def stages(self) -> Program:
        """The negatives first; then each positive against them."""
        rivals = logsumexp("negatives", Affine(1 / self.lam, self.margin / self.lam))
        return Stage({"rivals": rivals}), Stage({"gap": total("targets", self._gap)})

    def _gap(self, e: Entries) -> Tensor:
        return self.lam * torch.logaddexp(e.row.rivals, e.s / self.lam) - e.s

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The mean of the exponentials instead of their sum."""
        num_compared = z.num_known - z.num_positives + 1
        return z.gap - self.lam * num_compared.log() * z.mass


@carded(
    LossCard(
        name="ALDR-KL",
        summary="a temperature of its own for every row, larger where the label looks wrong",
        paper=_PAPER,
        entry=3,
        targets=("classes",),
        distributed="independent",
        comparable=False,
        collapse="0: all scores equal and margin 0; the level depends on each row's temperature",
        limits=("lambda given: LDRKL on normalised scores, minus the penalty",),
        recipe={"objective": {"loss": "aldrkl"}},
        tests=(
            "tests/test_robust_losses.py::test_the_temperature_is_where_the_bracket_is_largest",
            "tests/test_robust_losses.py::test_temperatures_see_the_label_by_the_margin_alone",
        ),
        study="aldr_kl",
    )
)
class ALDRKL(StatisticsLoss):
    r"""Adaptive label-distributionally robust loss: $\lambda$ is found for each row by a fixed point.

    With $v$ as in `LDRKL` on normalised scores,
    $L = \max_\lambda \lambda \log \frac{1}{K} \sum_k e^{v_k / \lambda}
    - \frac{\alpha \log K}{2 \lambda_0} (\lambda - \lambda_0)^2$. The maximum satisfies
    $\lambda = \lambda_0 (1 - KL(p_\lambda \| 1/K) / (\alpha \log K))$; it is iterated from $\lambda_0$ and
    taken as a constant by the gradient (envelope theorem).

    The iteration ends at the largest fixed point. For many classes and alpha near 1 (1000 classes at
    alpha = 2, 30 at 1.5) it may be a local maximum only; from alpha = 3 on it was the global one up to
    10,000 classes.

    Use it when a good share of the labels is wrong, above all when they are wrong in one direction. With
    normalised scores `lam0` must be large (10): at 1 and below it can be worse than cross-entropy, so tune
    it, with the weight decay. To find wrong labels take the loss of each row, `per_anchor`, rather than
    `temperatures`, which see the scores alone.

    Args:
        lam0: $\lambda_0$ > 0.
        alpha: > 1; larger keeps $\lambda$ nearer to $\lambda_0$.
        margin: $c$ >= 0.
        normalise: "l1" divides scores by their mean absolute value over the row's known candidates,
            "softplus" takes softplus first, None leaves them.
        iterations: fixed-point steps, >= 1.
        reduction: see `margins.engine.reduction`.

    References:
        Zhu, Ying, Yang 2023, arXiv 2112.14869 (ALDR-KL).
    """

    needs = frozenset({"positives", "negatives"})

    def __init__(
        self,
        lam0: float = 10.0,
        *,
        alpha: float = 2.0,
        margin: float = 0.1,
        normalise: Literal["l1", "softplus"] | None = "l1",
        iterations: int = 30,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if normalise not in ("l1", "softplus", None):
            raise MarginsError("normalise", expected="'l1', 'softplus' or None", received=repr(normalise))
        self.lam0 = in_range("lam0", lam0, low=0, open_low=True)
        self.alpha = in_range("alpha", alpha, low=1, open_low=True)
        self.margin = in_range("margin", margin, low=0)
        self.normalise = normalise
        self.iterations = int(in_range("iterations", iterations, low=1))

    def check_targets(self, targets: Targets) -> None:
        """Exactly one positive a row, of grade 1, and no entry weights."""
        super().check_targets(targets)
        # The uniform distribution over K candidates is part of the definition; with weights the temperature
        # of the adaptive form could even become negative.
        refuse_entry_weights(targets)
        if targets.has_one_positive or not values_are_readable(targets.mass()):
            return
        mass = targets.mass()
        several = (targets.num_positives() > 1) | ((mass > 0) & ((mass - 1).abs() > 1e-6))
        if bool(several.any()) or targets.is_smoothed:
            raise MarginsError(
                "targets", expected="one positive of grade 1 a row", received=repr(targets),
                fix="LDRKL takes several graded positives",
            )  # fmt: skip

    def stages(self) -> Program:
        """Scale, own score, the fixed point, and the loss at it."""
        scaled = () if self.normalise is None else (self._scale_stage(),)
        own = Stage({"own": total("targets", self._f)}, {"lam": detached(self._start)})
        return (*scaled, own, Repeat(self._fixed_point(), self.iterations), Stage({"rivals": self._rivals()}))

    def _scale_stage(self) -> Stage:
        size = total("all", lambda e: softplus(e.s) if self.normalise == "softplus" else e.s.abs())
        return Stage({"size": size}, {"scale": through(lambda z: (z.size / z.known_weight).clamp(min=1e-6))})

    def _start(self, z: RowValues) -> Tensor:
        return torch.full_like(z.own, self.lam0)

    def _f(self, e: Entries) -> Tensor:
        if self.normalise is None:
            return e.s
        return (softplus(e.s) if self.normalise == "softplus" else e.s) / e.row.scale

    def _rivals(self) -> Statistic:
        return logsumexp("negatives", lambda e: (self._f(e) + self.margin) / e.row.lam)

    def _fixed_point(self) -> tuple[Stage, Stage]:
        partition = Stage({"rivals": self._rivals()}, {"partition": detached(self._partition)})
        mean = total("negatives", lambda e: self._share(e) * (self._f(e) + self.margin - e.row.own))
        return partition, Stage({"mean_gap": mean}, {"lam": detached(self._next)})

    def _partition(self, z: RowValues) -> Tensor:
        return torch.logaddexp(z.rivals, z.own / z.lam)

    def _share(self, e: Entries) -> Tensor:
        return ((self._f(e) + self.margin) / e.row.lam - e.row.partition).clamp(max=0.0).exp()

    def _next(self, z: RowValues) -> Tensor:
        log_mean = z.partition - z.own / z.lam - z.num_known.log()
        divergence = (z.mean_gap / z.lam - log_mean).clamp(min=0.0)
        return self.lam0 * (1 - divergence / (self.alpha * z.num_known.log().clamp(min=1e-12)))

    def temperatures(
        self,
        scores: Float[Tensor, "anchors candidates"],
        targets: Targets | Tensor,
        *,
        ids: Int[Tensor, " anchors"] | None = None,
    ) -> Float[Tensor, " anchors"]:
        r"""The temperature $\lambda$ of each row, in [lam0 (1 - 1 / alpha), lam0].

        It is lam0 for a row that does not count, and large where the scores of a row are nearly equal. It
        speaks of the scores: without a margin it does not depend on the label at all, so a wrong label is
        found only where the model is unsure.

        Args:
            scores: [B, C].
            targets: as for the loss.
            ids: row ids, for a loss with memory, which it reads and leaves as it is.

        Example:
            >>> sure_and_not = torch.tensor([[9.0, 0.0, 0.0, 0.0], [1.1, 1.0, 0.9, 1.0]])
            >>> ALDRKL(1.0).temperatures(sure_and_not, torch.tensor([0, 0]))
            tensor([0.5041, 0.9997])
        """
        known = as_targets(targets, (scores.shape[0], scores.shape[1]))
        source, valid = matrix_of(scores), self._valid(known)
        with torch.no_grad():
            self._check(source, known, ids)
            z = Dense().run(
                self.stages(), source, known, side={}, valid=valid, rows=self.initial_rows(ids)
            )  # fmt: skip
        return z.lam if valid is None else torch.where(valid, z.lam, self.lam0)

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """LDR-KL at the row's own temperature, minus the penalty on it."""
        log_k = z.num_known.log()
        robust = z.lam * (torch.logaddexp(z.rivals, z.own / z.lam) - log_k) - z.own
        return robust - self.alpha * log_k / (2 * self.lam0) * (z.lam - self.lam0).square()


@carded(
    LossCard(
        name="ALDR-KL with memory",
        summary="ALDR-KL at the cost of one extra pass: each row's temperature is kept between visits",
        paper=_PAPER,
        entry=3,
        targets=("classes",),
        distributed="independent",
        comparable=False,
        collapse="0: all scores equal and margin 0; the level depends on each row's temperature",
        limits=("visited often with fixed scores: ALDRKL",),
        tests=(
            "tests/test_robust_losses.py::test_temperatures_with_memory_are_one_step_on_and_leave_it_alone",
        ),
    )
)
class ALDRKLMemory(ALDRKL):
    r"""ALDR-KL that keeps $\lambda_i$ of every training row and takes one fixed-point step a visit.

    The state is `lam`, a buffer of one number a row, moved and saved with the module. It is read by the
    stable row ids passed as `ids`, and updated in training mode only.

    Args:
        num_rows: number of rows of the training data; ids are in [0, num_rows).
        lam0: see `ALDRKL`; also the temperature of a row not yet visited.
        alpha: see `ALDRKL`.
        margin: see `ALDRKL`.
        normalise: see `ALDRKL`.
        reduction: see `margins.engine.reduction`.
    """

    lam: Tensor

    def __init__(
        self,
        num_rows: int,
        lam0: float = 10.0,
        *,
        alpha: float = 2.0,
        margin: float = 0.1,
        normalise: Literal["l1", "softplus"] | None = "l1",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            lam0, alpha=alpha, margin=margin, normalise=normalise, iterations=1, reduction=reduction
        )
        self.num_rows = int(in_range("num_rows", num_rows, low=1))
        self.register_buffer("lam", torch.full((num_rows,), float(lam0)))

    def _start(self, z: RowValues) -> Tensor:
        return z.stored.to(z.own.dtype)

    def initial_rows(self, ids: Int[Tensor, " anchors"] | None) -> Mapping[str, Tensor]:
        """The stored temperatures of the rows."""
        if ids is None or ids.ndim != 1 or ids.dtype != torch.int64:
            raise MarginsError(
                "ids",
                expected="[B] int64 row ids in [0, num_rows)",
                received="None" if ids is None else describe(ids),
                fix="pass the stable id of each row: loss(scores, targets, ids=batch_ids)",
            )
        wrong = ids[(ids < 0) | (ids >= self.num_rows)]
        if values_are_readable(ids) and wrong.numel():
            raise MarginsError(
                "ids", expected=f"integers in [0, {self.num_rows})", received=str(int(wrong[0]))
            )
        return {"stored": self.lam[ids]}

    def observe(
        self, z: Rows, ids: Int[Tensor, " anchors"] | None, valid: Bool[Tensor, " anchors"] | None
    ) -> None:
        """Stores the new temperatures; rows that did not count keep theirs."""
        if self.training and ids is not None:
            new = z.lam.detach().to(self.lam.dtype)
            self.lam[ids] = new if valid is None else torch.where(valid, new, self.lam[ids])
