"""The spherical evaluator: statistics of all scores from W'W and the column sums of W."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from margins.engine.evaluators import Evaluator, Pass
from margins.engine.sources import Source
from margins.engine.spherical.source import SphericalSource
from margins.engine.statistics import Program, Repeat, Statistic, scores, squares
from margins.errors import MarginsError
from margins.targets import Targets

_KINDS = "z_loss, squared_error, spherical_softmax and taylor_softmax"


@dataclass(frozen=True)
class Spherical(Evaluator):
    """Exact sums of scores and of their squares, without the scores: for a spherical layer.

    The cost of a row does not depend on the number of classes. Which losses it takes follows from their
    statistics; see `refusal_of`.
    """

    def check(self, name: str, program: Program, source: Source, targets: Targets) -> None:
        """Raises MarginsError for a loss, scores or targets that it cannot be exact for."""
        why = refusal_of(program)
        if why:
            raise MarginsError(
                "loss",
                expected=f"a loss of sums of scores and of their squares ({_KINDS}) for a spherical head",
                received=f"{name}: {why}", fix="use one of these, or a plain head with another evaluator",
            )  # fmt: skip
        if not isinstance(source, SphericalSource):
            raise MarginsError(
                "evaluator", expected="the source of a spherical head for the spherical evaluator",
                received=type(source).__name__, fix="loss.on_source(head.source(embeddings), targets)",
            )  # fmt: skip
        odd = refused_targets(targets)
        if odd:
            raise MarginsError(
                "targets",
                expected="class ids or label sets, with weights of rows at most, for a spherical head",
                received=f"{targets!r}: {odd}",
            )  # fmt: skip

    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Float[Tensor, " anchors"]]:
        """Sums of the scores and of their squares."""
        source = here.source
        assert isinstance(source, SphericalSource)  # noqa: S101  (checked before)
        sums, of_squares = source.moments()
        return [sums if s.phi is scores else of_squares for s in statistics]


def refusal_of(program: Program) -> str:
    """Why a loss of this program cannot run under the spherical evaluator; empty when it can.

    It can when every statistic is a sum over all entries of `statistics.scores` or `statistics.squares`,
    or is over listed entries alone (positives, targets).
    """
    stages = [s for step in program for s in (step.stages if isinstance(step, Repeat) else (step,))]
    for name, statistic in [pair for stage in stages for pair in stage.statistics.items()]:
        if statistic.over in ("positives", "targets"):
            continue
        if statistic.reduce != "sum":
            return f"its {name} is a {statistic.reduce}, which needs every score"
        if statistic.over != "all" or statistic.keep is not None:
            return f"its {name} is over {statistic.over} kept or left out by score, not over all entries"
        if statistic.phi not in (scores, squares):
            return f"its {name} is a sum of a function that needs every score"
    return ""


def refused_targets(targets: Targets) -> str:
    """Why these targets would need every score; empty when they do not."""
    if targets.is_smoothed:
        return "smoothing gives every class a share"
    if not targets.is_sparse:
        return "their grades are held for every class"
    if targets.known(0, 0) is not None:
        return "some entries are unknown or weigh otherwise"
    if targets.weight_of(0, 0) is not None:
        return "entries weigh differently"
    if targets.margin_of(0, 0) is not None:
        return "margins change every score"
    return ""
