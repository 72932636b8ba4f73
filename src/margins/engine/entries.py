"""What phi sees: a block of columns or a list of entries, everything made only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.engine.scratch import Scratch
from margins.engine.statistics import Affine, Beyond, Phi, Statistic
from margins.targets import Positives, Targets
from margins.targets.fields import entries_of

NEUTRAL = {"sum": 0.0, "logsumexp": -torch.inf, "max": -torch.inf, "min": torch.inf}


class NamedValues:
    """Named tensors, read as attributes."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Holes:
    """Entries of a block that are known one by one, as places in the flattened block."""

    positives: Int[Tensor, " positives"]
    unknown: Int[Tensor, " unknown"]

    def outside(self, over: str) -> Int[Tensor, " outside"]:
        """Places that take no part in a domain; `positives` and `targets` are listed, never asked for."""
        return torch.cat([self.positives, self.unknown]) if over == "negatives" else self.unknown


class BlockEntries:
    """Columns start to stop of every row. `scores` come with the margin still in them; `side` is cut.

    With `holes`, positives and unknown entries are those listed there, and no mask of the block is made.
    """

    def __init__(
        self,
        scores: Float[Tensor, "anchors block"],
        targets: Targets,
        start: int,
        stop: int,
        *,
        side: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        holes: Holes | None = None,
    ) -> None:
        self._targets, self._start, self._stop, self._side = targets, start, stop, side
        self._holes = holes
        self.row = NamedValues({name: value[:, None] for name, value in rows.items()})
        margin = targets.margin_of(start, stop)
        self.s = scores if margin is None else scores - margin.to(scores.dtype)
        self._known = targets.known(start, stop) if holes is None else None
        # Read once, when first asked for; functools.cached_property locks, which no compiler follows.
        self._grades: Tensor | None = None
        self._positives: Tensor | None = None
        self._phis: dict[Phi, Tensor] = {}

    @property
    def t(self) -> Float[Tensor, "anchors block"]:
        """Grades."""
        if self._grades is None:
            self._grades = self._targets.grades(self._start, self._stop, self.s.dtype)
        return self._grades

    def side(self, name: str) -> Float[Tensor, "rows columns"]:
        """The part of a side block over these columns."""
        return self._side[name]

    def phi(self, statistic: Statistic) -> Tensor:
        """The phi of a statistic, made once for all statistics that share it."""
        if statistic.phi not in self._phis:
            self._phis[statistic.phi] = statistic.phi(self)
        return self._phis[statistic.phi]

    def weighted_grades(self) -> Float[Tensor, "anchors block"]:
        """Grade times weight, 0 where an entry is unknown."""
        weight = self._targets.weight_of(self._start, self._stop)
        grades = self.t if weight is None else self.t * weight.to(self.t.dtype)
        return grades if self._known is None else grades.masked_fill(~self._known, 0.0)

    @property
    def _positive(self) -> Bool[Tensor, "anchors block"]:
        if self._positives is None:
            self._positives = self._targets.positive(self._start, self._stop)
        return self._positives

    def weight(self) -> Float[Tensor, "rows columns"] | None:
        """Entry weights; None when all are 1."""
        weight = self._targets.weight_of(self._start, self._stop)
        return None if weight is None else weight.to(self.s.dtype)

    def raw(self, statistic: Statistic) -> Float[Tensor, "anchors block"]:
        """Phi with weights, whether an entry takes part or not; `s` itself for plain scores."""
        phi = self.phi(statistic)
        if statistic.over == "targets":
            phi = phi * self.t
        phi = weighted(phi, self._targets.weight_of(self._start, self._stop), statistic)
        return phi if phi.shape == self.s.shape else phi.expand(self.s.shape)

    def _outside(self, over: str) -> Bool[Tensor, "rows columns"] | None:
        """Entries that are unknown or of another domain, those in `places` left out; None for none."""
        unknown = None if self._known is None else ~self._known
        if self._holes is not None or over in ("all", "targets"):
            return unknown
        outside = self._positive if over == "negatives" else ~self._positive
        return outside if unknown is None else outside | unknown

    def excluded(self, statistic: Statistic) -> Bool[Tensor, "rows columns"] | None:
        """Entries that take no part in a statistic, those in `places` left out; None when there are none."""
        outside = self._outside(statistic.over)
        if statistic.keep is None:
            return outside
        dropped = statistic.keep(self) <= 0
        return dropped if outside is None else outside | dropped

    def kept(self, statistic: Statistic, scratch: Scratch) -> Float[Tensor, "anchors block"] | None:
        """`excluded` as numbers, 1 for an entry that takes part: a processor is several times faster so.

        Args:
            statistic: whose entries.
            scratch: where a buffer is taken, unless all take part.
        """
        outside, keep = self._outside(statistic.over), statistic.keep
        if outside is None and keep is None:
            return None
        out = scratch.take(self.s.shape)
        if keep is None:
            assert outside is not None  # noqa: S101  (asked just now)
            return torch.logical_not(outside.expand(self.s.shape), out=out)
        if isinstance(keep, Beyond):
            compare = torch.gt if keep.is_above else torch.lt
            chosen = compare(self.s, keep.value(self.row), out=out)
        else:
            chosen = torch.gt(keep(self), 0, out=out)
        return chosen if outside is None else chosen.mul_(~outside)

    def places(self, statistic: Statistic) -> Int[Tensor, " places"] | None:
        """Single entries that take no part in a statistic, as places in the flattened block."""
        return None if self._holes is None else self._holes.outside(statistic.over)

    def terms(self, statistic: Statistic) -> Float[Tensor, "anchors block"]:
        """Phi with weights, and the neutral element where an entry takes no part."""
        phi, neutral = self.raw(statistic), NEUTRAL[statistic.reduce]
        excluded, places = self.excluded(statistic), self.places(statistic)
        if excluded is not None:
            phi = phi.masked_fill(excluded, neutral)
        if places is not None and places.shape[0]:
            phi = phi.reshape(-1).index_fill(0, places, neutral).view(phi.shape)
        return phi


