"""What a division keeps balanced: classes, labels or quantiles; and the draws that keep it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from margins.targets import Targets

Ints = npt.NDArray[np.int64]
Shares = tuple[float, ...]
"""What each role is to have of all rows; a division into roles has three, one into folds as many."""
_NUM_QUANTILES = 10


class Strata(ABC):
    """Rows with what has to be spread evenly over the roles."""

    balance: str

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Number of rows."""

    @abstractmethod
    def take(self, rows: Ints) -> Strata:
        """These rows."""

    @abstractmethod
    def drawn(self, shares: Shares, generator: np.random.Generator) -> Ints:
        """The number of the role of each row, drawn at random in balance."""

    @abstractmethod
    def entries(self) -> tuple[Ints, Ints]:
        """Rows and the strata that they belong to, row after row."""

    @property
    @abstractmethod
    def num_strata(self) -> int:
        """Number of classes or labels."""

    def without_training(self, is_train: npt.NDArray[np.bool_]) -> list[str]:
        """A sentence on strata with no row to train on."""
        rows, strata = self.entries()
        all_rows = np.bincount(strata, minlength=self.num_strata)
        trained = np.bincount(strata[is_train[rows]], minlength=self.num_strata)
        num = int(((all_rows > 0) & (trained == 0)).sum())
        return [f"{num} of {self.num_strata} classes have no training row: no model can know them."] * (
            num > 0
        )


@dataclass(frozen=True, eq=False)
class ClassStrata(Strata):
    """One stratum a row: classes, or quantiles of values.

    Args:
        ids: [N] the stratum of each row.
        num: number of strata.
        balance: how a sentence names it.
    """

    ids: Ints
    num: int
    balance: str = "classes in equal shares"

    @property
    def num_rows(self) -> int:
        return len(self.ids)

    @property
    def num_strata(self) -> int:
        return self.num

    def take(self, rows: Ints) -> ClassStrata:
        return ClassStrata(self.ids[rows], self.num, self.balance)

    def entries(self) -> tuple[Ints, Ints]:
        return np.arange(len(self.ids), dtype=np.int64), self.ids

    def drawn(self, shares: Shares, generator: np.random.Generator) -> Ints:
        """Each class gives its share to select and report, and keeps at least one row to train.

        Three roles only: folds of classes are drawn by scikit-learn.
        """
        counts = np.bincount(self.ids, minlength=self.num)
        report = _apportioned(counts, shares[2], np.maximum(counts - 1, 0), generator)
        select = _apportioned(counts, shares[1], np.maximum(counts - 1 - report, 0), generator)
        order = np.lexsort((generator.random(len(self.ids)), self.ids))
        starts = np.cumsum(counts) - counts
        ids = self.ids[order]
        place = np.arange(len(ids)) - starts[ids]  # of the row among those of its class, in random order
        roles = np.zeros(len(ids), dtype=np.int64)
        roles[order] = np.where(place < report[ids], 2, np.where(place < (report + select)[ids], 1, 0))
        return roles


@dataclass(frozen=True, eq=False)
class LabelStrata(Strata):
    """Several strata a row, held as compressed rows.

    Args:
        offsets: [N + 1].
        labels: the labels of all rows, one row after the other.
        num: number of labels.
    """

    offsets: Ints
    labels: Ints
    num: int
    balance: str = "labels in equal shares"

    @property
    def num_rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_strata(self) -> int:
        return self.num

    def take(self, rows: Ints) -> LabelStrata:
        places, counts = _spans(self.offsets, rows)
        return LabelStrata(np.concatenate([[0], np.cumsum(counts)]), self.labels[places], self.num)

    def entries(self) -> tuple[Ints, Ints]:
        return np.repeat(np.arange(self.num_rows), np.diff(self.offsets)), self.labels

    def drawn(self, shares: Shares, generator: np.random.Generator) -> Ints:
        """Iterative stratification: the rarest label left is dealt out first, to where it is lacking most.

        The rows of a label are dealt at once: how many each role gets follows from its lack of this label
        alone, so only rows with equal claims come in another order than one by one.
        """
        by_label = self.entries()[0][np.argsort(self.labels, kind="stable")]
        left = np.bincount(self.labels, minlength=self.num)
        starts = np.concatenate([[0], np.cumsum(left)])
        num_roles = len(shares)
        lacks = np.outer(shares, left)  # [roles, labels]
        total = np.array(shares) * self.num_rows
        roles = np.full(self.num_rows, -1, dtype=np.int64)
        while left.any():
            label = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
            mine = by_label[starts[label] : starts[label + 1]]
            mine = generator.permutation(mine[roles[mine] < 0])
            dealt = np.repeat(np.arange(num_roles), _dealt(lacks[:, label], total, len(mine), generator))
            roles[mine] = dealt
            places, counts = _spans(self.offsets, mine)
            given = np.bincount(
                np.repeat(dealt, counts) * self.num + self.labels[places], minlength=num_roles * self.num
            ).reshape(num_roles, self.num)
            lacks -= given
            left -= given.sum(0)
            total -= np.bincount(dealt, minlength=num_roles)
        bare = generator.permutation(np.flatnonzero(roles < 0))
        roles[bare] = np.repeat(np.arange(num_roles), _dealt(total, total, len(bare), generator))
        return roles


