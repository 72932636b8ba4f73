"""The roles of rows in every outer fold, and in the training that a comparison leaves behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from margins.compare.problem.rows import ComparedRows
from margins.data.dividing import Division
from margins.data.roles import class_ids
from margins.data.splits import OuterFold, outer_folds_of, train_and_select_of
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.predicting import unweighted

Ints = npt.NDArray[np.int64]

SELECT_SHARE = 0.2
_LAST = -1


@dataclass(frozen=True)
class Spoiling:
    """A change of the rows outside each outer test fold: an experiment on data made worse on purpose.

    Args:
        change: takes row numbers, their classes and a generator; gives the row numbers kept and their
            classes.
        sentence: what it does, for the protocol.
    """

    change: Callable[[Ints, Ints, np.random.Generator], tuple[Ints, Ints]]
    sentence: str


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldRoles:
    """Which rows train, select and judge in one place.

    Args:
        name: of the place, for people.
        repeat: of the division into folds; -1 for the last training, which report rows judge.
        fold: within the repeat.
        train: rows that train.
        select: rows that choose epochs, hyperparameters and cuts.
        test: rows that judge.
        labels: [N] classes as training sees them, where they are not the rows' own.
    """

    name: str
    repeat: int
    fold: int
    train: Ints
    select: Ints
    test: Ints
    labels: Ints | None = None

    @property
    def outside(self) -> int:
        """How many rows are not judged."""
        return len(self.train) + len(self.select)

    def division(self, *, with_test: bool) -> Division:
        """The roles; without test rows where nothing may be judged yet."""
        test = self.test if with_test else self.test[:0]
        return Division(self.train, self.select, test, [])

    def digest(self) -> str:
        """The same for the same rows in the same roles."""
        found = hashlib.sha256()
        for part in (self.train, self.select, self.test, self.labels):
            found.update(b"none" if part is None else np.ascontiguousarray(part).tobytes() + b"|")
        return found.hexdigest()


def outer_roles(
    rows: ComparedRows,
    *,
    num_folds: int,
    num_repeats: int,
    seed: int,
    spoiling: Spoiling | None = None,
) -> list[FoldRoles]:
    """The roles of all outer folds, repeat after repeat.

    Raises:
        MarginsError: fewer than two folds, no repeat, or too few rows, with how many are needed.
    """
    folds = outer_folds_of(
        rows.targets.take(torch.from_numpy(rows.inside)), num_folds=num_folds, num_repeats=num_repeats,
        seed=seed, names=rows.names, groups=None if rows.groups is None else rows.groups[rows.inside],
    )  # fmt: skip
    return [_roles(rows, fold, seed, spoiling, num_repeats > 1) for fold in folds]


def last_roles(rows: ComparedRows, *, seed: int, spoiling: Spoiling | None = None) -> FoldRoles:
    """All rows but those kept to report train and select; those judge."""
    draws = np.random.default_rng([seed, 2**32 - 1])  # no repeat has this number
    train, select, labels = _parted(rows, rows.inside, draws, spoiling)
    return FoldRoles(
        name="all rows but those kept to report", repeat=_LAST, fold=0, train=train, select=select,
        test=rows.report, labels=labels,
    )  # fmt: skip


def mean_test_to_train(folds: Sequence[OuterFold] | Sequence[FoldRoles], num_inside: int) -> float:
    """Rows of an outer test fold over all rows outside it, on average.

    All rows outside, also where spoiling drops some: unused rows only lessen the overlap of training rows.
    """
    return float(np.mean([len(fold.test) / (num_inside - len(fold.test)) for fold in folds]))


def _roles(
    rows: ComparedRows, fold: OuterFold, seed: int, spoiling: Spoiling | None, several: bool
) -> FoldRoles:
    draws = np.random.default_rng([seed, fold.repeat, fold.fold])
    train, select, labels = _parted(rows, rows.inside[fold.outside], draws, spoiling)
    return FoldRoles(
        name=f"outer fold {fold.fold + 1}" + (f" of repeat {fold.repeat + 1}" if several else ""),
        repeat=fold.repeat, fold=fold.fold, train=train, select=select, test=rows.inside[fold.test],
        labels=labels,
    )  # fmt: skip


def _parted(
    rows: ComparedRows, outside: Ints, draws: np.random.Generator, spoiling: Spoiling | None
) -> tuple[Ints, Ints, Ints | None]:
    """Rows that train and that select, and the classes they then have if they were changed."""
    targets = unweighted(rows.targets)
    at, labels = outside, None
    if spoiling is not None:
        own = np.array(class_ids(targets).numpy())
        at, given = spoiling.change(outside, own[outside], draws)
        if not set(at.tolist()) <= set(outside.tolist()):
            raise MarginsError(
                "spoiling", expected="rows from outside the outer test fold", received="rows of the test fold"
            )
        labels = own.copy()
        labels[at] = given
        targets = Targets.of_classes(torch.from_numpy(labels), len(rows.names))
    train, select = train_and_select_of(
        targets.take(torch.from_numpy(at)), select_share=SELECT_SHARE, generator=draws,
        groups=None if rows.groups is None else rows.groups[at],
    )  # fmt: skip
    return at[train], at[select], labels
