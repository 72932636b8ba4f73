"""Jobs of ranks that cannot go on: each returns the error that it gets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from margins.engine import Custom, Dense, Dot, Sharded
from margins.engine.across_ranks import joining
from margins.engine.across_ranks.ranks import Ranks
from margins.engine.sources import ScoreMatrix, factored
from margins.engine.statistics import Statistic, maximum, minimum
from margins.errors import MarginsError, OnceDifferentiableError
from margins.losses import CrossEntropy, InfoNCE
from margins.losses.forms import StatisticsLoss
from margins.targets import Targets


def posed(**changes: Any) -> Tensor:
    """A small problem, the same on every rank but for the changes."""
    given: dict[str, Any] = {
        "loss": InfoNCE(0.5), "anchors": torch.arange(8.0).reshape(4, 2).cos(), "own": torch.ones(3, 2),
        "labels": torch.arange(4), "inner": Dense(), "rule": Dot(), **changes,
    }  # fmt: skip
    return given["loss"].on_candidates(
        given["anchors"], given["own"], given["labels"], rule=given["rule"], evaluator=Sharded(given["inner"])
    )


def raising(anchors: Tensor, candidates: Tensor) -> Tensor:
    raise RuntimeError("no scores today")


def dying(anchors: Tensor, candidates: Tensor) -> Tensor:
    os._exit(0)


BIG = torch.full((3, 2), 1e30)
ODD: dict[str, Callable[[], dict[str, Any]]] = {
    "fewer anchors": lambda: {"anchors": torch.ones(3, 2), "labels": torch.arange(3)},
    "other anchors": lambda: {"anchors": torch.arange(8.0).reshape(4, 2).sin()},
    "float64": lambda: {"anchors": torch.arange(8.0).reshape(4, 2).cos().double()},
    "other width": lambda: {"anchors": torch.ones(4, 3), "own": torch.ones(3, 3)},
    "other labels": lambda: {"labels": torch.tensor([0, 1, 3, 2])},
    "targets over its own": lambda: {"labels": Targets.of_classes(torch.zeros(4).long(), 3)},
    "a label outside": lambda: {"labels": torch.tensor([0, 1, 2, 9])},
    "not finite": lambda: {"own": torch.full((3, 2), torch.nan)},
    "overflow": lambda: {"own": BIG, "rule": Custom(lambda a, c: (a * 1e30) @ c.T)},
    "another loss": lambda: {"loss": CrossEntropy()},
    "another temperature": lambda: {"loss": InfoNCE(0.7)},
    "an error in the scores": lambda: {"rule": Custom(raising)},
}


def refused_posing(name: str) -> tuple[str, float]:
    """The message of the error when the last rank is odd; then the value once it is not."""
    ranks = Ranks.of()
    message = ""
    try:
        posed(**(ODD[name]() if ranks.rank == ranks.size - 1 else {}))
    except (MarginsError, RuntimeError) as error:
        message = str(error)
    return message, float(posed())


def refused_for_all(name: str) -> str:
    """The message when every rank is wrong in the same way."""
    ranks = Ranks.of()
    too_many = Targets.of_classes(torch.arange(4), 3 * ranks.size + 1)
    source = factored(Dot(), torch.ones(4, 2), torch.ones(3, 2))
    calls: dict[str, Callable[[], Any]] = {
        "more targets": lambda: InfoNCE().evaluate(source, too_many, Sharded()),
        "targets for too many": lambda: posed(labels=too_many),
        "a label outside": lambda: posed(labels=torch.tensor([0, 1, 2, 3 * ranks.size])),
        "layers": lambda: InfoNCE().on_embeddings(
            torch.ones(2, 2), Targets.of_matches(torch.ones(2).long()).smooth(0.1), evaluator=Sharded()
        ),
    }
    try:
        calls[name]()
    except MarginsError as error:
        return str(error)
    return ""


def too_few_documents() -> str:
    """The message when the last rank has fewer documents than queries."""
    ranks = Ranks.of()
    short = ranks.rank == ranks.size - 1
    try:
        InfoNCE().on_pairs(torch.ones(3, 2), torch.ones(2 if short else 3, 2), evaluator=Sharded())
    except MarginsError as error:
        return str(error)
    return ""


def left_waiting(inside: bool) -> str:
    """The message when the last rank ends inside the scores, or is not there at all."""
    ranks = Ranks.of()
    last = ranks.rank == ranks.size - 1
    try:
        posed(rule=Custom(dying)) if inside and last else posed()
    except MarginsError as error:
        return str(error)
    return ""


def twice_sharded() -> str:
    """The error that a second derivative gives."""
    anchors = torch.arange(8.0).reshape(4, 2).cos().requires_grad_()
    value = posed(anchors=anchors)
    try:
        torch.autograd.grad(value, anchors, create_graph=True)
    except OnceDifferentiableError as error:
        return str(error)
    return ""


class HardestPair(StatisticsLoss):
    """The highest negative minus the lowest positive: extremes that pass a gradient."""

    def statistics(self) -> Mapping[str, Statistic]:
        return {"low": minimum("positives"), "high": maximum("negatives")}

    def row(self, z: Any) -> Tensor:
        return z.high - z.low


def tied_targets() -> Targets:
    weight = torch.rand(4, 6, generator=torch.Generator().manual_seed(3)) + 0.5
    return Targets.of_label_sets([[0, 1, 4], [1], [5, 2], [0, 3, 4, 5]], 6).weigh(entries=weight)


def tied(sizes: tuple[int, ...], sparse: bool) -> tuple[Tensor, Tensor]:
    """Rows, and the gradient of the scores of this rank's columns, many of them equal."""
    rank = Ranks.of().rank
    start = sum(sizes[:rank])
    scores = tied_scores()[:, start : start + sizes[rank]].requires_grad_()
    targets = tied_targets() if sparse else dense_of(tied_targets())
    rows = HardestPair().evaluate(ScoreMatrix(scores), targets, Sharded(Dense())).weighted()
    (rows @ torch.tensor([1.0, 2.0, -1.0, 0.5])).backward()
    assert scores.grad is not None
    return rows.detach(), scores.grad


