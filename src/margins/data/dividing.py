"""The division of rows into the three roles: train, select, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margins.data.columns import Columns
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.data.row_names import named_rows, true_rows
from margins.data.split_words import ROLE_OF
from margins.data.strata import Strata, by_groups, strata_of
from margins.errors import MarginsError
from margins.targets import Targets

Ints = npt.NDArray[np.int64]
ROLES = ("train", "select", "report")
_TRAIN, _SELECT, _REPORT = range(3)
_FAR = 0.05  # a role this far from its share is told


@dataclass(frozen=True, eq=False)
class Division:
    """The rows of each role, ascending; together all rows, each once.

    Args:
        train: rows that are learned from.
        select: rows for early stopping and choices.
        report: rows that judge the finished model.
        sentences: how they were divided.
    """

    train: Ints
    select: Ints
    report: Ints
    sentences: list[str]

    @property
    def roles(self) -> dict[str, Ints]:
        """The rows by the name of their role."""
        return {"train": self.train, "select": self.select, "report": self.report}


def divide(
    frame: Frame,
    columns: Columns,
    targets: Targets | None,
    *,
    seed: int,
    select_share: float = 0.15,
    report_share: float = 0.15,
) -> Division:
    """Gives each row one of the three roles.

    By the split column where there is one, and what it lacks is drawn from its training rows; by time (the
    oldest rows train) or by groups (none in two roles) where columns have these roles; otherwise at random.
    What is drawn at random is balanced: classes keep their shares and each at least one training row, label
    sets by iterative stratification (Sechidis et al. 2011), values by quantiles.

    Args:
        frame: the rows.
        columns: their roles.
        targets: of all rows; None for pairs, which are drawn without balance.
        seed: of the draw; the same seed gives the same division.
        select_share: in (0, 1), of all rows, or of the training rows that it is drawn from.
        report_share: the same, or 0 for none: the model is then judged elsewhere.

    Raises:
        MarginsError: shares out of range, an unknown word in the split column, an empty cell in a column
            that divides, or too few rows or groups for three roles.

    Example:
        >>> import polars as pl, torch
        >>> frame = Frame(table=pl.DataFrame({"x": list(range(20))}), source="data frame", fingerprint="")
        >>> targets = Targets.of_classes(torch.arange(20) % 2, 2)
        >>> division = divide(frame, Columns(inputs={"x": "numeric"}), targets, seed=0)
        >>> len(division.train), len(division.select), len(division.report)
        (14, 3, 3)
    """
    shares = _checked_shares(select_share, report_share)
    if targets is not None and len(targets) != len(frame):
        raise MarginsError(
            "targets", expected=f"one for each of the {len(frame)} rows", received=str(len(targets))
        )
    generator = np.random.default_rng(seed)
    strata = strata_of(targets, len(frame))
    if columns.split is not None:
        roles, sentences = _by_split(frame, columns, strata, shares, generator)
    else:
        rows = np.arange(len(frame), dtype=np.int64)
        roles, sentences = _drawn(frame, columns, strata, rows, shares, generator)
    sentences += [*_far_from_shares(roles, shares, columns), *strata.without_training(roles == _TRAIN)]
    _check_filled(roles, columns, ROLES if report_share else ROLES[:_REPORT])
    train, select, report = (np.flatnonzero(roles == role) for role in range(3))
    counted = ", ".join(f"{len(r)} {n}" for n, r in zip(ROLES, (train, select, report), strict=True))
    return Division(train, select, report, [f"{counted} rows.", *sentences])


def _checked_shares(select_share: float, report_share: float) -> tuple[float, float, float]:
    if not 0 < select_share < 1:
        raise MarginsError("select_share", expected="a share in (0, 1)", received=str(select_share))
    if not 0 <= report_share < 1:
        raise MarginsError("report_share", expected="a share in [0, 1)", received=str(report_share))
    if select_share + report_share >= 1:
        raise MarginsError(
            "select_share, report_share",
            expected="a sum below 1, so that rows are left to train",
            received=f"{select_share} + {report_share}",
        )
    return 1 - select_share - report_share, select_share, report_share


def _drawn(
    frame: Frame,
    columns: Columns,
    strata: Strata,
    rows: Ints,
    shares: tuple[float, float, float],
    generator: np.random.Generator,
) -> tuple[Ints, list[str]]:
    """Roles of these rows, by groups, by time or at random; a role of share 0 gets none."""
    if columns.group is not None:
        groups = _codes(frame, columns.group, "group")[rows]
        _check_groups(groups, columns.group, sum(share > 0 for share in shares))
        told = f"Rows of one {columns.group!r} share a role ({len(np.unique(groups))} groups)."
        return by_groups(groups, strata.take(rows), shares, generator), [told]
    if columns.time is not None:
        told = f"The oldest rows by {columns.time!r} train, the newest report."
        return _by_time(_times(frame, columns.time)[rows], shares), [told]
    return strata.take(rows).drawn(shares, generator), [f"Drawn at random, {strata.balance}."]


def _by_split(
    frame: Frame,
    columns: Columns,
    strata: Strata,
    shares: tuple[float, float, float],
    generator: np.random.Generator,
) -> tuple[Ints, list[str]]:
    assert columns.split is not None  # noqa: S101 - the caller looked
    roles = _stated_roles(frame, columns.split)
    missing = [role for role in (_SELECT, _REPORT) if not (roles == role).any()]
    sentences = [f"By the column {columns.split!r}."]
    train = np.flatnonzero(roles == _TRAIN)
    if not len(train):
        raise MarginsError(
            f"split {columns.split!r}",
            expected="rows for training",
            received=f"only {', '.join(ROLES[r] for r in np.unique(roles))}",
            fix="write 'train' in the rows to learn from",
        )
    if missing:
        wanted = [shares[role] if role in missing else 0.0 for role in (_SELECT, _REPORT)]
        drawn_shares = (1 - sum(wanted), wanted[0], wanted[1])
        drawn, how = _drawn(frame, columns, strata, train, drawn_shares, generator)
        roles[train] = drawn
        names = " and ".join(ROLES[role] for role in missing)
        sentences += [f"It has no rows for {names}: these come from its training rows.", *how]
    return roles, sentences


def _stated_roles(frame: Frame, name: str) -> Ints:
    with extra("tool"):
        import polars as pl
    words = frame.table[name].cast(pl.String).str.strip_chars().str.to_lowercase()
    codes = {word: ROLES.index(role) for word, role in ROLE_OF.items()}
    roles = words.replace_strict(list(codes), list(codes.values()), default=None, return_dtype=pl.Int64)
    unknown = true_rows(roles.is_null())
    if len(unknown):
        word = frame.table[name][int(unknown[0])]
        raise MarginsError(
            f"split {name!r}",
            expected="a role in every row",
            received=f"{'an empty cell' if word is None else repr(word)} in {named_rows(unknown)}",
            fix=suggestion(str(word or ""), list(ROLE_OF)),
        )
    return np.array(roles.to_numpy(), dtype=np.int64)


def _codes(frame: Frame, name: str, role: str) -> Ints:
    """Numbers of the values, by their order; empty cells are refused."""
    cells = frame.table[name]
    _refuse_missing(frame, name, role)
    return np.array(cells.rank("dense").to_numpy(), dtype=np.int64) - 1


def _times(frame: Frame, name: str) -> Ints:
    import polars as pl

    cells = frame.table[name]
    if cells.dtype == pl.String:
        odd = true_rows(~cells.str.contains(r"^\d{4}-\d{2}(-\d{2}|$)"))
        if len(odd):
            raise MarginsError(
                f"time {name!r}",
                expected="numbers, dates, or texts as 2024-12-31, whose order is that of time",
                received=f"{cells[int(odd[0])]!r} in {named_rows(odd)}",
                fix="write year, month and day in this order",
            )
    elif cells.dtype == pl.Float64 and not cells.is_finite().all():
        odd = true_rows(~cells.is_finite())
        received = f"{cells[int(odd[0])]} in {named_rows(odd)}"
        raise MarginsError(f"time {name!r}", expected="finite numbers", received=received)
    return _codes(frame, name, "time")


def _refuse_missing(frame: Frame, name: str, role: str) -> None:
    missing = true_rows(frame.table[name].is_null())
    if len(missing):
        raise MarginsError(
            f"{role} {name!r}",
            expected="a value in every row",
            received=f"an empty cell in {named_rows(missing)}",
            fix="fill in or drop these rows",
        )


def _by_time(times: Ints, shares: tuple[float, float, float]) -> Ints:
    """Cut at the shares; rows of one time stay together, in the older role."""
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    roles = np.full(len(times), _TRAIN, dtype=np.int64)
    num = len(times)
    for role, share in ((_SELECT, shares[0]), (_REPORT, shares[0] + shares[1])):
        if shares[role] > 0:
            place = min(max(round(share * num), 1), num - 1)
            start = int(np.searchsorted(ordered, ordered[place - 1], side="right"))
            roles[order[start:]] = role
    return roles


def _check_groups(groups: Ints, name: str, num_roles: int) -> None:
    num = len(np.unique(groups))
    if num < num_roles:
        raise MarginsError(
            f"group {name!r}",
            expected=f"at least {num_roles} groups, one for each role",
            received=str(num),
            fix="use a split column, or no group",
        )


def _far_from_shares(roles: Ints, shares: tuple[float, float, float], columns: Columns) -> list[str]:
    """Groups and equal times cannot always be cut where one would; the user is told."""
    if columns.split is not None or (columns.group is None and columns.time is None):
        return []
    found = np.bincount(roles, minlength=3) / len(roles)
    return [
        f"The {name} role has {have:.0%} of the rows, not {want:.0%}: groups or equal times cannot be cut."
        for name, have, want in zip(ROLES, found, shares, strict=True)
        if abs(have - want) > _FAR
    ]


def _check_filled(roles: Ints, columns: Columns, wanted: Sequence[str]) -> None:
    empty = [name for role, name in enumerate(wanted) if not (roles == role).any()]
    if empty:
        how = columns.group or columns.time
        raise MarginsError(
            "rows",
            expected=f"enough for {len(wanted)} roles",
            received=f"{len(roles)} rows, none left to {' and '.join(empty)}",
            fix=f"divide by another column than {how!r}" if how else "add rows, or ask for larger shares",
        )
