"""Outer folds that are the same for every method, and the train/select split inside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margins.data.extras import extra
from margins.errors import MarginsError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OuterFold:
    """One outer fold: the rows that judge (`test`) and the rows outside it, both in ascending order."""

    repeat: int
    fold: int
    outside: Ints
    test: Ints


def outer_folds(
    labels: Ints, *, num_folds: int, num_repeats: int = 1, seed: int = 0, classes: Sequence[str] | None = None
) -> list[OuterFold]:
    """Stratified folds, shuffled anew in each repeat; every row is in one test fold a repeat.

    Args:
        labels: [N] class ids.
        num_folds: at least 2.
        num_repeats: at least 1.
        seed: of the shuffle.
        classes: names for messages.

    Raises:
        MarginsError: fewer than two folds, no repeat, or classes with fewer rows than folds, each named.

    Example:
        >>> folds = outer_folds(np.array([0, 0, 0, 1, 1, 1]), num_folds=3)
        >>> [len(f.test) for f in folds]
        [2, 2, 2]
    """
    if num_folds < 2:
        raise MarginsError(
            "folds", expected="at least 2", received=str(num_folds), fix="5 or 10 folds are usual"
        )
    if num_repeats < 1:
        raise MarginsError("repeats", expected="at least 1", received=str(num_repeats))
    _check_class_sizes(labels, num_folds, classes)
    with extra("tool"):
        from sklearn.model_selection import StratifiedKFold
    folds: list[OuterFold] = []
    for repeat in range(num_repeats):
        shuffle = int(np.random.default_rng([seed, repeat]).integers(2**31))
        division = StratifiedKFold(num_folds, shuffle=True, random_state=shuffle).split(labels, labels)
        folds += [
            OuterFold(repeat, fold, np.asarray(outside), np.asarray(test))
            for fold, (outside, test) in enumerate(division)
        ]
    return folds


def train_and_select(
    labels: Ints, *, select_share: float = 0.2, generator: np.random.Generator
) -> tuple[Ints, Ints]:
    """Places in `labels` for training and for selection, class by class.

    A class gives `select_share` of its rows to selection, at least one when it has two or more, and always
    keeps one for training.

    Args:
        labels: [N] class ids of the rows outside an outer fold.
        select_share: in (0, 1).
        generator: draws which rows.

    Returns:
        two ascending arrays of places that share none and cover all.

    Example:
        >>> train, select = train_and_select(np.array([0] * 10 + [1] * 5), generator=np.random.default_rng(0))
        >>> len(train), len(select)
        (12, 3)
    """
    if not 0 < select_share < 1:
        raise MarginsError("select_share", expected="a share in (0, 1)", received=str(select_share))
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        num = min(max(round(select_share * len(rows)), 1), len(rows) - 1)
        chosen[rows[:num]] = True
    if not chosen.any():
        raise MarginsError(
            "rows outside the outer fold",
            expected="a class with at least two rows, to train on one and select on another",
            received="one row a class",
            fix="use more folds or more rows",
        )
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _check_class_sizes(labels: Ints, num_folds: int, classes: Sequence[str] | None) -> None:
    ids, counts = np.unique(labels, return_counts=True)
    small = [(i, n) for i, n in zip(ids.tolist(), counts.tolist(), strict=True) if n < num_folds]
    if not small:
        return
    named = [f"{classes[i] if classes else f'class {i}'} ({n})" for i, n in small]
    more = f" and {len(named) - 10} more" if len(named) > 10 else ""
    raise MarginsError(
        "target",
        expected=f"at least {num_folds} rows in every class, one for each outer fold",
        received=f"fewer in {', '.join(named[:10])}{more}",
        fix="ask for fewer folds, or merge or leave out these classes",
    )
