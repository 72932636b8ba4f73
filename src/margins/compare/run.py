"""`compare`: all recipes on the same folds and seeds, judged by rules fixed before."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from margins.compare.answer import answer_of
from margins.compare.classes import class_rows
from margins.compare.describe import copies_across_folds, encoder_sentence, protocol, versions
from margins.compare.design import Design, Spoiling, shared_recipe
from margins.compare.folding import mean_test_to_train
from margins.compare.judge import Judgement, judge
from margins.compare.results import ComparisonResult, RecipeResult, RunDescription
from margins.compare.trials import OnTrialDone, Trial, run_trials
from margins.data.frame import Frame
from margins.data.splits import outer_folds
from margins.errors import MarginsError
from margins.evaluation import find_metric
from margins.training import Preset, presets_for
from margins.training.presets import BASELINE
from margins.training.request import Roles


def compare(
    frame: Frame,
    metric: str = "macro_f1",
    *,
    roles: Roles | None = None,
    recipes: Sequence[str] | None = None,
    num_folds: int = 5,
    num_repeats: int = 1,
    num_seeds: int = 1,
    seed: int = 0,
    confidence: float = 0.95,
    training: Mapping[str, Any] | None = None,
    positive: str | None = None,
    spoiling: Spoiling | None = None,
    on_trial_done: OnTrialDone | None = None,
    tell: Callable[[str], None] | None = None,
) -> ComparisonResult:
    """Trains every recipe on the same outer folds and says which is best, and how sure that is.

    The same call on the same machine gives the same scores.

    Args:
        frame: the data, as `read_frame` gives them, with a target of classes.
        metric: name of the metric that judges, and that early stopping uses.
        roles: of columns, where the user says so; the rest is chosen as `choose_columns` does. Rows of a
            group stay in one fold and one role; row weights count in training and in the metric.
        recipes: names of those that take part; by default all that are meant for the metric. The baseline,
            plain cross-entropy, always does.
        num_folds: outer folds, at least 2; every class needs as many rows, or as many groups.
        num_repeats: of the whole division into folds. Small effects need several.
        num_seeds: trainings of a recipe on each fold; their scores are averaged.
        seed: of folds, first weights, dropout and order of rows.
        confidence: of intervals and verdicts.
        training: keys of the recipe that all objectives share which are not to have their defaults, nested as
            in YAML.
        positive: of two classes the one that is looked for; without it, ranking metrics take the rarer one.
        spoiling: a change of the rows outside each outer test fold, for experiments.
        on_trial_done: called after each training with (done, total, recipe, fold, seed).
        tell: called with a sentence for everything that is decided or odd, before the first training.

    Returns:
        scores, differences, verdicts and the answer in words.

    Raises:
        MarginsError: before any training: columns, a metric, recipe or positive class that cannot be used,
            too few folds or seeds, classes with too few rows or groups.

    Example:
        >>> from margins.data.reading import read_frame
        >>> sizes = np.random.default_rng(0).normal(size=60)
        >>> frame = read_frame({"size": sizes, "label": ["big" if size > 0 else "small" for size in sizes]})
        >>> result = compare(frame, recipes=["focal"], num_folds=3, training={"max_epochs": 2})
        >>> result.baseline, len(result.recipes), len(result.differences)
        ('cross_entropy', 2, 1)
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    measure = find_metric(metric, task="classes")
    _check_design(num_seeds, seed, confidence)
    rows = class_rows(frame, roles, positive=positive)
    folds = outer_folds(
        rows.labels, num_folds=num_folds, num_repeats=num_repeats, seed=seed, classes=rows.classes,
        groups=rows.groups,
    )  # fmt: skip
    design = Design(
        rows=rows,
        folds=folds,
        recipes=presets_for(measure, recipes),
        num_seeds=num_seeds,
        seed=seed,
        metric=measure,
        training=shared_recipe(rows, metric, training),
        spoiling=spoiling,
    )
    for recipe in design.recipes:
        design.training.changed(objective=recipe.objective)  # what does not go together is told now
    rules = protocol(design, changes=training or {}, positive=positive, confidence=confidence)
    trials = run_trials(design, on_trial_done, lambda: _tell([*rows.decided, *rows.notes], tell))
    result = _result(design, trials, rules, started, num_repeats=num_repeats, confidence=confidence)
    description = replace(result.description, seconds=time.perf_counter() - clock)
    return replace(result, description=description, answer=answer_of(result, measure))


def _result(
    design: Design,
    trials: Sequence[Trial],
    rules: list[str],
    started: datetime,
    *,
    num_repeats: int,
    confidence: float,
) -> ComparisonResult:
    """All that follows from the scores, but for the answer in words."""
    rows, folds = design.rows, design.folds
    by_fold = {recipe.name: _fold_scores(trials, recipe.name, len(folds)) for recipe in design.recipes}
    judgement = judge(
        by_fold, metric=design.metric, test_to_train=mean_test_to_train(folds), confidence=confidence
    )
    return ComparisonResult(
        description=_description(design, rules, started, num_repeats=num_repeats),
        recipes=_recipe_results(design.recipes, trials, judgement, len(folds)),
        differences=judgement.differences,
        baseline=BASELINE,
        confidence=confidence,
        detectable_difference=judgement.detectable_difference,
        answer="",
        warnings=[*rows.notes, *copies_across_folds(rows, folds), *judgement.warnings],
    )


def _tell(sentences: Sequence[str], tell: Callable[[str], None] | None) -> None:
    for sentence in sentences:
        if tell:
            tell(sentence)


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


def _description(design: Design, rules: list[str], started: datetime, *, num_repeats: int) -> RunDescription:
    rows = design.rows
    chance = design.metric.chance(rows.shares)
    return RunDescription(
        source=rows.frame.source,
        fingerprint=rows.frame.fingerprint,
        kind=", ".join(dict.fromkeys(rows.columns.inputs.values())),
        inputs=list(rows.columns.inputs),
        target=rows.columns.target or "",
        metric=design.metric.name,
        num_rows=len(rows),
        num_classes=len(rows.classes),
        class_counts=rows.class_counts,
        chance_level=chance if isfinite(chance) else None,
        num_folds=len(design.folds) // num_repeats,
        num_repeats=num_repeats,
        num_seeds=design.num_seeds,
        encoder=encoder_sentence(design.training, rows.columns),
        protocol=rules,
        versions=versions(),
        started=started.isoformat(timespec="seconds"),
        seconds=0.0,
    )
