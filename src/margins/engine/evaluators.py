"""Evaluators: they run the program of a statistics loss over scores and give the row statistics.

One driver runs the stages, gathers the listed positives of sparse targets and keeps rows that do not count
out of the arithmetic; an evaluator says only how one pass over the blocks of scores is made.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from margins.engine.entries import BlockEntries, ListedEntries, NamedValues
from margins.engine.logsumexp import row_logsumexp
from margins.engine.sources import Factored, Source, full_precision
from margins.engine.statistics import Program, Repeat, Stage, Statistic
from margins.errors import values_are_readable
from margins.targets import Positives, Targets

Statistics = Mapping[str, Statistic]
Side = Mapping[str, Tensor]
ValueOfRows = Callable[[Source, Targets, Side, "Evaluator"], Tensor]
"""The sum of the losses of the rows of a source, by an evaluator."""
SumOfRows = Callable[[ValueOfRows, Side], Tensor]
"""That of all rows, with its gradient, from how to find it for some of them."""


@dataclass
class Pass:
    """What one pass over the scores needs to know."""

    source: Source
    targets: Targets
    side: Mapping[str, Tensor]
    valid: Bool[Tensor, " anchors"] | None
    rows: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    listing: Positives | None = None
    listed_scores: Tensor | None = None
    prepared: Any = None  # by an evaluator, once for all stages


class Rows(NamedValues):
    """Statistics and row values by name, and the counts of the row."""

    def __init__(self, values: Mapping[str, Tensor], targets: Targets, dtype: torch.dtype) -> None:
        super().__init__(values)
        self._targets, self._dtype = targets, dtype

    @property
    def num_known(self) -> Float[Tensor, " anchors"]:
        """Known entries of the row, at least 1."""
        return self._targets.num_known().clamp(min=1).to(self._dtype)

    @property
    def known_weight(self) -> Float[Tensor, " anchors"]:
        """Weights of the row's known entries, added up; never 0."""
        weight = self._targets.known_weight().to(self._dtype)
        return torch.where(weight > 0, weight, 1.0)

    @property
    def mass(self) -> Float[Tensor, " anchors"]:
        """Weight times grade of the row's known entries, added up."""
        return self._targets.mass(self._dtype).to(self._dtype)

    @property
    def num_positives(self) -> Float[Tensor, " anchors"]:
        """Known positives of the row, at least 1."""
        return self._targets.num_positives().clamp(min=1).to(self._dtype)


