"""The sharded evaluator: candidates are divided over the ranks of a process group; statistics travel.

No rank holds all candidates or the matrix of scores. Memory and time a rank are those of its own part, plus K
numbers a row. Value and gradient equal the dense ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from margins.engine.across_ranks.gather import gather_counted
from margins.engine.across_ranks.in_batch import kind_of, targets_of_all
from margins.engine.across_ranks.joining import Join
from margins.engine.across_ranks.ranks import Ranks
from margins.engine.blocks.blockwise import Blockwise
from margins.engine.entries import NEUTRAL, BlockEntries
from margins.engine.evaluators import Evaluator, Pass, Statistics
from margins.engine.sources import Factored, Source
from margins.engine.statistics import Affine, Phi, Program, Reduce, Repeat, Stage, Statistic
from margins.errors import MarginsError
from margins.targets import Positives, Targets
from margins.targets.columns import Columns

_CLOSE = 1e-4


@dataclass(frozen=True)
class Sharded(Evaluator):
    """Candidates divided over ranks, unequally if need be; a rank may have none.

    Anchors, targets and the parameters of the loss are the same on every rank, e.g. by `gather_rows`. Targets
    are over all candidates, in the order of the ranks. Candidates, bias and side blocks are this rank's own
    ([C_own, d], [C_own], [B or 1, C_own or 1]). Every rank gets the value of the whole problem.

    **Gradients.** Every rank back-propagates the same value. The gradient of a rank's candidates, bias and
    side blocks is then complete on that rank. The gradient of what all ranks hold (embeddings, parameters,
    learned targets) is on each rank a part, and the parts add up to the whole: `gather_rows` adds those of
    embeddings up on its way back, and whoever adds up the gradients of parameters is right. Under
    DistributedDataParallel, which averages, pass what comes out of the network through `before_averaging`.
    Said once for all cases: the gradients are those of the mean over ranks of what each back-propagates.

    With `on_pairs` and `on_embeddings` each rank brings its part of the batch instead: the anchors are
    gathered, and the documents (or items) of all ranks are the candidates.

    With one rank, or without a process group, it is its inner evaluator.

    Args:
        inner: evaluator of a rank's own part; `Blockwise()` or `Dense()`.
        group: process group; the default one when None. A group of some ranks makes their candidates the
            whole problem, so contrastive batches can be divided among groups.
    """

    inner: Evaluator = field(default_factory=Blockwise)
    group: dist.ProcessGroup | None = None

    def __post_init__(self) -> None:
        if isinstance(self.inner, Sharded):
            raise MarginsError("inner", expected="Dense() or Blockwise()", received="Sharded()")

    def guarded(self) -> contextlib.AbstractContextManager[object]:
        """An error in here is raised on every rank."""
        return Ranks.of(self.group).guarded()

    def whole_shape(self, source: Source, targets: Targets | None) -> tuple[int, int]:
        """(anchors, candidates of all ranks); targets are believed until the ranks agree on the problem."""
        ranks = Ranks.of(self.group)
        if ranks.size == 1:
            return source.shape
        if targets is not None:
            return source.shape[0], targets.num_candidates
        met = ranks.meet("count candidates", {}, {"candidates": source.shape[1]})
        return source.shape[0], sum(int(facts["candidates"]) for facts in met)

    def whole_batch(self, anchors: Tensor, candidates: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """The anchors of all ranks, and their targets over the candidates of all ranks.

        Args:
            anchors: [B_own, d].
            candidates: [C_own, d].
            targets: pairs or matches of the two; rows may have weights.
        """
        ranks = Ranks.of(self.group)
        if ranks.size == 1:
            return anchors, targets
        same = {
            "dtype of the anchors": str(anchors.dtype),
            "axes of the anchors": str(list(anchors.shape[1:])),
            "kind of the targets": kind_of(targets),
        }
        met = ranks.meet("join a batch", same, {"anchors": len(anchors), "candidates": len(candidates)})
        num_anchors, num_candidates = ([int(facts[name]) for facts in met] for name in met[0])
        whole = targets_of_all(targets, num_anchors, num_candidates, ranks)
        return gather_counted(anchors, num_anchors, self.group), whole

    def shared(self, values: Tensor | None) -> Tensor | None:
        """What every rank computes alike: each answers for its share of the gradient."""
        size = Ranks.of(self.group).size
        return values if values is None or size == 1 else _Scaled.apply(values, 1 / size)

    def start(self, program: Program, here: Pass) -> Pass:
        """The pass, once the ranks have agreed on the problem."""
        ranks = Ranks.of(self.group)
        if ranks.size == 1:
            return self.inner.start(program, here)
        if isinstance(here.source, Factored):
            here.source = here.source.widened()
        first, last = _agreed(ranks, program, here.source, here.targets)
        own = here.targets.columns(first, last)
        local = replace(here, targets=own, listing=self.listing(own))
        return _ShardedPass(
            here.source, here.targets, here.side, here.valid, here.rows, local=local, ranks=ranks
        )

    def listing(self, targets: Targets) -> Positives | None:
        """As the inner evaluator has it."""
        return self.inner.listing(targets)

    def found(self, statistics: Statistics, here: Pass) -> dict[str, Tensor]:
        """The statistics of this rank's part, joined with those of the others."""
        if not isinstance(here, _ShardedPass) or not statistics:
            return self.inner.found(statistics, here)
        rows = {name: value.detach() for name, value in here.rows.items()}

        def ties(k: int, extreme: Tensor) -> Tensor:
            return self._ties(list(statistics.values())[k], replace(here.local, rows=rows), extreme)

        reduces: tuple[Reduce, ...] = tuple(s.reduce for s in statistics.values())
        join = Join(here.ranks, reduces, here.source.shape[0], here.source.like, ties)
        try:
            part = self._own(statistics, here.local)
            parts = [part[name] for name in statistics]
        except Exception as error:
            join.fail(error)
            raise
        joined, here.link = join(parts, here.valid, here.link)
        return dict(zip(statistics, joined, strict=True))

    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Float[Tensor, " anchors"]]:
        """The statistics over this rank's candidates alone."""
        return self.inner.scan(statistics, here)

    def _own(self, statistics: Statistics, local: Pass) -> Mapping[str, Tensor]:
        if local.source.shape[1] > 0:
            return self.inner.found(statistics, local)
        entries = BlockEntries(local.source.matrix(), local.targets, 0, 0, side=local.side, rows=local.rows)
        # Nothing to reduce, but on the graph of everything that other ranks' parts depend on.
        return {n: entries.terms(s).sum(1) + NEUTRAL[s.reduce] for n, s in statistics.items()}

    def _ties(self, statistic: Statistic, local: Pass, extreme: Tensor) -> Tensor:
        """How many of this rank's entries equal the extreme of their row."""
        if local.source.shape[1] == 0:
            return torch.zeros_like(extreme)

        def equal(e: Any) -> Tensor:
            return (statistic.phi(e) == e.row.joined_extreme).to(extreme.dtype)

        view = local.targets.storage
        assert isinstance(view, Columns)  # noqa: S101 - made by start
        unweighted = Targets(_Unweighted(view.whole, view.start, view.stop))
        here = replace(
            local, prepared=None, targets=unweighted, rows={**local.rows, "joined_extreme": extreme}
        )
        counted = Statistic("sum", statistic.over, equal, statistic.keep)
        with torch.no_grad():
            return self.inner.found({"ties": counted}, here)["ties"]


