"""Every outer fold made ready before anything is trained, so that what cannot be used is told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from margins.compare.design import SELECT_SHARE, Design
from margins.data.frame import Frame
from margins.data.roles import ReportRows, RowInputs, SelectRows, TrainRows
from margins.data.splits import OuterFold, train_and_select
from margins.encoders import Preparation
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.predicting import measured

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedFold:
    """An outer fold with its roles.

    Args:
        train: numbers of the rows that train.
        select: of those that choose the epoch.
        test: of those that judge.
        targets: of the rows of each of these three roles, as they are seen there.
        preparation: columns to inputs, fitted on the training rows alone.
    """

    train: Ints
    select: Ints
    test: Ints
    targets: tuple[Targets, Targets, Targets]
    preparation: Preparation

    def fitting(self, inputs: RowInputs) -> tuple[TrainRows, SelectRows]:
        """The rows that train and select, from the inputs of all rows."""
        train, select = torch.from_numpy(self.train), torch.from_numpy(self.select)
        return (
            TrainRows(inputs.take(train), self.targets[0], train),
            SelectRows(inputs.take(select), self.targets[1], select),
        )

    def report(self, inputs: RowInputs) -> ReportRows:
        """The rows that judge, unopened."""
        return ReportRows(inputs.take(torch.from_numpy(self.test)), self.targets[2])


class InputsOf:
    """The inputs of all rows; made anew only when the preparation is another one than last time.

    Args:
        frame: all rows with the columns that a model sees.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._preparation: Preparation | None = None
        self._inputs: Any = None

    def __call__(self, preparation: Preparation) -> RowInputs:
        """The inputs as this preparation makes them."""
        if preparation is not self._preparation:
            self._inputs = None  # two at once may not fit
            self._inputs, self._preparation = preparation(self._frame), preparation
        return self._inputs


def prepared_folds(design: Design, inputs_of: InputsOf) -> list[PreparedFold]:
    """All outer folds of a design with roles, targets and preparations.

    Preparations in the same state are one object: what fits nothing, or comes out alike, is done once for
    all folds.

    Raises:
        MarginsError: rows that cannot be divided, prepared, or measured by the metric.
    """
    known: list[tuple[dict[str, Any], Preparation]] = []
    return [_prepared(design, place, fold, known, inputs_of) for place, fold in enumerate(design.folds)]


def _prepared(
    design: Design,
    place: int,
    fold: OuterFold,
    known: list[tuple[dict[str, Any], Preparation]],
    inputs_of: InputsOf,
) -> PreparedFold:
    data = design.rows
    rows, labels, train_at, select_at = _divided(design, fold)
    targets = (
        data.targets(rows[train_at], labels[train_at]),
        data.targets(rows[select_at], labels[select_at]),
        data.targets(fold.test),
    )
    for name, own in zip(("select", "test"), targets[1:], strict=True):
        _check_measurable(design, own, f"{name} rows of outer fold {place + 1}")
    training_frame = data.input_frame().take(torch.from_numpy(rows[train_at]))
    fitted = design.training.encoder.prepare(training_frame, data.columns.inputs)
    preparation = _one_of(fitted, known)
    inputs_of(preparation)
    return PreparedFold(
        train=rows[train_at],
        select=rows[select_at],
        test=fold.test,
        targets=targets,
        preparation=preparation,
    )


def _divided(design: Design, fold: OuterFold) -> tuple[Ints, Ints, Ints, Ints]:
    """Rows outside the fold and their labels, spoiled if asked for; the places that train and select."""
    draws = np.random.default_rng([design.seed, fold.repeat, fold.fold])
    rows, labels, groups = fold.outside, design.rows.labels[fold.outside], design.rows.groups
    if design.spoiling:
        rows, labels = design.spoiling.change(rows, labels, draws)
        if not set(rows.tolist()) <= set(fold.outside.tolist()):
            raise MarginsError(
                "spoiling", expected="rows from outside the outer test fold", received="rows of the test fold"
            )
    train_at, select_at = train_and_select(
        labels, select_share=SELECT_SHARE, generator=draws, groups=None if groups is None else groups[rows]
    )
    return rows, labels, train_at, select_at


def _one_of(fitted: Preparation, known: list[tuple[dict[str, Any], Preparation]]) -> Preparation:
    """The preparation among the known ones that is in this state, or this one."""
    state = fitted.to_data()
    for other, preparation in known:
        if other == state:
            return preparation
    known.append((state, fitted))
    return fitted


def _check_measurable(design: Design, targets: Targets, what: str) -> None:
    """Refuses rows whose classes or weights leave the metric undefined, whatever is predicted."""
    try:
        measured(design.metric, "classes", torch.zeros(len(targets), targets.num_candidates), targets)
    except MarginsError as error:
        raise MarginsError(
            what,
            expected=f"rows on which {design.metric.name} can be measured",
            received=f"some on which it cannot ({error})",
            fix="ask for fewer folds, another seed or another metric",
        ) from error


def mean_test_to_train(folds: Sequence[OuterFold]) -> float:
    """Rows of an outer test fold over rows outside it, on average.

    All rows outside, also where spoiling drops some: unused rows only lessen the overlap of training rows.
    """
    return float(np.mean([len(fold.test) / len(fold.outside) for fold in folds]))
