"""Several answers to one question, of which only the best is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.reduction import RowLosses
from margins.engine.sources import at_least_float32, checked, full_precision
from margins.errors import MarginsError, describe
from margins.losses.forms.base import Loss, in_range
from margins.losses.softmax import CrossEntropy
from margins.targets import Targets

HypothesisBase = Literal["mse", "psnr", "ce"]

_DECIBEL = 10 / math.log(10)
_SMALLEST = 1e-8  # of a squared error whose logarithm is taken


@dataclass(frozen=True, kw_only=True)
class HypothesisReport:
    """What several hypotheses are worth on rows that were not trained on.

    Args:
        oracle: mean loss of the best hypothesis of each row, which needs the truth.
        single: mean loss of the one hypothesis that is best on the whole.
        best: its number.
        spread: root mean square distance of hypotheses from their mean, number by number; 0 when all agree.
        win_rates: share of rows that each hypothesis wins, [H].
    """

    oracle: float
    single: float
    best: int
    spread: float
    win_rates: Float[Tensor, " hypotheses"]

    def dead(self, share: float = 0.01) -> list[int]:
        """Hypotheses that win no more than this share of what they would win by chance."""
        return (self.win_rates * len(self.win_rates) <= share).nonzero()[:, 0].tolist()


@carded(
    LossCard(
        name="Min loss over hypotheses (winner takes all)",
        summary="the target is one of several right answers: several outputs, of which the best is trained",
        paper="Guzman-Rivera, Batra, Kohli, Multiple Choice Learning, NIPS 2012; multiplexed: Liu et al., "
        "Multi-Outputs Is All You Need For Deblur, 2022, arXiv 2208.13029",
        entry=39,
        targets=("values", "maps", "classes", "scores"),
        distributed="independent",
        comparable=False,
        collapse="the base loss's own: all hypotheses equal",
        limits=(
            "one hypothesis, base mse: the mean squared error",
            "one hypothesis, base ce: cross-entropy",
            "temperature large: the mean over hypotheses",
        ),
        tests=(
            "tests/test_hypotheses.py::test_one_hypothesis_is_the_base_loss",
            "tests/test_hypotheses.py::test_multiplexing_adds_the_mean_of_every_pair",
            "tests/test_hypotheses.py::test_only_the_winner_has_a_gradient",
        ),
        study="min_over_hypotheses",
    )
)
class MinOverHypotheses(Loss):
    r"""The smallest of H losses, one of each hypothesis: $L_i = \min_h \ell(\hat y_{ih}, y_i)$.

    Use it where the mean of all right answers is no answer: deblurring, futures, labels of several
    annotators. Not where there is one right answer, and not to compare runs: more hypotheses make it smaller
    by luck alone. At use a hypothesis must be chosen; `report` says what the best fixed one is worth beside
    the oracle.

    $\ell$ is the mean squared error over all other axes ("mse"), $\frac{10}{\ln 10} \ln(mse + 10^{-8})$
    ("psnr", minus the peak signal-to-noise ratio of values in [0, 1]) or cross-entropy ("ce"). In full,
    $L_i = \sum_h w_h \ell_{ih}$ with constants $w_h = (1 - \epsilon) q_h + \epsilon (1 - q_h) / (H - 1)$,
    where $q$ is one at the winner, ties to the first, or $q = softmax(-\ell / T)$. Both keep hypotheses from
    dying, at the price of a bias towards the mean: let them fall to 0 with `anneal_epochs`.

    Args:
        num_hypotheses: H >= 1 that come in.
        base: "mse", "psnr" or "ce".
        relax: $\epsilon$ in [0, 1), the share of those that do not win; 0 for H = 1.
        temperature: T >= 0 in units of the loss; 0 is the winner alone.
        anneal_epochs: epochs, told by `start_epoch`, in which both fall to 0 on a line; None keeps them.
        multiplex: the hypotheses are joined by the mean of every two: H (H + 1) / 2 of them. Not for "ce".
        reduction: over rows; see `margins.engine.reduction`.

    Raises:
        MarginsError: a setting out of range; hypotheses or targets of another shape.

    References:
        Guzman-Rivera et al., NIPS 2012; relaxed: Rupprecht et al. 2017, arXiv 1612.00197; annealed: Perera et
        al. 2024, arXiv 2407.15580; "psnr" and multiplexing: Liu et al. 2022, arXiv 2208.13029.

    Example:
        >>> loss = MinOverHypotheses(2)
        >>> loss(torch.tensor([[[0.0], [3.0]], [[1.0], [9.0]]]), torch.tensor([[1.0], [2.0]]))
        tensor(1.)
        >>> loss.wins.tolist()
        [2, 0]
    """

    form = "outputs"
    wins: Tensor

    def __init__(
        self,
        num_hypotheses: int,
        *,
        base: HypothesisBase = "mse",
        relax: float = 0.0,
        temperature: float = 0.0,
        anneal_epochs: int | None = None,
        multiplex: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        if base not in get_args(HypothesisBase):
            raise MarginsError("base", expected=f"one of {get_args(HypothesisBase)}", received=repr(base))
        if multiplex and base == "ce":
            raise MarginsError(
                "multiplex", expected="base 'mse' or 'psnr' with it", received="base='ce'",
                fix="the mean of two sets of logits is not the mean of two answers",
            )  # fmt: skip
        self.num_hypotheses = int(in_range("num_hypotheses", num_hypotheses, low=1))
        self.base: HypothesisBase = base
        self.relax = in_range("relax", relax, low=0, high=1)
        if relax == 1 or (relax > 0 and num_hypotheses == 1):
            raise MarginsError(
                "relax", expected="below 1, 0 for one hypothesis", received=f"{relax!r}"
            )  # fmt: skip
        self.temperature = in_range("temperature", temperature, low=0)
        self.anneal_epochs = (
            None if anneal_epochs is None else int(in_range("anneal_epochs", anneal_epochs, low=1))
        )
        self.multiplex = multiplex
        self.softness = 1.0
        self.register_buffer("wins", torch.zeros(self.num_outputs, dtype=torch.int64))

    @property
    def num_outputs(self) -> int:
        """Hypotheses that compete, multiplexed ones included."""
        return self.num_hypotheses * (self.num_hypotheses + 1) // 2 if self.multiplex else self.num_hypotheses

    def start_epoch(self, epoch: int) -> None:
        """Lets relaxation and temperature fall with the epoch, counted from 0, and starts the wins anew."""
        if self.anneal_epochs is not None:
            self.softness = max(0.0, 1 - epoch / self.anneal_epochs)
        self.wins.zero_()

    def forward(
        self,
        hypotheses: Float[Tensor, "rows hypotheses *shape"],
        targets: Targets | Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss; in training mode `wins` counts who won.

        Args:
            hypotheses: [B, H, ...] values, or [B, H, C] logits for "ce".
            targets: [B, ...] values; for "ce" what `CrossEntropy` takes.
            denominator: divisor to use instead of this batch's own.
        """
        with full_precision(hypotheses.device):
            return self.rows(hypotheses, targets).reduce(self.reduction, denominator)

    def rows(
        self, hypotheses: Float[Tensor, "rows hypotheses *shape"], targets: Targets | Tensor
    ) -> RowLosses:
        """The loss of each row with all that a reduction needs."""
        each, like = self._each(hypotheses, targets)
        weight = self._weights(each.detach())
        if self.training:
            won = each.detach().argmin(1)
            won = won if like is None or like.counts is None else won[like.counts]
            self.wins += torch.bincount(won, minlength=self.num_outputs)
        values = (weight * each).sum(1)
        return RowLosses(values) if like is None else RowLosses(values, like.counts, like.weight, like.units)

    def per_hypothesis(
        self, hypotheses: Float[Tensor, "rows hypotheses *shape"], targets: Targets | Tensor
    ) -> Float[Tensor, "rows outputs"]:
        """The base loss of every hypothesis, multiplexed ones included, not reduced."""
        return self._each(hypotheses, targets)[0]

    @torch.no_grad()
    def report(
        self, hypotheses: Float[Tensor, "rows hypotheses *shape"], targets: Targets | Tensor
    ) -> HypothesisReport:
        """What the hypotheses are worth on these rows."""
        each = self.per_hypothesis(hypotheses, targets)
        outputs = self._outputs(at_least_float32(hypotheses))
        wins = torch.bincount(each.argmin(1), minlength=self.num_outputs)
        means = each.mean(0)
        return HypothesisReport(
            oracle=float(each.amin(1).mean()),
            single=float(means.amin()),
            best=int(means.argmin()),
            spread=float((outputs - outputs.mean(1, keepdim=True)).square().mean().sqrt()),
            win_rates=wins / max(1, each.shape[0]),
        )

    def _each(self, hypotheses: Tensor, targets: Targets | Tensor) -> tuple[Tensor, RowLosses | None]:
        """[B, outputs] base losses, and what row losses say of rows that do not count."""
        shape = f"[B, {self.num_hypotheses}, ...] floats"
        if (
            hypotheses.ndim < 2
            or hypotheses.shape[1] != self.num_hypotheses
            or not hypotheses.is_floating_point()
        ):
            raise MarginsError("hypotheses", expected=shape, received=describe(hypotheses))
        outputs = checked("hypotheses", self._outputs(at_least_float32(hypotheses)))
        if self.base == "ce":
            return self._cross_entropies(outputs, targets)
        wanted = (hypotheses.shape[0], *hypotheses.shape[2:])
        if (
            not isinstance(targets, Tensor)
            or tuple(targets.shape) != wanted
            or not targets.is_floating_point()
        ):
            raise MarginsError(
                "targets", expected=f"{list(wanted)} floats, as one hypothesis", received=describe(targets)
            )  # fmt: skip
        gaps = outputs - targets.to(outputs.dtype).unsqueeze(1)
        errors = gaps.square() if gaps.ndim == 2 else gaps.square().flatten(2).mean(2)
        return (errors if self.base == "mse" else _DECIBEL * torch.log(errors + _SMALLEST)), None

    def _cross_entropies(self, logits: Tensor, targets: Targets | Tensor) -> tuple[Tensor, RowLosses]:
        if logits.ndim != 3:
            raise MarginsError(
                "hypotheses", expected="[B, H, C] logits for base 'ce'", received=describe(logits)
            )
        rows = [CrossEntropy().rows(logits[:, h], targets) for h in range(logits.shape[1])]
        return torch.stack([row.values for row in rows], 1), rows[0]

    def _outputs(self, hypotheses: Tensor) -> Tensor:
        """The hypotheses, and after them the mean of every two if they are multiplexed."""
        if not self.multiplex:
            return hypotheses
        first, second = torch.triu_indices(
            self.num_hypotheses, self.num_hypotheses, 1, device=hypotheses.device
        )
        return torch.cat([hypotheses, (hypotheses[:, first] + hypotheses[:, second]) / 2], 1)

    def _weights(self, each: Tensor) -> Tensor:
        """[B, outputs] constants that sum to one in each row."""
        temperature, relax = self.softness * self.temperature, self.softness * self.relax
        if temperature > 0:
            weight = torch.softmax(-each / temperature, 1)
        else:
            weight = torch.zeros_like(each).scatter(1, each.argmin(1, keepdim=True), 1.0)
        if relax == 0:
            return weight
        return (1 - relax) * weight + relax * (1 - weight) / (each.shape[1] - 1)
