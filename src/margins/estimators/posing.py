"""From merged rows to a problem: who trains, who chooses, and how a target is coded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from margins.data.class_coding import ClassCoding
from margins.data.coding import TargetCoding
from margins.data.columns import Columns, TargetKind
from margins.data.dividing import Division
from margins.data.strata import strata_of
from margins.data.value_coding import ValueCoding
from margins.errors import MarginsError
from margins.estimators.merging import MergedRows
from margins.targets import Targets
from margins.training.problem import Problem
from margins.training.recipe import Task

Ints = npt.NDArray[np.int64]

LEAST_SELECT = 10
"""Fewer rows than these choose an epoch worse than none does."""

_ROWS_AN_EPOCH = 2560  # twenty steps of the largest default batch
_TARGET_KINDS: dict[Task, TargetKind] = {"classes": "label", "matches": "label", "values": "value"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an estimator asks of a problem.

    Args:
        task: what is predicted.
        select_share: of the different rows, in [0, 1); 0 trains without early stopping.
        seed: of the division.
    """

    task: Task
    select_share: float
    seed: int


def posed(rows: MergedRows, coding: Callable[[Any], TargetCoding], asked: Asked) -> tuple[Problem, list[str]]:
    """A problem with training and select rows, without report rows.

    Args:
        rows: different ones.
        coding: fits the coding of the target on rows, given as their numbers.
        asked: the rest.

    Returns:
        the problem, and a sentence for everything that was decided.

    Raises:
        MarginsError: a share out of range.
    """
    if not 0 <= asked.select_share < 1:
        raise MarginsError("select_share", expected="a share in [0, 1)", received=str(asked.select_share))
    everyone = np.arange(len(rows), dtype=np.int64)
    # Division by quantiles asks for the values only, not for their unit.
    targets = coding(everyone).targets(rows.target)
    train, select, told = _divided(rows, targets, asked)
    fitted = coding(train)
    targets = _weighed(fitted.targets(rows.target), rows)
    again = _repeats(rows, len(train)) if asked.task != "matches" else 1
    if again > 1:
        told.append(f"Rows repeat: {len(rows)} are different, and an epoch sees each {again} times.")
    division = Division(np.tile(train, again), select, everyone[:0], told)
    columns = Columns(inputs=rows.kinds, target=_free_name(rows), target_kind=_TARGET_KINDS[asked.task])
    return Problem(rows.frame, columns, fitted, division, targets), [*told, *fitted.notes]


def class_coding(rows: MergedRows) -> Callable[[Any], ClassCoding]:
    """The coding of classes, which are collected over all rows."""
    return lambda _: ClassCoding.fit(rows.target)


def value_coding(rows: MergedRows) -> Callable[[Ints], ValueCoding]:
    """The coding of values by the weighted mean and deviation of the training rows.

    The same number in every row is coded as zero, so that a fold of a constant target can be predicted.
    """
    values = np.array(rows.target.to_numpy(), dtype=np.float64)

    def coding(train: Ints) -> ValueCoding:
        mean = float(np.average(values[train], weights=rows.weight[train]))
        spread = np.average(np.square(values[train] - mean), weights=rows.weight[train])
        deviation = float(np.sqrt(spread))
        if deviation > 1e-12 * float(np.abs(values[train]).max()):
            return ValueCoding(rows.target.name, mean, deviation)
        note = "The target is the same number in every training row; so is what is predicted."
        return ValueCoding(rows.target.name, mean, 1.0, (note,))

    return coding


def _divided(rows: MergedRows, targets: Targets, asked: Asked) -> tuple[Ints, Ints, list[str]]:
    share = asked.select_share
    roles = strata_of(targets, len(rows)).drawn((1 - share, share, 0.0), np.random.default_rng(asked.seed))
    roles[_lone_gaps(rows, roles == 0)] = 0
    train, select = np.flatnonzero(roles == 0), np.flatnonzero(roles == 1)
    lack = _lack(targets, select, asked)
    if lack is None:
        return train, select, [f"{len(train)} different rows train, {len(select)} choose the epoch."]
    told = f"Trained for all epochs without early stopping or calibration: {lack}."
    return np.arange(len(rows), dtype=np.int64), select[:0], [told]


def _lack(targets: Targets, select: Ints, asked: Asked) -> str | None:
    """Why these rows cannot choose; None when they can."""
    if asked.select_share == 0:
        return "select_share is 0"
    if len(select) < LEAST_SELECT:
        return f"only {len(select)} rows are left to choose with, fewer than {LEAST_SELECT}"
    if asked.task == "values":
        return None
    counts = np.bincount(targets.positives().columns.numpy()[select], minlength=targets.num_candidates)
    if (counts > 0).sum() < 2:
        return "no two classes have enough rows to choose with"
    if asked.task == "matches" and counts.max() < 2:
        return "no class has two rows to choose with"
    return None


def _lone_gaps(rows: MergedRows, is_train: npt.NDArray[np.bool_]) -> Any:
    """Rows with a gap in a column that has none in training: they have to train, or none may have gaps."""
    moved = np.zeros(len(rows), dtype=bool)
    for name, kind in rows.kinds.items():
        if kind == "numeric":
            cells = rows.frame.table[name]
            floats = cells.cast(float).fill_null(float("nan"))
            gaps = np.isnan(floats.to_numpy())
            if not (gaps & is_train).any():
                moved |= gaps
    return moved


def _weighed(targets: Targets, rows: MergedRows) -> Targets:
    if (rows.weight == rows.weight[0]).all():
        return targets
    return targets.weigh(rows=torch.from_numpy(rows.weight / rows.weight.mean()).float())


def _repeats(rows: MergedRows, num_train: int) -> int:
    """How often an epoch sees each training row: as often as a row stands on average, if they are few.

    Many copies of few rows would otherwise train for few steps.
    """
    return max(1, min(round(float(rows.weight.mean())), _ROWS_AN_EPOCH // num_train))


def _free_name(rows: MergedRows) -> str:
    name = rows.target.name
    while name in rows.kinds:
        name += "_"
    return name
