"""The gradient of a block's scores from the upstream gradients of the statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.blocks.fused import exp_of_difference
from margins.engine.entries import BlockEntries, leave_out, terms_in
from margins.engine.scratch import Scratch
from margins.engine.statistics import SlopedPhi, Statistic
from margins.errors import values_are_readable


@dataclass(frozen=True, eq=False)
class Upstream:
    """What backward knows of one statistic.

    Args:
        statistic: which.
        gradient: of the loss by it.
        found: its value; 0 for a logsumexp over nothing.
        ties: terms that share the gradient of a max or min.
        folded: of a logsumexp whose upstream is nowhere negative: found - log(gradient), so that
            gradient * exp(terms - found) = exp(terms - folded) in one go. None otherwise.
    """

    statistic: Statistic
    gradient: Float[Tensor, " anchors"]
    found: Float[Tensor, " anchors"]
    ties: Float[Tensor, " anchors"]
    folded: Float[Tensor, " anchors"] | None = None

    @classmethod
    def of(cls, statistic: Statistic, gradient: Tensor, found: Tensor, ties: Tensor) -> Upstream:
        """With what can be prepared for all blocks."""
        if statistic.reduce != "logsumexp":
            return cls(statistic, gradient, found, ties)
        finite = torch.where(found.isneginf(), 0.0, found)
        is_plain = values_are_readable(gradient) and bool((gradient >= 0).all())
        return cls(statistic, gradient, finite, ties, finite - gradient.log() if is_plain else None)

    def of_rows(self, start: int, stop: int) -> Upstream:
        """The part of some anchors."""
        cut = {n: getattr(self, n) for n in ("gradient", "found", "ties", "folded")}
        return replace(self, **{n: None if t is None else t[start:stop] for n, t in cut.items()})

    def by_terms(self, terms: Float[Tensor, "rows block"]) -> Float[Tensor, "rows block"]:
        """The gradient by the terms; overwrites them."""
        if self.statistic.reduce == "sum":
            return terms.copy_(self.gradient[:, None].expand(terms.shape))
        if self.statistic.reduce != "logsumexp":
            share = torch.where(self.ties > 0, self.gradient / self.ties.clamp(min=1), 0.0)
            return torch.eq(terms, self.found[:, None], out=terms).mul_(share[:, None])
        if self.folded is not None:
            return exp_of_difference(terms, self.folded)
        return exp_of_difference(terms, self.found, self.gradient)

    def in_half(
        self, terms: Float[Tensor, "rows block"], slope: float, dtype: torch.dtype
    ) -> Float[Tensor, "rows block"]:
        """Of a logsumexp the gradient by the scores, made in another dtype as it is found."""
        return exp_of_difference(terms, self.found, self.gradient * slope, dtype)


def have_slopes(active: Sequence[Upstream]) -> bool:
    """Whether every statistic is of a phi with a known derivative, over a domain that masks tell."""
    return all(isinstance(u.statistic.phi, SlopedPhi) and u.statistic.over != "targets" for u in active)


def gradient_by_slopes(
    entries: BlockEntries,
    active: Sequence[Upstream],
    scratch: Scratch,
    *,
    may_overwrite: bool,
    dtype: torch.dtype,
) -> Float[Tensor, "rows block"]:
    """The gradient of the scores by the chain rule.

    Args:
        entries: of the block, off the graph.
        active: statistics that have an upstream gradient.
        scratch: where buffers are taken.
        may_overwrite: whether the scores are not needed any more.
        dtype: in which it is wanted; in that of the scores it comes where it is a sum of several.
    """
    total: Tensor | None = None
    for index, upstream in enumerate(active):
        statistic, is_last = upstream.statistic, index + 1 == len(active)
        phi = statistic.phi
        assert isinstance(phi, SlopedPhi)  # noqa: S101  (asked before)
        slope = phi.slope(entries)
        if statistic.reduce == "sum":
            part = _of_sum(entries, upstream, scratch)
        else:
            may = may_overwrite and is_last
            terms = terms_in(entries, statistic, scratch, may_overwrite=may)
            is_alone = len(active) == 1 and statistic.reduce == "logsumexp"
            if is_alone and dtype != terms.dtype and not isinstance(slope, Tensor):
                return upstream.in_half(terms, slope, dtype)
            part = upstream.by_terms(terms)
        part = part if not isinstance(slope, Tensor) and slope == 1.0 else part.mul_(slope)
        total = part if total is None else total.add_(part)
    assert total is not None  # noqa: S101  (there is one at least)
    return total


def _of_sum(entries: BlockEntries, upstream: Upstream, scratch: Scratch) -> Float[Tensor, "rows block"]:
    """The gradient by the terms of a sum, which are not needed for it."""
    statistic, weight = upstream.statistic, entries.weight()
    part = upstream.by_terms(scratch.take(entries.s.shape))
    if weight is not None:
        part.mul_(weight)
    kept = entries.kept(statistic, scratch)
    leave_out(part, kept, entries.places(statistic), 0.0)
    if kept is not None:
        scratch.release()
    return part


def pieces(entries: BlockEntries, active: Sequence[Upstream]) -> tuple[list[Tensor], list[Tensor]]:
    """The terms of the statistics on the graph of the entries, and the gradient by each."""
    outputs: list[Tensor] = []
    upstream: list[Tensor] = []
    for one in active:
        terms = entries.terms(one.statistic)
        if terms.requires_grad:
            outputs.append(terms)
            upstream.append(one.by_terms(terms.detach().clone()))
    return outputs, upstream
