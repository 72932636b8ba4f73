"""Losses drawn at random: a fresh calibrated surrogate at every step."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.errors import MarginsError
from margins.losses.forms.base import in_range
from margins.losses.forms.coefficients import CoefficientsLoss


@carded(
    LossCard(
        name="EnsLoss",
        summary="a random convex loss a step, as dropout is for features; when training accuracy hits 100 %",
        paper="Dai, EnsLoss: Stochastic Calibrated Loss Ensembles, 2024, arXiv 2409.00908",
        entry=20,
        targets=("label sets", "scores", "classes"),
        distributed="global",
        comparable=False,
        collapse="none: the value is not a loss level",
        limits=("all slopes -1 below margin 1: the gradient of the hinge",),
        recipe={"objective": {"loss": "ens_loss"}, "schedule": {"name": "cosine"}},
        tests=(
            "tests/test_ens_loss.py::"
            "test_slopes_of_a_thousand_batches_are_those_of_a_convex_calibrated_loss_bounded_below",
            "tests/test_ens_loss.py::test_the_gradient_is_the_slopes_times_the_label_over_the_batch",
            "tests/test_ens_loss.py::test_a_linear_model_learns_the_best_direction_under_label_noise",
        ),
        study="ens_loss",
    )
)
class EnsLoss(CoefficientsLoss):
    r"""Slopes of a random convex, calibrated loss, assigned to the margins in order.

    For margins $m = (2 t - 1) s$ of a column: draw as many positive numbers (the inverse Box-Cox transform of
    normal draws), sort their negatives, clip them at `-clip`, and give the steepest to the smallest margin;
    slopes beyond margin 1 are divided by the margin, and all are lowered by 1e-6, so that none is 0.

    Use it for two classes, on networks that fit every training label, wrong ones too, with a learning rate
    that falls to 0. Not where a model does not overfit: there it was measured no better than the logistic
    loss, and unstable at a constant rate. Its value says nothing: watch a metric. More than one column
    (one-versus-rest) is an extension of the binary method.

    Args:
        lam: of the Box-Cox transform; 0 is the exponential of the draws.
        clip: steepest slope, > 0.
        lam_range: draw `lam` uniformly from this range every `period` epochs, in `start_epoch`.
        period: epochs between draws of `lam`, >= 1.
        seed: of the loss's own generator, whose state is saved with the module.
        reduction: see `margins.engine.reduction`.

    References:
        Dai 2024, arXiv 2409.00908.
    """

    def __init__(
        self,
        lam: float = 0.0,
        *,
        clip: float = 1.0,
        lam_range: tuple[float, float] | None = None,
        period: int = 10,
        seed: int = 0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.lam = in_range("lam", lam, low=-float("inf"))
        self.clip = in_range("clip", clip, low=0, open_low=True)
        self.period = int(in_range("period", period, low=1))
        if lam_range is not None and not lam_range[0] <= lam_range[1]:
            raise MarginsError("lam_range", expected="(low, high) with low <= high", received=str(lam_range))
        self.lam_range = lam_range
        self._generator = torch.Generator().manual_seed(seed)

    def start_epoch(self, epoch: int) -> None:
        """Draws a new `lam` when the epoch begins a period."""
        if self.lam_range is not None and epoch % self.period == 0:
            low, high = self.lam_range
            self.lam = low + (high - low) * float(torch.rand((), generator=self._generator))

    def coefficients(
        self,
        scores: Float[Tensor, "anchors columns"],
        grades: Float[Tensor, "anchors columns"],
        known: Bool[Tensor, "anchors columns"],
    ) -> Float[Tensor, "anchors columns"]:
        """Slope by the score of every known entry."""
        sign = 2 * grades - 1
        draws = torch.randn(scores.shape, generator=self._generator, dtype=torch.float64)
        slopes = slopes_of(sign * scores, draws.to(scores), known, lam=self.lam, clip=self.clip)
        return slopes * sign

    def get_extra_state(self) -> dict[str, Tensor]:
        """The generator's state and `lam`."""
        return {"generator": self._generator.get_state(), "lam": torch.tensor(self.lam, dtype=torch.float64)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restores the generator and `lam`."""
        self._generator.set_state(state["generator"].cpu())
        self.lam = float(state["lam"])


def slopes_of(
    margins: Float[Tensor, "anchors columns"],
    draws: Float[Tensor, "anchors columns"],
    known: Bool[Tensor, "anchors columns"],
    *,
    lam: float,
    clip: float,
) -> Float[Tensor, "anchors columns"]:
    """The slopes that normal draws give the margins of each column; 0 where an entry is unknown.

    A column with n known entries uses its first n draws.
    """
    positive = draws.exp() if lam == 0 else (1 + lam * draws).clamp(min=0).pow(1 / lam)
    rank = torch.arange(draws.shape[0], device=draws.device)[:, None]
    spare = rank >= known.sum(0)
    sorted_slopes = (-positive).masked_fill(spare, torch.inf).sort(dim=0).values.clamp(min=-clip)
    order = margins.masked_fill(~known, torch.inf).sort(dim=0, stable=True).indices
    slopes = torch.empty_like(sorted_slopes).scatter(0, order, sorted_slopes)
    slopes = torch.where(margins > 1, slopes / margins, slopes) - 1e-6
    return torch.where(known, slopes, 0.0)
