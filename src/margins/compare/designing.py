"""From what a user asks to all that is fixed before a comparison runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from margins.compare.candidates.candidate import Candidate
from margins.compare.candidates.shortlist import findings_of, shortlist
from margins.compare.planning import Design, shared_recipe, task_of
from margins.compare.problem.folding import Spoiling, last_roles, outer_roles
from margins.compare.problem.rows import compared_rows
from margins.compare.trials.budget import Budget
from margins.data.frame import Frame
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.training.predicting import metric_of
from margins.training.request import Roles

ROPE = 0.01  # of metrics between 0 and 1
Rope = float | Literal["auto"] | None


def designed(
    frame: Frame,
    metric: str,
    *,
    roles: Roles | None = None,
    candidates: Sequence[str | Candidate] | None = None,
    num_folds: int = 5,
    num_repeats: int = 1,
    num_seeds: int = 1,
    budget: str = "quick",
    seed: int = 0,
    confidence: float = 0.95,
    rope: Rope = "auto",
    report_share: float = 0.15,
    training: Mapping[str, Any] | None = None,
    positive: str | None = None,
    spoiling: Spoiling | None = None,
) -> Design:
    """The design of a comparison; for the arguments see `margins.compare.compare`.

    Raises:
        MarginsError: columns, a metric, recipe or positive class that cannot be used, too few rows, folds or
            seeds.
    """
    _check_numbers(num_seeds, seed, confidence)
    rows = compared_rows(frame, roles, positive=positive, report_share=report_share, seed=seed)
    task = task_of(rows.columns, training)
    measure = metric_of(task, metric)
    shared = shared_recipe(rows.columns, metric, training, num_rows=len(rows))
    listed = shortlist(findings_of(rows, shared), measure, candidates)
    return Design(
        rows=rows,
        folds=outer_roles(
            rows, num_folds=num_folds, num_repeats=num_repeats, seed=seed, spoiling=spoiling
        ),
        last=last_roles(rows, seed=seed, spoiling=spoiling),
        num_repeats=num_repeats,
        candidates=listed.candidates,
        num_seeds=num_seeds,
        seed=seed,
        metric=measure,
        training=shared,
        budget=Budget.read(budget),
        rope=_rope_of(rope, measure),
        confidence=confidence,
        positive=positive,
        spoiling=spoiling,
        changes=training or {},
        left_out=listed.left_out,
    )  # fmt: skip


def _rope_of(rope: Rope, metric: Metric) -> float | None:
    if rope == "auto":
        return ROPE if metric.kind in ("f1", "accuracy", "ranking", "candidates") else None
    if rope is not None and not 0 <= rope < float("inf"):
        raise MarginsError("rope", expected="a number that is not negative", received=str(rope))
    return rope


def _check_numbers(num_seeds: int, seed: int, confidence: float) -> None:
    if num_seeds < 1:
        raise MarginsError("seeds", expected="at least 1", received=str(num_seeds))
    if seed < 0:
        raise MarginsError("seed", expected="a number that is not negative", received=str(seed))
    if not 0 < confidence < 1:
        raise MarginsError("confidence", expected="a number in (0, 1)", received=str(confidence))
