"""The trials of a comparison: every recipe on the same outer folds, with the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from margins.compare.encoding import Encoding
from margins.data import OuterFold, ReportRows, SelectRows, TrainRows, train_and_select
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.training import Recipe, TrainingSettings, predict_proba, train

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
    recipes: Sequence[Recipe]
    num_seeds: int
    seed: int
    metric: Metric
    training: TrainingSettings
    spoiling: Spoiling | None = None


def run_trials(design: Design, on_trial_done: OnTrialDone | None = None) -> list[Trial]:
    """Runs fold by fold; within a fold all recipes get the same roles, first weights and order of rows.

    Args:
        design: what to run.
        on_trial_done: called after each trial with (done, total, recipe, fold, seed).
    """
    total = len(design.folds) * design.num_seeds * len(design.recipes)
    trials: list[Trial] = []
    with _one_thread():
        for place, fold in enumerate(design.folds):
            train_rows, select_rows = _roles(design, fold)
            for seed in range(design.num_seeds):
                for recipe in design.recipes:
                    trials.append(_trial(design, recipe, place, seed, train_rows, select_rows))
                    if on_trial_done:
                        on_trial_done(len(trials), total, recipe.name, place, seed)
    return trials


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    """Steps of models this small are slower on several threads, many times so on a busy machine.

    It also makes scores independent of the number of cores. The caller's setting is put back.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    inputs = design.encoding.inputs
    return (
        TrainRows(inputs.take(torch.from_numpy(rows[train_at])), torch.from_numpy(labels[train_at])),
        SelectRows(inputs.take(torch.from_numpy(rows[select_at])), torch.from_numpy(labels[select_at])),
    )


def _trial(
    design: Design, recipe: Recipe, place: int, seed: int, train_rows: TrainRows, select_rows: SelectRows
) -> Trial:
    fold = design.folds[place]
    # The recipe is not among the numbers that seed: all recipes start alike and see rows in one order.
    draws = np.random.SeedSequence([design.seed, fold.repeat, fold.fold, seed]).generate_state(2)
    model_draws, order_draws = (torch.Generator().manual_seed(int(d)) for d in draws)
    model = design.encoding.new_model(design.num_classes, model_draws)
    counts = torch.bincount(train_rows.labels, minlength=design.num_classes)
    fitted = train(
        model,
        recipe.objective(counts),
        train_rows,
        select_rows,
        metric=design.metric,
        settings=design.training,
        generator=order_draws,
    )
    test = torch.from_numpy(fold.test)
    report = ReportRows(design.encoding.inputs.take(test), torch.from_numpy(design.labels[fold.test]))
    inputs, labels = report.open()
    score = design.metric(predict_proba(model, inputs), labels.numpy())
    return Trial(
        recipe=recipe.name, fold=place, seed=seed, score=score, epoch=fitted.epoch, seconds=fitted.seconds
    )