def tied_scores() -> Tensor:
    return torch.tensor([[1.0, 1, 2, 2, 1, 2], [2, 0, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1], [0, 3, 3, 0, 0, 1]])


def dense_of(targets: Targets) -> Targets:
    weight = targets.weight_of(0, 6)
    assert weight is not None
    return Targets.of_scores(targets.grades(0, 6)).weigh(entries=weight)


def own_share(upstreams: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Gradients when each rank back-propagates the value times a number of its own."""
    anchors = torch.arange(8.0).reshape(4, 2).cos().requires_grad_()
    own = torch.ones(3, 2).mul(Ranks.of().rank + 1).requires_grad_()
    (posed(anchors=anchors, own=own) * upstreams[Ranks.of().rank]).backward()
    return anchors.grad, own.grad  # type: ignore[return-value]


def sharded_kinds_badly(*arguments: Any) -> Any:
    """The job of the law with a join that takes the largest part of a logsumexp for the whole."""
    from harness.sharded import sharded_kinds
    from margins.engine.across_ranks import sharded

    def wrong(ranks: Any, reduces: Any, *rest: Any) -> Any:
        return joining.Join(ranks, tuple("max" if r == "logsumexp" else r for r in reduces), *rest)

    right, sharded.Join = sharded.Join, wrong  # type: ignore[misc]
    try:
        return sharded_kinds(*arguments)
    finally:
        sharded.Join = right  # type: ignore[misc]


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        *(refused_posing, refused_for_all, too_few_documents, left_waiting, twice_sharded, tied, own_share),
        sharded_kinds_badly,
    )
}
