"""How the statistics of parts of a row, one part a rank, become those of the row, and the way back.

Forward, at most two all-reduces of K numbers a row: sums add up; a maximum or minimum is the extreme of all;
a logsumexp is joined by the largest part and the sum of the exponentials over it. Backward, one: the upstream
gradient summed over ranks, times the derivative of the joined statistic by this rank's part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.across_ranks.ranks import Ranks
from margins.engine.statistics import Reduce
from margins.errors import MarginsError, refuse_second_derivative

_FAILED, _NOT_FINITE, _ASKS = 1, 2, 4
Ties = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Join:
    """The join of one stage.

    Args:
        ranks: between which.
        reduces: of the K statistics.
        num_rows: of the problem.
        like: a tensor of the dtype and device of the scores.
        ties: how many of this rank's entries equal the joined extreme of statistic k, row by row.
    """

    ranks: Ranks
    reduces: tuple[Reduce, ...]
    num_rows: int
    like: Tensor
    ties: Ties

    def __call__(
        self, parts: Sequence[Float[Tensor, " anchors"]], valid: Tensor | None, link: Tensor | None
    ) -> tuple[list[Float[Tensor, " anchors"]], Tensor | None]:
        """The joined statistics, on the graph of this rank's parts, and the link to the next stage's join.

        The exchanges of backward must happen on every rank, whatever a rank's own part depends on: so each
        join hangs on the one before it by a number that is always 0.

        Args:
            parts: this rank's statistics, [B] each.
            valid: [B] rows that count; None when all do.
            link: of the join before, None for the first.

        Raises:
            MarginsError: on every rank, when one has failed or has statistics that are not finite.
        """
        parts = [p.to(self.like.dtype) for p in parts]
        with torch.no_grad():
            stacked = torch.stack(parts)
            asks = any(p.requires_grad for p in parts)
            state = _ASKS * asks + _NOT_FINITE * self._is_broken(stacked, valid)
            found, anybody_asks = self._exchanged(stacked, state)
        if not anybody_asks:
            return list(found), link
        link = self.like.new_zeros((), requires_grad=True) if link is None else link
        *rows, link = _Join.apply(self, found, link, *parts)  # pyright: ignore[reportGeneralTypeIssues]
        return rows, link

    def fail(self, error: Exception) -> None:
        """Takes part in the first exchange with an error, so that the others do not wait."""
        rows = self._high() or list(range(len(self.reduces)))
        empty = self.like.new_zeros(len(rows), self.num_rows)
        self._first(empty, rows, _FAILED)
        self.ranks.fail(error)

    def _high(self) -> list[int]:
        return [k for k, reduce in enumerate(self.reduces) if reduce != "sum"]

    def _exchanged(self, parts: Tensor, state: int) -> tuple[Tensor, bool]:
        high = self._high()
        sign = parts.new_tensor([-1.0 if r == "min" else 1.0 for r in self.reduces])[:, None]
        first = high or list(range(len(self.reduces)))
        flags, joined = self._first((sign * parts)[first], first, state)
        self._check(flags)
        found = parts.clone()
        found[first] = joined
        found *= sign
        added = [k for k, r in enumerate(self.reduces) if r == "logsumexp" or (r == "sum" and high)]
        if added:
            is_log = torch.tensor([self.reduces[k] == "logsumexp" for k in added], device=parts.device)[
                :, None
            ]
            peak = torch.where(found[added].isneginf() | ~is_log, 0.0, found[added])
            terms = torch.where(is_log, (parts[added] - peak).exp(), parts[added])
            total = self.ranks.summed(terms)
            found[added] = torch.where(is_log, total.log() + peak, total)
        return found, any(int(f) & _ASKS for f in flags)

    def _first(self, parts: Tensor, rows: list[int], state: int) -> tuple[list[float], Tensor]:
        """The first exchange, with a number a rank that says how it does there."""
        flags = parts.new_zeros(self.ranks.size)
        flags[self.ranks.rank] = state
        buffer = torch.cat([flags, parts.reshape(-1)])
        is_sum = self.reduces[rows[0]] == "sum"
        buffer = self.ranks.summed(buffer) if is_sum else self.ranks.highest(buffer)
        size = self.ranks.size
        return buffer[:size].tolist(), buffer[size:].reshape(len(rows), self.num_rows)

    def _is_broken(self, parts: Tensor, valid: Tensor | None) -> bool:
        """Whether a row that counts has a statistic that no finite scores give."""
        broken = parts.isnan()
        for k, reduce in enumerate(self.reduces):
            if reduce == "sum":
                broken[k] |= parts[k].isinf()
            elif reduce == "logsumexp":
                broken[k] |= parts[k].isposinf()
        return bool((broken if valid is None else broken & valid).any())

    def _check(self, flags: list[float]) -> None:
        if any(int(f) & _FAILED for f in flags):
            self.ranks.meet("a stage that failed on a rank", {})
        broken = [str(rank) for rank, f in enumerate(flags) if int(f) & _NOT_FINITE]
        with self.ranks.told():
            if broken:
                raise MarginsError(
                    f"scores of rank {', '.join(broken)}",
                    expected="finite statistics",
                    received="NaN or an overflow",
                    fix="look at that rank's candidates and at the size of the scores",
                )


class _Join(torch.autograd.Function):
    """Joined statistics that are known already; backward brings each rank the gradient of its part."""

    @staticmethod
    def forward(ctx: Any, join: Join, found: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.join = join
        _, *parts = tensors
        ctx.save_for_backward(found, *parts)
        return *(row.clone() for row in found), found.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        refuse_second_derivative("sharded")
        join: Join = ctx.join
        found, *parts = (t.detach() for t in ctx.saved_tensors)
        total = join.ranks.summed(torch.stack(upstream[:-1]))
        gradients = [_upstream_of_part(join, k, total[k], found[k], part) for k, part in enumerate(parts)]
        return None, None, torch.zeros_like(upstream[-1]), *gradients


def _upstream_of_part(join: Join, k: int, upstream: Tensor, found: Tensor, part: Tensor) -> Tensor:
    if join.reduces[k] == "sum":
        return upstream
    if join.reduces[k] == "logsumexp":
        return upstream * (part - torch.where(found.isneginf(), 0.0, found)).exp()
    if not bool((upstream != 0).any()):  # the same on every rank; ties cost a pass over the scores
        return upstream
    # An extreme shares its gradient among all entries that equal it, wherever they live.
    own = torch.where(part == found, join.ties(k, found).clamp(min=1.0), 0.0)
    everywhere = join.ranks.summed(own.clone())
    return upstream * own / everywhere.clamp(min=1.0)
