"""`compare`: all recipes on the same folds and seeds, judged by rules fixed before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import fmean

import numpy as np
import numpy.typing as npt

from margins.compare.answer import answer_of
from margins.compare.describe import copies_across_folds, protocol, versions
from margins.compare.encoding import default_training, encoding_of
from margins.compare.judge import Judgement, judge
from margins.compare.results import ComparisonResult, RecipeResult, RunDescription
from margins.compare.trials import Design, OnTrialDone, Spoiling, Trial, run_trials
from margins.data import Table, outer_folds
from margins.errors import MarginsError
from margins.evaluation import find_metric
from margins.training import Preset, Recipe, presets_for
from margins.training.presets import BASELINE


def compare(
    table: Table,
    metric: str = "macro_f1",
    *,
    recipes: Sequence[str] | None = None,
    num_folds: int = 5,
    num_repeats: int = 1,
    num_seeds: int = 1,
    seed: int = 0,
    confidence: float = 0.95,
    training: Recipe | None = None,
    spoiling: Spoiling | None = None,
    on_trial_done: OnTrialDone | None = None,
) -> ComparisonResult:
    """Trains every recipe on the same outer folds and says which is best, and how sure that is.

    The same call on the same machine gives the same scores.

    Args:
        table: the data.
        metric: name of the metric that judges, and that early stopping uses.
        recipes: names of those that take part; by default all that are meant for the metric. The baseline,
            plain cross-entropy, always does.
        num_folds: outer folds, at least 2; every class needs as many rows.
        num_repeats: of the whole division into folds. Small effects need several.
        num_seeds: trainings of a recipe on each fold; their scores are averaged.
        seed: of folds, first weights, dropout and order of rows.
        confidence: of intervals and verdicts.
        training: how every objective is trained: a recipe whose objective is replaced in turn; by default
            `default_training(table)`.
        spoiling: a change of the rows outside each outer test fold, for experiments.
        on_trial_done: called after each training with (done, total, recipe, fold, seed).

    Returns:
        scores, differences, verdicts and the answer in words.

    Raises:
        MarginsError: an unknown metric or recipe, too few folds or seeds, classes with too few rows.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    measure = find_metric(metric)
    _check_design(num_seeds, seed, confidence)
    folds = outer_folds(
        table.labels, num_folds=num_folds, num_repeats=num_repeats, seed=seed, classes=table.classes
    )
    design = Design(
        encoding=encoding_of(table),
        labels=table.labels,
        num_classes=len(table.classes),
        folds=folds,
        recipes=presets_for(measure, recipes),
        num_seeds=num_seeds,
        seed=seed,
        metric=measure,
        training=(training or default_training(table)).changed(metric=metric),
        spoiling=spoiling,
    )
    trials = run_trials(design, on_trial_done)
    by_fold = {recipe.name: _fold_scores(trials, recipe.name, len(folds)) for recipe in design.recipes}
    # All rows outside, also where spoiling drops some: unused rows only lessen the overlap of training rows.
    test_to_train = float(np.mean([len(fold.test) / len(fold.outside) for fold in folds]))
    judgement = judge(by_fold, metric=measure, test_to_train=test_to_train, confidence=confidence)
    result = ComparisonResult(
        description=_description(table, design, started, confidence=confidence, num_repeats=num_repeats),
        recipes=_recipe_results(design.recipes, trials, judgement, len(folds)),
        differences=judgement.differences,
        baseline=BASELINE,
        confidence=confidence,
        detectable_difference=judgement.detectable_difference,
        answer="",
        warnings=[*table.warnings, *copies_across_folds(table, folds), *judgement.warnings],
    )
    description = replace(result.description, seconds=time.perf_counter() - clock)
    return replace(result, description=description, answer=answer_of(result, measure))


def _check_design(num_seeds: int, seed: int, confidence: float) -> None:
    if num_seeds < 1:
        raise MarginsError("seeds", expected="at least 1", received=str(num_seeds))
    if seed < 0:
        raise MarginsError("seed", expected="a number that is not negative", received=str(seed))
    if not 0 < confidence < 1:
        raise MarginsError("confidence", expected="a number in (0, 1)", received=str(confidence))


def _fold_scores(trials: Sequence[Trial], recipe: str, num_folds: int) -> npt.NDArray[np.float64]:
    """[J] scores, averaged over the seeds of each fold."""
    of_folds = [
        [t.score for t in trials if t.recipe == recipe and t.fold == fold] for fold in range(num_folds)
    ]
    return np.array([fmean(scores) for scores in of_folds], np.float64)


def _recipe_results(
    recipes: Sequence[Preset], trials: Sequence[Trial], judgement: Judgement, num_folds: int
) -> list[RecipeResult]:
    by_name = {recipe.name: recipe for recipe in recipes}
    results: list[RecipeResult] = []
    for name in judgement.order:
        own = [t for t in trials if t.recipe == name]
        scores = _fold_scores(trials, name, num_folds)
        results.append(
            RecipeResult(
                name=name,
                title=by_name[name].title,
                why=by_name[name].why,
                settings=by_name[name].settings,
                fold_scores=scores.tolist(),
                mean=float(scores.mean()),
                seed_spread=_seed_spread(own, num_folds),
                rank=judgement.ranks[name],
                epochs=float(np.mean([t.epoch for t in own])),
                seconds=sum(t.seconds for t in own),
            )
        )
    return results


def _seed_spread(trials: Sequence[Trial], num_folds: int) -> float | None:
    if len(trials) == num_folds:
        return None
    of_folds = [[t.score for t in trials if t.fold == fold] for fold in range(num_folds)]
    return float(np.mean([np.std(scores, ddof=1) for scores in of_folds]))


def _description(
    table: Table, design: Design, started: datetime, *, confidence: float, num_repeats: int
) -> RunDescription:
    counts = table.class_counts
    shares = np.array(list(counts.values())) / len(table)
    return RunDescription(
        source=table.source,
        source_sha256=table.source_sha256,
        task=table.task,
        inputs=table.inputs,
        target=table.target,
        metric=design.metric.name,
        num_rows=len(table),
        num_classes=len(table.classes),
        class_counts=counts,
        chance_level=design.metric.chance(shares),
        num_folds=len(design.folds) // num_repeats,
        num_repeats=num_repeats,
        num_seeds=design.num_seeds,
        encoder=design.encoding.sentence,
        protocol=protocol(design, confidence=confidence),
        versions=versions(),
        started=started.isoformat(timespec="seconds"),
        seconds=0.0,
    )
