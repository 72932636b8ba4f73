"""Outer folds that are the same for every method, and the train/select split inside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margins.data.columns import Columns
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.data.row_names import named_rows, true_rows
from margins.data.strata import ClassStrata, Strata, by_groups, strata_of
from margins.errors import MarginsError
from margins.targets import Targets

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OuterFold:
    """One outer fold: the rows that judge (`test`) and the rows outside it, both in ascending order."""

    repeat: int
    fold: int
    outside: Ints
    test: Ints


def group_ids(frame: Frame, columns: Columns) -> Ints | None:
    """[N] the number of each row's group; None when no column holds groups.

    Raises:
        MarginsError: an empty cell, with its row.

    Example:
        >>> import polars as pl
        >>> frame = Frame(table=pl.DataFrame({"user": ["b", "a", "b"]}), source="data frame", fingerprint="")
        >>> group_ids(frame, Columns(inputs={}, group="user"))
        array([1, 0, 1])
    """
    if columns.group is None:
        return None
    cells = frame.table[columns.group]
    missing = true_rows(cells.is_null())
    if len(missing):
        raise MarginsError(
            f"group {columns.group!r}",
            expected="a value in every row",
            received=f"an empty cell in {named_rows(missing)}",
            fix="fill in or drop these rows",
        )
    return np.array(cells.rank("dense").to_numpy(), dtype=np.int64) - 1


def outer_folds(
    labels: Ints,
    *,
    num_folds: int,
    num_repeats: int = 1,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    groups: Ints | None = None,
) -> list[OuterFold]:
    """Stratified folds, shuffled anew in each repeat; every row is in one test fold a repeat.

    Args:
        labels: [N] class ids.
        num_folds: at least 2.
        num_repeats: at least 1.
        seed: of the shuffle.
        classes: names for messages.
        groups: [N] rows of one number stay in one fold; classes are then balanced as far as that allows.

    Raises:
        MarginsError: fewer than two folds, no repeat, or classes with fewer rows (or groups) than folds, each
            named.

    Example:
        >>> folds = outer_folds(np.array([0, 0, 0, 1, 1, 1]), num_folds=3)
        >>> [len(f.test) for f in folds]
        [2, 2, 2]
    """
    _check_numbers(num_folds, num_repeats)
    _check_class_sizes(labels, num_folds, classes, groups)
    folds: list[OuterFold] = []
    for repeat in range(num_repeats):
        shuffle = int(np.random.default_rng([seed, repeat]).integers(2**31))
        folds += [
            OuterFold(repeat, fold, outside, test)
            for fold, (outside, test) in enumerate(_divided(labels, groups, num_folds, shuffle))
        ]
    if groups is not None:
        _check_classes_outside(labels, folds)
    return folds


def outer_folds_of(
    targets: Targets,
    *,
    num_folds: int,
    num_repeats: int = 1,
    seed: int = 0,
    names: Sequence[str] | None = None,
    groups: Ints | None = None,
) -> list[OuterFold]:
    """Outer folds of any targets: classes stratified, label sets iteratively so, values by quantiles.

    Args:
        targets: [N] of all rows.
        num_folds: at least 2.
        num_repeats: at least 1.
        seed: of the shuffle.
        names: of classes, for messages.
        groups: [N] rows of one number stay in one fold.

    Raises:
        MarginsError: as `outer_folds`; of label sets and values, fewer rows (or groups) than folds.

    Example:
        >>> import torch
        >>> sets = (torch.tensor([0, 1, 3, 3, 4, 6, 6]), torch.tensor([0, 0, 1, 1, 0, 1]))
        >>> folds = outer_folds_of(Targets.of_label_sets(sets, 2), num_folds=3)
        >>> [len(f.test) for f in folds]
        [2, 2, 2]
    """
    strata = strata_of(targets, len(targets))
    if targets.storage.has_positives and targets.has_one_positive and isinstance(strata, ClassStrata):
        return outer_folds(
            strata.ids, num_folds=num_folds, num_repeats=num_repeats, seed=seed, classes=names, groups=groups
        )
    _check_numbers(num_folds, num_repeats)
    units, what = (len(targets), "rows") if groups is None else (len(np.unique(groups)), "groups")
    if units < 2 * num_folds:
        raise MarginsError(
            what, expected=f"at least {2 * num_folds}, two for each of {num_folds} outer folds",
            received=str(units), fix=f"ask for at most {units // 2} folds" if units >= 4 else "add rows",
        )  # fmt: skip
    folds: list[OuterFold] = []
    for repeat in range(num_repeats):
        fold_of = _dealt_to_folds(strata, num_folds, np.random.default_rng([seed, repeat]), groups)
        for fold in range(num_folds):
            folds.append(
                OuterFold(repeat, fold, np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
            )
    return folds


def train_and_select_of(
    targets: Targets, *, select_share: float = 0.2, generator: np.random.Generator, groups: Ints | None = None
) -> tuple[Ints, Ints]:
    """Places among rows of any targets for training and for selection; classes as `train_and_select`.

    Raises:
        MarginsError: a share out of range, or rows that cannot be divided so.

    Example:
        >>> import torch
        >>> values = Targets.of_values(torch.linspace(0, 1, 20))
        >>> train, select = train_and_select_of(values, generator=np.random.default_rng(0))
        >>> len(train), len(select)
        (16, 4)
    """
    strata = strata_of(targets, len(targets))
    if isinstance(strata, ClassStrata) and targets.storage.has_positives:
        return train_and_select(strata.ids, select_share=select_share, generator=generator, groups=groups)
    shares = (1 - select_share, select_share, 0.0)
    drawn = (
        strata.drawn(shares, generator) if groups is None else by_groups(groups, strata, shares, generator)
    )
    train, select = np.flatnonzero(drawn == 0), np.flatnonzero(drawn == 1)
    if not (len(train) and len(select)):
        raise MarginsError(
            "rows outside the outer fold", expected="some to train on and some to select on",
            received=f"{len(train)} and {len(select)}", fix="use fewer folds or more rows",
        )  # fmt: skip
    return train, select


def train_and_select(
    labels: Ints,
    *,
    select_share: float = 0.2,
    generator: np.random.Generator,
    groups: Ints | None = None,
) -> tuple[Ints, Ints]:
    """Places in `labels` for training and for selection, class by class.

    A class gives `select_share` of its rows to selection, at least one when it has two or more, and always
    keeps one for training. With groups whole groups are given, so shares are met as far as that allows.

    Args:
        labels: [N] class ids of the rows outside an outer fold.
        select_share: in (0, 1).
        generator: draws which rows.
        groups: [N] rows of one number stay together.

    Returns:
        two ascending arrays of places that share none and cover all.

    Raises:
        MarginsError: a share out of range, or rows that cannot be divided so.

    Example:
        >>> train, select = train_and_select(np.array([0] * 10 + [1] * 5), generator=np.random.default_rng(0))
        >>> len(train), len(select)
        (12, 3)
    """
    if not 0 < select_share < 1:
        raise MarginsError("select_share", expected="a share in (0, 1)", received=str(select_share))
    if groups is not None:
        chosen = _chosen_groups(labels, groups, select_share, generator)
    else:
        chosen = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            rows = generator.permutation(np.flatnonzero(labels == label))
            num = min(max(round(select_share * len(rows)), 1), len(rows) - 1)
            chosen[rows[:num]] = True
    if not chosen.any():
        rows, one = ("rows", "row") if groups is None else ("groups", "group")
        raise MarginsError(
            "rows outside the outer fold",
            expected=f"a class with at least two {rows}, to train on one and select on another",
            received=f"one {one} a class",
            fix=f"use more folds or more {rows}",
        )
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _check_numbers(num_folds: int, num_repeats: int) -> None:
    if num_folds < 2:
        raise MarginsError(
            "folds", expected="at least 2", received=str(num_folds), fix="5 or 10 folds are usual"
        )
    if num_repeats < 1:
        raise MarginsError("repeats", expected="at least 1", received=str(num_repeats))


def _dealt_to_folds(
    strata: Strata, num_folds: int, generator: np.random.Generator, groups: Ints | None
) -> Ints:
    """[N] the fold of each row, in balance."""
    shares = (1 / num_folds,) * num_folds
    if groups is not None:
        return by_groups(groups, strata, shares, generator)
    if not isinstance(strata, ClassStrata):
        return strata.drawn(shares, generator)
    # One stratum after the other, each in random order: neighbours go to different folds.
    order = np.lexsort((generator.random(strata.num_rows), strata.ids))
    fold_of = np.empty(strata.num_rows, dtype=np.int64)
    fold_of[order] = np.arange(strata.num_rows) % num_folds
    return fold_of


def _divided(labels: Ints, groups: Ints | None, num_folds: int, shuffle: int) -> list[tuple[Ints, Ints]]:
    with extra("tool"):
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    division = kind(num_folds, shuffle=True, random_state=shuffle).split(labels, labels, groups)
    return [(np.asarray(outside), np.asarray(test)) for outside, test in division]


def _chosen_groups(
    labels: Ints, groups: Ints, select_share: float, generator: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Rows of the groups that select; a class that no other group holds keeps its smallest for training."""
    strata = ClassStrata(labels, int(labels.max()) + 1)
    chosen = by_groups(groups, strata, (1 - select_share, select_share, 0.0), generator) == 1
    for label in np.unique(labels):
        own = labels == label
        if chosen[own].all():
            holders, sizes = np.unique(groups[own], return_counts=True)
            chosen &= groups != holders[sizes.argmin()]
    return chosen


