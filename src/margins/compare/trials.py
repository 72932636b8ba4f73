"""The trials of a comparison: every recipe on the same outer folds, with the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from margins.compare.encoding import Encoding
from margins.data import OuterFold, ReportRows, RowInputs, SelectRows, TrainRows, train_and_select
from margins.data.roles import class_ids
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.targets import Targets
from margins.training import Preset, Recipe, Trainer
from margins.training.machine import one_cpu, threads
from margins.training.predicting import outputs_of, probabilities_of

Ints = npt.NDArray[np.int64]
OnTrialDone = Callable[[int, int, str, int, int], None]

SELECT_SHARE = 0.2


@dataclass(frozen=True)
class Spoiling:
    """A change of the rows outside each outer test fold: an experiment on data made worse on purpose.

    Args:
        change: takes row numbers, their labels and a generator; gives the row numbers kept and their labels.
        sentence: what it does, for the protocol.
    """

    change: Callable[[Ints, Ints, np.random.Generator], tuple[Ints, Ints]]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run and the one score of its outer test fold."""

    recipe: str
    fold: int  # place in the list of outer folds, over all repeats
    seed: int
    score: float
    epoch: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Design:
    """All that trials share."""

    encoding: Encoding
    labels: Ints
    num_classes: int
    folds: Sequence[OuterFold]
    recipes: Sequence[Preset]
    num_seeds: int
    seed: int
    metric: Metric
    training: Recipe
    spoiling: Spoiling | None = None


def run_trials(design: Design, on_trial_done: OnTrialDone | None = None) -> list[Trial]:
    """Runs fold by fold; within a fold all recipes get the same roles, first weights and order of rows.

    Args:
        design: what to run.
        on_trial_done: called after each trial with (done, total, recipe, fold, seed).
    """
    total = len(design.folds) * design.num_seeds * len(design.recipes)
    trials: list[Trial] = []
    # Steps of models this small are slower on several threads, many times so on a busy machine. One also makes
    # scores independent of the number of cores.
    with threads(1):
        for place, fold in enumerate(design.folds):
            train_rows, select_rows = _roles(design, fold)
            for seed in range(design.num_seeds):
                for recipe in design.recipes:
                    trials.append(_trial(design, recipe, place, seed, train_rows, select_rows))
                    if on_trial_done:
                        on_trial_done(len(trials), total, recipe.name, place, seed)
    return trials


def _roles(design: Design, fold: OuterFold) -> tuple[TrainRows, SelectRows]:
    draws = np.random.default_rng([design.seed, fold.repeat, fold.fold])
    rows, labels = fold.outside, design.labels[fold.outside]
    if design.spoiling:
        rows, labels = design.spoiling.change(rows, labels, draws)
        if not set(rows.tolist()) <= set(fold.outside.tolist()):
            raise MarginsError(
                "spoiling", expected="rows from outside the outer test fold", received="rows of the test fold"
            )
    train_at, select_at = train_and_select(labels, select_share=SELECT_SHARE, generator=draws)

    def part(at: Ints) -> tuple[RowInputs, Targets, torch.Tensor]:
        here = torch.from_numpy(rows[at])
        return design.encoding.inputs.take(here), _targets(design, labels[at]), here

    return TrainRows(*part(train_at)), SelectRows(*part(select_at))


def _targets(design: Design, labels: Ints) -> Targets:
    return Targets.of_classes(torch.from_numpy(labels), design.num_classes)


def _trial(
    design: Design, preset: Preset, place: int, seed: int, train_rows: TrainRows, select_rows: SelectRows
) -> Trial:
    fold = design.folds[place]
    # The objective is not among the numbers that seed: all start alike and see rows in one order.
    draws = np.random.SeedSequence([design.seed, fold.repeat, fold.fold, seed]).generate_state(2)
    recipe = design.training.changed(objective=preset.objective, seed=int(draws[1] >> 1))
    generator = torch.Generator().manual_seed(int(draws[0]))
    model = design.encoding.new_model(design.num_classes, generator)
    fabric = one_cpu()
    fitted = Trainer(recipe, model, train_rows, select_rows, generator=generator, fabric=fabric).run()
    test = torch.from_numpy(fold.test)
    report = ReportRows(design.encoding.inputs.take(test), _targets(design, design.labels[fold.test]))
    inputs, targets = report.open()
    probabilities = probabilities_of(outputs_of(fabric, model, inputs)[0])
    score = design.metric(probabilities, class_ids(targets).numpy())
    return Trial(
        recipe=preset.name, fold=place, seed=seed, score=score, epoch=fitted.epoch, seconds=fitted.seconds
    )
