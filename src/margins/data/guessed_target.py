"""Which column is the target and what its cells mean, where that is beyond doubt."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from margins.data.cell_kinds import are_few
from margins.data.columns import TargetKind
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

TARGET_NAMES = frozenset(
    "label labels target targets class classes y category categories topic tag tags "  # noqa: SIM905
    "intent outcome".split()
)
_PATH_SIGN = ">"


def guessed_target(names: Collection[str], *, taken: Collection[str]) -> str | None:
    """The one column that is named as targets are; None where there is none.

    Raises:
        MarginsError: several are.
    """
    found = [name for name in names if name.strip().lower() in TARGET_NAMES and name not in taken]
    if len(found) > 1:
        raise MarginsError(
            "target",
            expected="one column that is named as a target",
            received=", ".join(found),
            fix="say which with target=",
        )
    return found[0] if found else None


def guessed_kind(cells: pl.Series, separator: str | None) -> tuple[TargetKind, str | None]:
    """The kind of a target, and the separator where the cells show it.

    Raises:
        MarginsError: the cells can mean two things; the message names both.
    """
    import polars as pl

    if isinstance(cells.dtype, pl.List):
        return "label_set", None
    if cells.dtype == pl.Boolean:
        return "label", None
    if cells.dtype == pl.String:
        return _kind_of_text(cells, separator)
    if cells.dtype.is_numeric():
        return _kind_of_numbers(cells), None
    raise MarginsError(
        f"target {cells.name!r}",
        expected="names, numbers, or sets of labels",
        received=str(cells.dtype),
        fix="choose another column with target=",
    )


def _kind_of_numbers(cells: pl.Series) -> TargetKind:
    import polars as pl

    filled = cells.drop_nulls()
    num = filled.n_unique()
    if cells.dtype == pl.Int64:
        if are_few(num, len(filled)):
            return "label"
        raise _unsure(cells, f"{num} different whole numbers in {len(filled)} rows", "label", "value")
    is_whole = bool((filled.is_finite() & (filled == filled.round())).all())
    if is_whole and are_few(num, len(filled)):
        raise _unsure(cells, f"floats that are {num} different whole numbers", "label", "value")
    return "value"


def _kind_of_text(cells: pl.Series, separator: str | None) -> tuple[TargetKind, str | None]:
    filled = cells.drop_nulls()
    sign = separator or "|"
    share = float(filled.str.contains(sign, literal=True).mean() or 0)  # pyright: ignore[reportArgumentType]
    if share > 0.5 or (separator is not None and share > 0 and separator.strip() != _PATH_SIGN):
        if sign.strip() == _PATH_SIGN:
            return "path", sign
        return "label_set", sign
    if share > 0 and separator is None:
        raise _unsure(cells, f"{sign!r} in {share:.0%} of the cells", "label", "label_set")
    steps = float(filled.str.contains(r"\S > \S").mean() or 0)  # pyright: ignore[reportArgumentType]
    if separator is None and steps > 0.5:
        return "path", _PATH_SIGN
    num = filled.n_unique()
    if not are_few(num, len(filled)) and num > len(filled) / 2:
        raise MarginsError(
            f"target {cells.name!r}",
            expected="classes that repeat",
            received=f"{num} different texts in {len(filled)} rows",
            fix="choose another column with target=, or say target_kind='label' if each text is a class",
        )
    return "label", None


def _unsure(cells: pl.Series, received: str, first: str, second: str) -> MarginsError:
    return MarginsError(
        f"target {cells.name!r}",
        expected=f"cells that show whether they are a {first} or a {second}",
        received=received,
        fix=f"say target_kind='{first}' or target_kind='{second}'",
    )