def _check_classes_outside(labels: Ints, folds: Sequence[OuterFold]) -> None:
    num_classes = len(np.unique(labels))
    short = [f for f in folds if not len(f.test) or len(np.unique(labels[f.outside])) < num_classes]
    if short:
        raise MarginsError(
            "group",
            expected="groups that leave rows of every class outside each outer fold",
            received=f"{len(short)} of {len(folds)} folds without",
            fix="ask for fewer folds, or divide by smaller groups",
        )


def _check_class_sizes(
    labels: Ints, num_folds: int, classes: Sequence[str] | None, groups: Ints | None
) -> None:
    what = "rows"
    if groups is not None:
        what = "groups"
        # Rows of one group and class count once.
        labels = np.unique(np.stack([labels, groups]), axis=1)[0]
    ids, counts = np.unique(labels, return_counts=True)
    small = [(i, n) for i, n in zip(ids.tolist(), counts.tolist(), strict=True) if n < num_folds]
    if not small:
        return
    named = [f"{classes[i] if classes else f'class {i}'} ({n})" for i, n in small]
    more = f" and {len(named) - 10} more" if len(named) > 10 else ""
    raise MarginsError(
        "target",
        expected=f"at least {num_folds} {what} in every class, one for each outer fold",
        received=f"fewer in {', '.join(named[:10])}{more}",
        fix="ask for fewer folds, or merge or leave out these classes",
    )