@dataclass(kw_only=True)
class _ShardedPass(Pass):
    """A pass over the whole problem, and the one over this rank's part of it; they share row values."""

    local: Pass
    ranks: Ranks
    link: Tensor | None = None  # from one stage's join to the next


class _Unweighted(Columns):
    """Some columns without their entry weights: entries are counted."""

    def weight(self, start: int, stop: int) -> Tensor | None:
        return None

    def weight_at(self, rows: Tensor, columns: Tensor) -> Tensor | None:
        return None


class _Scaled(torch.autograd.Function):
    """The tensor itself, with its gradient multiplied."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0] * ctx.factor, None


def before_averaging(tensor: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """The tensor, with its gradient multiplied by the number of ranks, which averaging divides by again.

    For what comes out of a network under DistributedDataParallel, when each rank's gradient of it is a part
    of the whole, as with `Sharded` and `gather_rows`.
    """
    size = Ranks.of(group).size
    return tensor if size == 1 else _Scaled.apply(tensor, float(size))  # pyright: ignore[reportReturnType]


def _agreed(ranks: Ranks, program: Program, source: Source, targets: Targets) -> tuple[int, int]:
    """First and last column of this rank, once all ranks have shown that they pose the same problem."""
    integers, floats, size = _summary(targets)
    anchors, spread, axes = 0.0, 1.0, ""
    if isinstance(source, Factored):
        (anchors, spread), axes = _sample(source.embeddings), str(list(source.embeddings.shape[1:]))
    same = {
        "dtype of the scores": str(source.like.dtype),
        "number of anchors": source.shape[0],
        "axes of the embeddings": axes,
        "number of candidates in the targets": targets.num_candidates,
        "targets": f"{type(targets.storage).__name__} {integers!r}",
        "gradients": "asked for" if torch.is_grad_enabled() else "not asked for",
        "loss": _signature(program),
    }
    own = {
        "columns": source.shape[1],
        "embeddings": anchors,
        "spread": spread,
        "targets": floats,
        "size": size,
    }
    met = ranks.meet("evaluate a loss", same, own)
    with ranks.told():
        first = met[0]
        for name, scale in (("embeddings", "spread"), ("targets", "size")):
            for rank, facts in enumerate(met):
                if abs(facts[name] - first[name]) > _CLOSE * first[scale]:
                    raise MarginsError(
                        name,
                        expected="the same on every rank",
                        received=f"other numbers on rank {rank} than on rank 0",
                        fix="gather the anchors and their labels of all ranks first: gather_rows",
                    )
        columns = [int(facts["columns"]) for facts in met]
        if sum(columns) != targets.num_candidates:
            raise MarginsError(
                "targets",
                expected=f"targets over the {sum(columns)} candidates of all ranks ({columns})",
                received=repr(targets),
            )
    ends = list(accumulate(columns, initial=0))
    return ends[ranks.rank], ends[ranks.rank + 1]


def _signature(program: Program) -> str:
    """The statistics and row values of a loss, and the loss itself where phi is a method of it."""

    def of_stage(stage: Stage) -> list[Any]:
        named = [(n, s.reduce, s.over, s.keep is None, _name_of(s.phi)) for n, s in stage.statistics.items()]
        owners = {repr(getattr(s.phi, "__self__", "")) for s in stage.statistics.values()}
        return [named, [(n, r.kind) for n, r in stage.rows.items()], sorted(owners)]

    steps = [
        (step.times, [of_stage(s) for s in step.stages]) if isinstance(step, Repeat) else of_stage(step)
        for step in program
    ]
    return repr(steps)


def _name_of(phi: Phi) -> str:
    return repr(phi) if isinstance(phi, Affine) else getattr(phi, "__qualname__", "")


def _summary(targets: Targets) -> tuple[float, float, float]:
    """A sum of some integers, of some floats and of the floats' sizes among the tensors of targets."""
    integers, floats, size = 0.0, 0.0, 0.0

    def look(tensor: Tensor) -> Tensor:
        nonlocal integers, floats, size
        total, spread = _sample(tensor)
        if tensor.is_floating_point():
            floats, size = floats + total, size + spread
        else:
            integers += total
        return tensor

    targets.map_tensors(look)
    return integers, floats, size


def _sample(tensor: Tensor) -> tuple[float, float]:
    """The weighed sum of about four thousand of the numbers, and that of their sizes."""
    flat = tensor.detach().reshape(-1)
    some = flat[:: max(1, flat.shape[0] // 4096)].double()
    weighed = some * (1 + torch.arange(some.shape[0], device=some.device) % 97)
    found = torch.stack([weighed.sum(), weighed.abs().sum()]).tolist()
    return found[0], found[1]