def strata_of(targets: Targets | None, num_rows: int) -> Strata:
    """What these targets ask to keep in balance."""
    if targets is None:
        return ClassStrata(np.zeros(num_rows, dtype=np.int64), 1, "without regard to targets")
    if not targets.storage.has_positives:
        return _quantiles(targets.block(0, 1).grades[:, 0])
    positives = targets.positives()
    rows, columns = positives.rows.numpy(), positives.columns.numpy()
    counts = np.bincount(rows, minlength=num_rows)
    if targets.has_one_positive:
        return ClassStrata(columns.astype(np.int64), targets.num_candidates)
    order = np.argsort(rows, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return LabelStrata(offsets, columns[order].astype(np.int64), targets.num_candidates)


def by_groups(groups: Ints, strata: Strata, shares: Shares, generator: np.random.Generator) -> Ints:
    """Whole groups to roles, the largest first, each to the role whose lack of its classes it fits best.

    The cost of a role is how far its class counts are from its share, in the manner of chi-square.
    """
    num_groups = int(groups.max()) + 1
    counts, offsets, columns = _class_counts(groups, strata, num_groups)
    sizes = np.bincount(groups, minlength=num_groups)
    wanted = np.outer(shares, np.bincount(columns, weights=counts, minlength=strata.num_strata + 1))
    is_open = np.array(shares) > 0
    have = np.zeros_like(wanted)
    role_of = np.zeros(num_groups, dtype=np.int64)
    order = np.lexsort((generator.random(num_groups), -sizes))
    for group in order[sizes[order] > 0]:
        span = slice(offsets[group], offsets[group + 1])
        classes, num = columns[span], counts[span]
        lack = wanted[:, classes] - have[:, classes]
        with np.errstate(divide="ignore", invalid="ignore"):
            cost = (num * (num - 2 * lack) / wanted[:, classes]).sum(1)
        role = int(np.where(is_open, cost, np.inf).argmin())
        have[role, classes] += num
        role_of[group] = role
    _fill_empty(role_of, sizes, is_open)
    return role_of[groups]


def _class_counts(
    groups: Ints, strata: Strata, num_groups: int
) -> tuple[npt.NDArray[np.float64], Ints, Ints]:
    """Counts of each group's classes as compressed rows; one more column counts the rows themselves."""
    rows, labels = strata.entries()
    width = strata.num_strata + 1
    keys = np.concatenate([groups[rows] * width + labels, groups * width + strata.num_strata])
    found, counts = np.unique(keys, return_counts=True)
    offsets = np.searchsorted(found, np.arange(num_groups + 1) * width)
    return counts.astype(np.float64), offsets, found % width


def _fill_empty(role_of: Ints, sizes: Ints, is_open: npt.NDArray[np.bool_]) -> None:
    """A role that came out empty gets the smallest group of the role with the most groups."""
    present = sizes > 0
    for role in np.flatnonzero(is_open):
        num = np.bincount(role_of[present], minlength=len(is_open))
        if num[role] == 0 and num.max() > 1:
            donors = np.flatnonzero(present & (role_of == num.argmax()))
            role_of[donors[sizes[donors].argmin()]] = role


def _quantiles(values: Tensor) -> ClassStrata:
    numbers = values.numpy()
    num = max(min(_NUM_QUANTILES, len(numbers) // 3), 1)
    edges = np.unique(np.quantile(numbers, np.arange(1, num) / num))
    return ClassStrata(np.searchsorted(edges, numbers, side="right"), len(edges) + 1, "values by quantiles")


def _apportioned(counts: Ints, share: float, most: Ints, generator: np.random.Generator) -> Ints:
    """Whole numbers near share * counts, at most `most` each, that sum to about share of all.

    What is left after rounding down goes to the largest remainders, ties at random.
    """
    exact = share * counts
    given = np.minimum(np.floor(exact).astype(np.int64), most)
    spare = round(share * int(counts.sum())) - int(given.sum())
    order = np.lexsort((generator.random(len(counts)), -(exact - given)))
    open_ones = order[(given < most)[order] & (exact > 0)[order]]
    given[open_ones[: max(spare, 0)]] += 1
    return given


def _dealt(
    lack: npt.NDArray[np.float64], total: npt.NDArray[np.float64], num: int, generator: np.random.Generator
) -> Ints:
    """How many of `num` rows go to each role when each in turn goes to the role that lacks most.

    Ties go to the role that lacks most rows at all, then at random.
    """
    # Role r's k-th row has claim lack[r] - k; the largest claims win.
    claims = lack[:, None] - np.arange(num)
    ties = np.broadcast_to(
        (np.argsort(np.argsort(total)) + generator.random(len(lack)) * 0.5)[:, None], claims.shape
    )
    chosen = np.lexsort((-ties.ravel(), -np.round(claims, 9).ravel()))[:num]
    return np.bincount(chosen // max(num, 1), minlength=len(lack))


def _spans(offsets: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Places of the entries of these rows, one row after the other, and how many each has."""
    counts = np.diff(offsets)[rows]
    before = np.cumsum(counts) - counts
    return np.repeat(offsets[rows] - before, counts) + np.arange(int(counts.sum())), counts
