"""The trials of a comparison: every recipe on the same outer folds, with the same seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from margins.compare.design import Design
from margins.compare.folding import InputsOf, PreparedFold, prepared_folds
from margins.data.roles import ReportRows, SelectRows, TrainRows
from margins.training import Network, Preset, Trainer
from margins.training.machine import one_cpu, threads, threads_for
from margins.training.predicting import measured, outputs_of

OnTrialDone = Callable[[int, int, str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run and the one score of its outer test fold."""

    recipe: str
    fold: int  # place in the list of outer folds, over all repeats
    seed: int
    score: float
    epoch: int
    seconds: float


def run_trials(
    design: Design, on_trial_done: OnTrialDone | None = None, on_ready: Callable[[], None] | None = None
) -> list[Trial]:
    """Runs fold by fold; within a fold all recipes get the same roles, first weights and order of rows.

    Args:
        design: what to run.
        on_trial_done: called after each trial with (done, total, recipe, fold, seed).
        on_ready: called once, when all checks are passed and the first trial is to begin.

    Raises:
        MarginsError: before the first trial: rows that cannot be divided, prepared or measured.
    """
    total = len(design.folds) * design.num_seeds * len(design.recipes)
    trials: list[Trial] = []
    # Where steps are small, one thread is faster and makes scores independent of the number of cores.
    with threads(threads_for(design.training.encoder.name)):
        inputs_of = InputsOf(design.rows.input_frame())
        folds = prepared_folds(design, inputs_of)
        if on_ready:
            on_ready()
        for place, fold in enumerate(folds):
            fitting = fold.fitting(inputs_of(fold.preparation))
            for seed in range(design.num_seeds):
                for recipe in design.recipes:
                    report = fold.report(inputs_of(fold.preparation))
                    trials.append(_trial(design, recipe, place, seed, fold, fitting, report))
                    if on_trial_done:
                        on_trial_done(len(trials), total, recipe.name, place, seed)
    return trials


def _trial(
    design: Design,
    preset: Preset,
    place: int,
    seed: int,
    fold: PreparedFold,
    fitting: tuple[TrainRows, SelectRows],
    report: ReportRows,
) -> Trial:
    outer = design.folds[place]
    # The objective is not among the numbers that seed: all start alike and see rows in one order.
    draws = np.random.SeedSequence([design.seed, outer.repeat, outer.fold, seed]).generate_state(2)
    recipe = design.training.changed(objective=preset.objective, seed=int(draws[1] >> 1))
    generator = torch.Generator().manual_seed(int(draws[0]))
    encoder = recipe.encoder.build(fold.preparation, generator=generator)
    head = recipe.head.build(encoder.width, len(design.rows.classes), generator=generator)
    network = Network(encoder, head)
    fabric = one_cpu(recipe.precision)
    fitted = Trainer(recipe, network, *fitting, generator=generator, fabric=fabric).run()
    inputs, targets = report.open()
    score = measured(design.metric, "classes", outputs_of(fabric, network, inputs)[0], targets)
    return Trial(
        recipe=preset.name, fold=place, seed=seed, score=score, epoch=fitted.epoch, seconds=fitted.seconds
    )