def terms_in(
    entries: BlockEntries, statistic: Statistic, scratch: Scratch, *, may_overwrite: bool
) -> Float[Tensor, "anchors block"]:
    """The terms of a statistic in memory that may be changed: a buffer, or the scores themselves.

    Args:
        entries: of the block, off the graph.
        statistic: whose terms.
        scratch: where a buffer is taken, unless the scores are overwritten.
        may_overwrite: whether nobody needs the scores after this.
    """
    shape, phi = entries.s.shape, statistic.phi
    out = entries.s if may_overwrite else scratch.take(shape)
    kept = entries.kept(statistic, scratch)
    if isinstance(phi, Affine) and statistic.over != "targets" and entries.weight() is None:
        terms = _affine(phi, entries.s, out)
    else:
        raw = entries.raw(statistic)
        terms = raw if raw is out else out.copy_(raw)
    leave_out(terms, kept, entries.places(statistic), NEUTRAL[statistic.reduce])
    if kept is not None:
        scratch.release()
    return terms


def _affine(phi: Affine, scores: Tensor, out: Tensor) -> Tensor:
    if phi.shift != 0:
        return torch.add(scores.new_tensor(phi.shift), scores, alpha=phi.scale, out=out)
    if phi.scale != 1:
        return torch.mul(scores, phi.scale, out=out)
    return scores if out is scores else out.copy_(scores)


def leave_out(
    terms: Float[Tensor, "anchors block"],
    kept: Float[Tensor, "anchors block"] | None,
    places: Int[Tensor, " places"] | None,
    neutral: float,
) -> None:
    """Sets terms to the neutral element in place, where `kept` is 0 and at the places; overwrites `kept`."""
    if kept is not None and neutral == 0:
        terms.mul_(kept)
    elif kept is not None:
        gap = kept.sub_(1).mul_(torch.finfo(kept.dtype).max / 2)  # beyond all numbers when taken four times
        terms.add_(gap, alpha=-4 if neutral > 0 else 4)
    if places is not None and places.shape[0]:
        terms.view(-1).index_fill_(0, places, neutral)


class ListedEntries:
    """The positives of sparse targets, one by one. `scores` come with the margin still in them."""

    def __init__(
        self,
        scores: Float[Tensor, " positives"],
        targets: Targets,
        listing: Positives,
        *,
        side: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
    ) -> None:
        self._targets, self._side = targets, side
        self._rows, self._columns, values = listing
        # With one positive a row the list is the rows in order: no gathering of row values is needed.
        self._in_order = targets.has_one_positive
        self.row = NamedValues({n: v if self._in_order else v[self._rows] for n, v in rows.items()})
        margin = targets.margin_at(self._rows, self._columns)
        self.s = scores if margin is None else scores - margin.to(scores.dtype)
        self.t = values.to(scores.dtype)

    def side(self, name: str) -> Float[Tensor, " positives"]:
        """A side block at these entries."""
        part = entries_of(self._side[name], self._rows, self._columns)
        assert part is not None  # noqa: S101  (side blocks are tensors)
        return part

    def reduced(self, statistic: Statistic) -> Float[Tensor, " anchors"]:
        """The statistic, row by row."""
        phi = statistic.phi(self)
        if statistic.over == "targets":
            phi = phi * self.t
        phi = weighted(phi, self._targets.weight_at(self._rows, self._columns), statistic)
        known = self._targets.known_at(self._rows, self._columns)
        kept = None if statistic.keep is None else statistic.keep(self) > 0
        if known is not None:
            kept = known if kept is None else known & kept
        phi = phi.expand(self.s.shape)
        if kept is not None:
            phi = phi.masked_fill(~kept, NEUTRAL[statistic.reduce])
        if self._in_order:
            return phi
        return reduce_by_row(phi, self._rows, self._targets.num_anchors, statistic.reduce)


def weighted(phi: Tensor, weight: Tensor | None, statistic: Statistic) -> Tensor:
    """An entry weight multiplies a term of a sum and adds its logarithm to a term of a logsumexp."""
    if weight is None or statistic.reduce in ("max", "min"):
        return phi
    weight = weight.to(phi.dtype)
    if statistic.reduce == "sum":
        return phi * weight
    return phi + weight.clamp(min=torch.finfo(weight.dtype).tiny).log()


def reduce_by_row(
    phi: Float[Tensor, " n"], rows: Int[Tensor, " n"], num_rows: int, reduce: str
) -> Float[Tensor, " rows"]:
    """Reduces listed terms to their rows; a row without terms gets the neutral element."""
    if reduce == "sum":
        return phi.new_zeros(num_rows).index_add(0, rows, phi)
    neutral = phi.new_full((num_rows,), NEUTRAL[reduce])
    if reduce in ("max", "min"):
        return neutral.scatter_reduce(0, rows, phi, "amax" if reduce == "max" else "amin")
    peak = neutral.scatter_reduce(0, rows, phi.detach(), "amax")
    peak = torch.where(peak.isneginf(), 0.0, peak)
    sums = phi.new_zeros(num_rows).index_add(0, rows, (phi - peak[rows]).exp())
    empty = sums == 0
    return torch.where(empty, -torch.inf, torch.where(empty, 1.0, sums).log() + peak)
