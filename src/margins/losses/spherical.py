"""The spherical family: losses of the sum of scores, the sum of their squares, and the target's score.

Because they need no other statistic, an output layer can be trained on them at a cost that does not depend
on the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from margins.cards import LossCard, carded
from margins.engine.evaluators import Rows
from margins.engine.reduction import RowLosses
from margins.engine.statistics import Entries, Program, RowValues, Stage, Statistic, squares, through, total
from margins.losses.forms.base import in_range
from margins.losses.forms.statistics import StatisticsLoss
from margins.targets import Targets

_PAPER = "Brebisson, Vincent, The Z-loss, 2016, arXiv 1604.08859"
_SOFTMAX_PAPER = "Brebisson, Vincent, An exploration of softmax alternatives, 2015, arXiv 1511.05042"


def _moments() -> Mapping[str, Statistic]:
    return {"sum_scores": total("all"), "sum_squares": total("all", squares)}


@carded(
    LossCard(
        name="Z-loss",
        summary="cares how far the target stands above the crowd; trains with any number of classes",
        paper=_PAPER,
        entry=1,
        targets=("classes", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="softplus(a b) / a: all scores equal",
        limits=("scores shifted and scaled: the same value",),
        recipe={"objective": {"loss": "z_loss"}, "head": {"name": "spherical"}},
        tests=(
            "tests/test_spherical_layer.py::test_two_hundred_steps_equal_those_of_the_dense_layer",
            "tests/test_spherical_layer.py::test_scores_gradients_and_steps_equal_those_of_the_slow_references",
        ),
        study="spherical_losses",
    )
)
class ZLoss(StatisticsLoss):
    r"""Softplus of the standardised target score.

    $z = (s_y - \mu) / \sigma$ over the row's known scores, $L = \frac{1}{a} \mathrm{softplus}(a (b - z))$.
    Tune a and b on the metric wanted. The largest possible z is $\sqrt{C - 1}$. The variance comes from the
    sum of squares: in float32 an offset of all scores beyond some hundred times their spread drowns it.

    Args:
        a: sharpness, > 0.
        b: wanted z.
        eps: added to the variance, >= 0.
        reduction: see `margins.engine.reduction`.

    References:
        Brebisson, Vincent 2016, arXiv 1604.08859.
    """

    needs = frozenset({"positives"})

    def __init__(
        self, a: float = 1.0, b: float = 0.0, *, eps: float = 1e-12, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.a = in_range("a", a, low=0, open_low=True)
        self.b = in_range("b", b, low=-float("inf"))
        self.eps = in_range("eps", eps, low=0)

    def stages(self) -> Program:
        """Mean and spread of the row; then the targets."""
        rows = {"mean": through(lambda z: z.sum_scores / z.known_weight), "spread": through(self._spread)}
        return Stage(_moments(), rows), Stage({"loss": total("targets", self._phi)})

    def _spread(self, z: RowValues) -> Tensor:
        variance = z.sum_squares / z.known_weight - z.mean.square()
        # Guarded before the root: a row of equal scores has no direction to move in.
        floor = max(self.eps, torch.finfo(variance.dtype).tiny)
        return (variance.clamp(min=0.0) + self.eps).clamp(min=floor).sqrt()

    def _phi(self, e: Entries) -> Tensor:
        z = (e.s - e.row.mean) / e.row.spread
        return -logsigmoid(self.a * (z - self.b)) / self.a

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The sum over targets."""
        return z.loss


