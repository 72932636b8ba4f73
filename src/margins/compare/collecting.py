"""From what was trained to the results of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from margins.compare.candidates.candidate import Candidate
from margins.compare.describe import encoder_sentence, versions
from margins.compare.judge import Judgement
from margins.compare.planning import Design
from margins.compare.results import FailedRecipe, RecipeResult, RunDescription
from margins.compare.trials.searching import Judged, RecipeFailedError
from margins.errors import MarginsError

Floats = npt.NDArray[np.float64]
ByFold = dict[str, list[Judged]]


def sorted_out(
    design: Design, results: Mapping[tuple[str, int], Judged | RecipeFailedError]
) -> tuple[ByFold, list[FailedRecipe]]:
    """The recipes that were judged on every fold, and those that were not.

    Args:
        design: of the comparison.
        results: by name and fold.

    Raises:
        MarginsError: the baseline failed, or nobody is left to compare with it.
    """
    judged: ByFold = {}
    failed: list[FailedRecipe] = []
    for candidate in design.candidates:
        own = [results[candidate.name, fold] for fold in range(len(design.folds))]
        errors = [str(one) for one in own if isinstance(one, RecipeFailedError)]
        if errors:
            failed.append(
                FailedRecipe(
                    name=candidate.name, title=candidate.title, num_failed=len(errors), num_folds=len(own),
                    error=" ".join(errors[0].split()),
                )
            )  # fmt: skip
        else:
            judged[candidate.name] = [one for one in own if isinstance(one, Judged)]
    if design.baseline.name not in judged:
        raise failed_baseline(design, failed[0].error)
    if len(judged) < 2:
        listed = "; ".join(f"{f.name}: {f.error}" for f in failed)
        raise MarginsError(
            "recipes", expected="one beside the baseline that can be trained on every fold", received=listed
        )
    return judged, failed


def failed_baseline(design: Design, error: str) -> MarginsError:
    """The error for a baseline that cannot be trained: nothing can be compared with it."""
    return MarginsError(
        f"recipe {design.baseline.name}", expected="a baseline that can be trained on every fold",
        received=" ".join(error.split()), fix="the other recipes cannot be judged without it",
    )  # fmt: skip


def fold_scores(design: Design, judged: ByFold) -> dict[str, Floats]:
    """Name to [J] scores, averaged over the seeds of each fold."""
    metric = design.metric.name
    return {name: np.array([one.score(metric) for one in own], np.float64) for name, own in judged.items()}


def recipe_results(
    design: Design, judged: ByFold, judgement: Judgement, prior: Mapping[str, list[str]]
) -> list[RecipeResult]:
    """One a recipe, best mean first."""
    by_name = {candidate.name: candidate for candidate in design.candidates}
    scores = fold_scores(design, judged)
    return [
        _recipe_result(design, by_name[name], judged[name], scores[name], judgement.ranks[name], prior)
        for name in judgement.order
    ]


def _recipe_result(
    design: Design,
    candidate: Candidate,
    own: Sequence[Judged],
    scores: Floats,
    ranks: tuple[int, int],
    prior: Mapping[str, list[str]],
) -> RecipeResult:
    outcomes = [outcome for one in own for outcome in one.outcomes]
    peaks = [one.peak_bytes for one in own if one.peak_bytes is not None]
    is_searched = design.budget.trials > 1
    return RecipeResult(
        name=candidate.name, title=candidate.title, why=candidate.why, settings=candidate.settings,
        fold_scores=scores.tolist(), mean=float(scores.mean()), seed_spread=_seed_spread(design, own),
        rank=ranks[0], rank_low=ranks[1], epochs=fmean(outcome["epoch"] for outcome in outcomes),
        seconds=sum(one.seconds for one in own), row_visits=sum(one.row_visits for one in own),
        peak_bytes=max(peaks, default=None),
        space={k: v.model_dump() for k, v in candidate.whole_space.items()} if is_searched else {},
        found=[one.values for one in own] if is_searched else [], prior=list(prior.get(candidate.name, [])),
        calibration=_calibration(outcomes),
    )  # fmt: skip


def _seed_spread(design: Design, own: Sequence[Judged]) -> float | None:
    if design.num_seeds == 1:
        return None
    metric = design.metric.name
    return fmean(stdev(outcome["test"][metric] for outcome in one.outcomes) for one in own)


def _calibration(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the rows of outer folds, before and after, averaged over trainings."""
    each = [o["calibration"]["report"] for o in outcomes if o.get("calibration")]
    if len(each) < len(outcomes):
        return {}
    return {
        when: {name: fmean(one[when][name] for one in each) for name in each[0][when]}
        for when in ("before", "after")
    }


def description_of(design: Design, rules: list[str], *, started: str, seconds: float) -> RunDescription:
    """What was compared, on what, how."""
    rows, counts = design.rows, design.rows.counts
    chance = design.metric.chance(counts / counts.sum()) if design.training.task == "classes" else np.nan
    return RunDescription(
        source=rows.frame.source,
        fingerprint=rows.frame.fingerprint,
        kind=", ".join(dict.fromkeys(rows.columns.inputs.values())),
        inputs=list(rows.columns.inputs),
        target=rows.columns.target or "",
        metric=design.metric.name,
        num_rows=len(rows),
        num_classes=len(rows.class_counts),
        class_counts=rows.class_counts,
        chance_level=float(chance) if isfinite(chance) else None,
        num_folds=design.num_folds,
        num_repeats=design.num_repeats,
        num_seeds=design.num_seeds,
        encoder=encoder_sentence(design.training, rows.columns),
        protocol=rules,
        versions=versions(),
        started=started,
        seconds=seconds,
        task=design.training.task,
        num_report=len(rows.report),
        budget=design.budget.name,
    )
