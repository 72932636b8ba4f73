"""Soft top-k loss: the positives are pressed into the top k of their row, no further."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.evaluators import Rows
from margins.engine.statistics import (
    Entries,
    Phi,
    Program,
    Repeat,
    RowValues,
    Stage,
    Statistic,
    detached,
    implicit,
    maximum,
    minimum,
    total,
)
from margins.engine.topk.threshold import Search, Seen, advanced, guessed, ranked, start
from margins.errors import MarginsError, values_are_readable
from margins.losses.forms.base import in_range, refuse_entry_weights, refuse_shares
from margins.losses.forms.statistics import StatisticsLoss
from margins.targets import Targets

NUM_LEVELS = 31
"""Levels at which entries are counted in one pass, while the bracket of some row is wide."""
WIDE = 64.0
MAX_PASSES = 7


@carded(
    LossCard(
        name="Soft top-k",
        summary="extreme multi-label ranking measured at k: positives inside the top k are left alone",
        paper="Gupta et al., Dual-Encoders for Extreme Multi-Label Classification, 2024, arXiv 2310.10636",
        entry=2,
        targets=("label sets", "matches", "pairs", "classes"),
        distributed="gathered",
        comparable=False,
        collapse="log(C / k): all scores equal",
        limits=(
            "k = 1, two candidates: cross-entropy at half the sharpness",
            "sharpness large: 0 inside the hard top k, sharpness times the distance to its edge outside",
            "k at least the number of candidates: 0",
        ),
    )
)
class SoftTopK(StatisticsLoss):
    r"""Minus the logarithm of how far each positive is in the soft top k.

    $L_i = -\frac{1}{|P_i|} \sum_{l \in P_i} \log \sigma(a (s_{il} + t_i))$ with $t_i$ such that
    $\sum_j \sigma(a (s_{ij} + t_i)) = k$ over the row's known candidates; $t_i$ is differentiated by the
    implicit function theorem. A row with at most k candidates has loss 0.

    Use it when only the first k places count and a row may have many positives. For ranking within them, or
    with one positive a row, `DecoupledSoftmax` and `CrossEntropy` say more.

    Args:
        k: >= 1, or "positives": as many as the row has.
        sharpness: $a$ > 0; large values leave gradients only near the edge of the top k.
        reduction: see `margins.engine.reduction`.

    References:
        Gupta et al. 2024, arXiv 2310.10636, with k = 5 and a = 2 in the authors' code.

    Example:
        >>> round(SoftTopK(k=1, sharpness=1.0)(torch.zeros(1, 4), torch.tensor([2])).item(), 4)
        1.3863
    """

    needs = frozenset({"positives", "negatives"})

    def __init__(
        self, k: int | Literal["positives"] = 5, *, sharpness: float = 2.0, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        if k != "positives" and k < 1:
            raise MarginsError("k", expected="at least 1, or 'positives'", received=repr(k))
        self.k = k
        self.sharpness = in_range("sharpness", sharpness, low=0, open_low=True)

    def check_targets(self, targets: Targets) -> None:
        """No entry weights, no shares: k counts entries."""
        super().check_targets(targets)
        refuse_shares(targets)
        refuse_entry_weights(targets)

    def stages(self) -> Program:
        """A bracket, the threshold in it, and the positives at the threshold."""
        extremes = {
            "top": maximum("all", self._scaled), "bottom": minimum("all", self._scaled),
            "sum": total("all", self._scaled), "square_sum": total("all", lambda e: self._scaled(e).square()),
        }  # fmt: skip
        begin = Stage(extremes, {"search": detached(self._start)})
        step = Stage(self._reading(), {"search": implicit(self._next)})
        loss = Stage({"loss": total("targets", self._minus_log_share)})
        return begin, Repeat((step,), MAX_PASSES), loss

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """Mean over the positives by grade."""
        return z.loss / z.mass.clamp(min=1e-12)

    def _scaled(self, e: Entries) -> Tensor:
        return self.sharpness * e.s

    def _z(self, e: Entries) -> Tensor:
        return self.sharpness * e.s + e.row.search[..., 0]

    def _minus_log_share(self, e: Entries) -> Tensor:
        return -torch.nn.functional.logsigmoid(self._z(e))

    def _reading(self) -> dict[str, Statistic]:
        found = {
            "num_above": total("all", lambda e: (self._z(e) > 0).to(e.s.dtype)),
            "residual": total("all", self._residual),
            "slope": total("all", self._slope),
            "bend": total("all", self._bend),
            "above": Statistic("min", "all", self._scaled, self._z),
            "below": Statistic("max", "all", self._scaled, lambda e: (self._z(e) <= 0).to(e.s.dtype)),
        }
        return found | {f"count_{i}": total("all", self._count(i)) for i in range(NUM_LEVELS)}

    def _nearness(self, e: Entries) -> tuple[Tensor, Tensor, Tensor]:
        """Whether z > 0, and the distance of each share from its side, plain and scaled."""
        z, half_gap = self._z(e), e.row.search[..., 3]
        is_above = z > 0
        from_side = torch.where(is_above, -z, z)
        plain = torch.sigmoid(from_side)
        if values_are_readable(half_gap) and not bool((half_gap > 0).any()):
            return is_above, plain, plain
        return is_above, plain, torch.exp((from_side + half_gap).clamp(max=40.0)) * torch.sigmoid(-from_side)

    def _residual(self, e: Entries) -> Tensor:
        is_above, _, scaled = self._nearness(e)
        return torch.where(is_above, -scaled, scaled)

    def _slope(self, e: Entries) -> Tensor:
        _, plain, scaled = self._nearness(e)
        return scaled * (1 - plain)

    def _bend(self, e: Entries) -> Tensor:
        is_above, plain, scaled = self._nearness(e)
        bend = scaled * (1 - plain) * (1 - 2 * plain)
        return torch.where(is_above, -bend, bend)

    def _count(self, number: int) -> Phi:
        def count(e: Entries) -> Tensor:
            low, high = e.row.search[..., 1], e.row.search[..., 2]
            if values_are_readable(low) and not bool((high - low > WIDE).any()):
                return torch.zeros_like(low)
            return (self._scaled(e) > _level(low, high, number)).to(e.s.dtype)

        return count

    def _k(self, z: RowValues) -> Tensor:
        return z.num_positives if self.k == "positives" else torch.full_like(z.num_known, float(self.k))

    def _start(self, z: RowValues) -> Tensor:
        k = self._k(z)
        search = start(z.top, z.bottom, k, z.num_known)
        mean = z.sum / z.num_known
        variance = (z.square_sum / z.num_known - mean.square()).clamp(min=0)
        return torch.stack(guessed(search, mean, variance, k, z.num_known), -1)

    def _next(self, z: RowValues) -> Tensor:
        """The next threshold; the gradient of the present one is that of a Newton step."""
        tiny = torch.finfo(z.slope.dtype).tiny
        pull = (z.residual - z.residual.detach()) / z.slope.detach().clamp(min=tiny)
        return self._searched(z) - torch.nn.functional.pad(pull[:, None], (0, 3))

    @torch.no_grad()
    def _searched(self, z: RowValues) -> Tensor:
        k, before = self._k(z), Search(*z.search.unbind(-1))
        seen = Seen(z.num_above, z.residual, z.slope, z.bend, z.above, z.below)
        after = advanced(before, seen, k, z.num_known)
        wide = (before.high - before.low > WIDE) & (seen.num_above != k)
        if not values_are_readable(wide) or bool(wide.any()):
            counts = torch.stack([getattr(z, f"count_{i}") for i in range(NUM_LEVELS)], 1)
            levels = torch.stack([_level(before.low, before.high, i) for i in range(NUM_LEVELS)], 1)
            found = ranked(after, levels, counts, k, z.num_known)
            after = Search(*(torch.where(wide, new, old) for new, old in zip(found, after, strict=True)))
        settled = seen.is_at_root(before, k) | (z.top <= z.bottom)
        return torch.where(settled[:, None], z.search, torch.stack(after, -1)).detach()


def _level(low: Tensor, high: Tensor, number: int) -> Tensor:
    """One of the values between which the counts divide the bracket."""
    return -(low + (high - low) * ((number + 0.5) / NUM_LEVELS))