@carded(
    LossCard(
        name="Squared error",
        summary="regression, and a classification loss that trains with any number of classes",
        paper=_PAPER,
        entry=1,
        targets=("values", "classes", "label sets", "scores"),
        distributed="independent",
        comparable=True,
        collapse="the targets' sum of squares: all scores 0",
        limits=("torch.nn.functional.mse_loss times C",),
    )
)
class SquaredError(StatisticsLoss):
    r"""Sum over the row of the squared differences of score and target.

    $L_i = \sum_j s_{ij}^2 - 2 \sum_j t_{ij} s_{ij} + \sum_j t_{ij}^2$

    Args:
        reduction: see `margins.engine.reduction`.

    Example:
        >>> SquaredError()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
        tensor(4.)
    """

    takes_columns = True

    def check_targets(self, targets: Targets) -> None:
        """Any: real values are what it is for."""

    def rows(
        self,
        scores: Float[Tensor, "anchors *candidates"],
        targets: Targets | Tensor,
        *,
        side: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
    ) -> RowLosses:
        """Row losses; a float tensor of targets is real values, as torch's own takes it."""
        if isinstance(targets, Tensor) and targets.is_floating_point():
            targets = Targets.of_values(targets)
        return super().rows(scores, targets, side=side, ids=ids)

    def statistics(self) -> Mapping[str, Statistic]:
        """Moments, target score and the targets' own square."""
        return {**_moments(), "own": total("targets"), "target": total("targets", lambda e: e.t)}

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The square multiplied out."""
        return z.sum_squares - 2 * z.own + z.target


class _LogOfRatio(StatisticsLoss):
    """-log of the target's share, for softmaxes whose exponential is replaced by a square."""

    needs = frozenset({"positives"})

    def stages(self) -> Program:
        """The partition first; then the targets."""
        partition = Stage(_moments(), {"log_partition": through(lambda z: self.partition(z).log())})
        return partition, Stage({"loss": total("targets", self._phi)})

    def _phi(self, e: Entries) -> Tensor:
        return e.row.log_partition - self.numerator(e.s).log()

    def partition(self, z: RowValues) -> Tensor:
        """Sum of the numerators, from the moments."""
        raise NotImplementedError

    def numerator(self, s: Tensor) -> Tensor:
        """What stands for the exponential of a score; positive."""
        raise NotImplementedError

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The sum over targets."""
        return z.loss


@carded(
    LossCard(
        name="Spherical softmax",
        summary="softmax with squares for exponentials; trains with any number of classes",
        paper=_SOFTMAX_PAPER,
        entry=1,
        targets=("classes", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="log C: all scores equal",
        limits=("scores negated: the same value",),
    )
)
class SphericalSoftmax(_LogOfRatio):
    r"""$L = -\log \frac{s_y^2 + \epsilon}{\sum_k s_k^2 + C \epsilon}$; the sign of a score does not matter.

    Args:
        eps: > 0.
        reduction: see `margins.engine.reduction`.

    References:
        Brebisson, Vincent 2015, arXiv 1511.05042.
    """

    def __init__(self, eps: float = 1e-3, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.eps = in_range("eps", eps, low=0, open_low=True)

    def partition(self, z: RowValues) -> Tensor:
        """Sum of squares plus eps a candidate."""
        return z.sum_squares + self.eps * z.known_weight

    def numerator(self, s: Tensor) -> Tensor:
        """Square plus eps."""
        return s.square() + self.eps


@carded(
    LossCard(
        name="Taylor softmax",
        summary="softmax with the exponential's second-order series; trains with any number of classes",
        paper=_SOFTMAX_PAPER,
        entry=1,
        targets=("classes", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="log C: all scores equal",
        limits=("scores near 0: CrossEntropy to second order",),
    )
)
class TaylorSoftmax(_LogOfRatio):
    r"""$L = -\log \frac{1 + s_y + s_y^2 / 2}{\sum_k 1 + s_k + s_k^2 / 2}$.

    Args:
        reduction: see `margins.engine.reduction`.

    References:
        Brebisson, Vincent 2015, arXiv 1511.05042.
    """

    def partition(self, z: RowValues) -> Tensor:
        """Count, sum and half the sum of squares."""
        return z.known_weight + z.sum_scores + z.sum_squares / 2

    def numerator(self, s: Tensor) -> Tensor:
        """At least 1/2."""
        return 1 + s + s.square() / 2