class Evaluator(ABC):
    """Runs a program of stages."""

    def check(  # noqa: B027 - most evaluators run every loss
        self, name: str, program: Program, source: Source, targets: Targets
    ) -> None:
        """Raises MarginsError, naming the loss, when this evaluator cannot run it."""

    def run(
        self,
        program: Program,
        source: Source,
        targets: Targets,
        *,
        side: Mapping[str, Tensor],
        valid: Bool[Tensor, " anchors"] | None = None,
        rows: Mapping[str, Tensor] | None = None,
    ) -> Rows:
        """The statistics and row values of every stage, by name.

        Args:
            program: the stages of a loss.
            source: scores, or what they are made of.
            targets: same shape as the source.
            side: named blocks beside the scores, each a 2-D tensor that broadcasts to them.
            valid: rows that count; the others get 0 for every statistic. None when all count.
            rows: row values that are there before the first stage (state kept by row).
        """
        dtype = source.like.dtype
        known = {n: r.to(dtype) for n, r in (rows or {}).items()}
        with full_precision(source.like.device):
            here = self.start(program, Pass(source, targets, side, valid, known))
            for step in program:
                self._repeat(step, here) if isinstance(step, Repeat) else self._stage(step, here)
        return Rows(here.rows, targets, dtype)

    def start(self, program: Program, here: Pass) -> Pass:
        """The pass as this evaluator wants it, before the first stage."""
        if isinstance(here.source, Factored) and not self.takes_half(here.source):
            here.source = here.source.widened()
        here.listing = self.listing(here.targets)
        return here

    def takes_half(self, source: Factored) -> bool:
        """Whether it makes float32 scores of half-precision vectors itself, without a copy of all of them."""
        return False

    def guarded(self) -> contextlib.AbstractContextManager[object]:
        """Around what may fail before the scores are read: several ranks then fail together."""
        return contextlib.nullcontext()

    def whole_shape(self, source: Source, targets: Targets | None) -> tuple[int, int]:
        """(anchors, candidates) of the whole problem, of which the source may be a part.

        Args:
            source: of the scores.
            targets: None when they are to be made for this shape.
        """
        return source.shape

    def whole_batch(self, anchors: Tensor, candidates: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Anchors and targets of the whole batch, of which these may be a part."""
        return anchors, targets

    def shared(self, values: Tensor | None) -> Tensor | None:
        """Values that were computed of a whole row, with their share of its gradient."""
        return values

    def whole_rows(self, source: Source, targets: Targets) -> SumOfRows | None:
        """How to find the sum of row losses together with its gradient, where that is better than `run`."""
        return None

    def _repeat(self, step: Repeat, here: Pass) -> None:
        kinds = step.kinds()
        with _nothing() if "through" in kinds else torch.no_grad():
            for _ in range(step.times):
                before = {name: here.rows[name] for name in step.carried()}
                for stage in step.stages:
                    self._stage(stage, here)
                if "through" not in kinds and _has_settled(before, here.rows):
                    break
        if "implicit" in kinds:
            for stage in step.stages:
                self._stage(stage, here)

    def _stage(self, stage: Stage, here: Pass) -> None:
        found = self.found(stage.statistics, here)
        if here.valid is not None:
            found = {n: torch.where(here.valid, z, 0.0) for n, z in found.items()}
        here.rows.update(found)
        for name, value in stage.rows.items():
            result = value.function(Rows(here.rows, here.targets, here.source.like.dtype))
            here.rows[name] = result.detach() if value.kind == "detached" else result

    def listing(self, targets: Targets) -> Positives | None:
        """The positives one by one, when their statistics are to be found from such a list."""
        return targets.positives() if targets.is_sparse else None

    def found(self, statistics: Statistics, here: Pass) -> dict[str, Tensor]:
        """The statistics of a stage by name, before rows that do not count are masked."""
        lists = here.listing is not None
        listed = {n: s for n, s in statistics.items() if lists and s.over in ("positives", "targets")}
        scanned = {n: s for n, s in statistics.items() if n not in listed}
        found: dict[str, Tensor] = {}
        if scanned:
            found.update(zip(scanned, self.scan(tuple(scanned.values()), here), strict=True))
        if listed:
            found.update(self._listed(listed, here))
        return found

    def _listed(self, statistics: Statistics, here: Pass) -> Iterator[tuple[str, Tensor]]:
        listing, scores = here.listing, here.listed_scores
        assert listing is not None  # noqa: S101  (asked before)
        if scores is None:
            in_order = here.targets.has_one_positive
            scores = here.source.listed(listing.rows, listing.columns, in_order=in_order)
        entries = ListedEntries(scores, here.targets, listing, side=here.side, rows=here.rows)
        for name, statistic in statistics.items():
            yield name, entries.reduced(statistic)

    @abstractmethod
    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Float[Tensor, " anchors"]]:
        """The statistics over whole rows, in one pass."""


class Dense(Evaluator):
    """Scores are materialised: the reference for all other evaluators, and twice differentiable.

    A second derivative takes row values that a loss declares detached for constants, as the first does.
    """

    def start(self, program: Program, here: Pass) -> Pass:
        """All scores are made first, once for all stages."""
        if isinstance(here.source, Factored):
            here.source = here.source.widened().materialised()
        return super().start(program, here)

    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Float[Tensor, " anchors"]]:
        """One block that holds every column."""
        num_candidates = here.source.shape[1]
        entries = BlockEntries(
            here.source.matrix(), here.targets, 0, num_candidates, side=here.side, rows=here.rows
        )
        return [_statistic(entries, s) for s in statistics]


def _has_settled(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether repeating changed nothing beyond rounding; not asked where looking would wait for a device."""
    for name, old in before.items():
        new = after[name]
        grain = 8 * torch.finfo(new.dtype).eps
        if not values_are_readable(new) or bool(((new - old).abs() > grain * new.abs()).any()):
            return False
    return True


def _statistic(entries: BlockEntries, statistic: Statistic) -> Float[Tensor, " anchors"]:
    # The sum weighted by grades is an inner product: no block of products is written.
    if statistic.over == "targets" and statistic.keep is None:
        return torch.linalg.vecdot(entries.phi(statistic).expand(entries.s.shape), entries.weighted_grades())
    return _reduced(entries.terms(statistic), statistic.reduce)


def _reduced(terms: Float[Tensor, "anchors block"], reduce: str) -> Float[Tensor, " anchors"]:
    if reduce == "sum":
        return terms.sum(1)
    if reduce == "logsumexp":
        return row_logsumexp(terms)
    return terms.amax(1) if reduce == "max" else terms.amin(1)


_nothing = contextlib.nullcontext
