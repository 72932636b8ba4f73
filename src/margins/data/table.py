"""A table of one text column or of numeric columns with a class for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from margins.data.csv_file import CsvFile, read_csv_file
from margins.data.nearest import suggestion
from margins.errors import MarginsError

if TYPE_CHECKING:
    import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# A column in which this share of cells reads as numbers is meant as one: the rest are slips, not text.
_MOSTLY = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows with inputs and a class each; either `texts` or `numbers` is set.

    Classes are numbered from the most frequent to the rarest (equal counts by name), so that with two
    classes number 1 is the rarer, which ranking metrics take as positive.
    """

    source: str  # file name without its folder
    source_sha256: str
    task: Literal["text", "numeric", "image"]
    inputs: list[str]
    target: str
    texts: list[str] | None = None
    numbers: Floats | None = None  # [N, columns]
    labels: Ints  # [N]
    classes: list[str]
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def class_counts(self) -> dict[str, int]:
        """Rows of each class, largest first."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def exact_inputs(self) -> Ints:
        """A number for each row, the same for rows whose inputs are exactly the same."""
        if self.texts is not None:
            return np.unique(np.array(self.texts, dtype=object), return_inverse=True)[1]
        assert self.numbers is not None  # noqa: S101 - one of the two is set
        return np.unique(self.numbers, axis=0, return_inverse=True)[1].reshape(-1)


def read_table(path: str | Path, inputs: Sequence[str], target: str) -> Table:
    """Reads a CSV file, plain or gzipped: UTF-8, commas, a header line.

    A single input column whose cells are all numbers is numeric; otherwise it is text. Several input
    columns must all be numeric.

    Args:
        path: the file.
        inputs: one text column or one or more numeric columns.
        target: the column that holds the class; every value is a class name as it stands.

    Returns:
        the table, with what is odd but usable in `warnings`.

    Raises:
        MarginsError: anything that cannot be used, with where it is and how to mend it. Row 1 is the first
            row below the header.
    """
    file = read_csv_file(Path(path))
    _check_columns(file, inputs, target)
    labels, classes = _classes(file.frame[target], target)
    common: dict[str, Any] = {
        "source": file.path.name,
        "source_sha256": file.sha256,
        "inputs": list(inputs),
        "target": target,
        "labels": labels,
        "classes": classes,
    }
    odd = [f"{file.num_blank} blank rows were left out."] if file.num_blank else []
    columns = [_Column.read(file.frame[name]) for name in inputs]
    if len(columns) == 1 and not columns[0].means_numbers:
        texts = columns[0].texts
        return Table(task="text", texts=texts, warnings=odd + _empty_texts(inputs[0], texts), **common)
    _check_all_numeric(columns)
    numbers = np.stack([c.finite_numbers() for c in columns], axis=1)
    return Table(task="numeric", numbers=numbers, warnings=odd + _constant_columns(inputs, numbers), **common)


@dataclass(frozen=True, eq=False)
class _Column:
    """Cells of an input column, as text and, where they read so, as numbers (NaN elsewhere)."""

    name: str
    texts: list[str]
    numbers: Floats
    is_number: npt.NDArray[np.bool_]
    is_empty: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, cells: pl.Series) -> _Column:
        import polars as pl

        texts = cells.fill_null("")
        stripped = texts.str.strip_chars()
        numbers = stripped.cast(pl.Float64, strict=False)
        return cls(
            cells.name,
            texts.to_list(),
            numbers.fill_null(float("nan")).to_numpy().astype(np.float64),
            numbers.is_not_null().to_numpy(),
            (stripped == "").to_numpy(),
        )

    @property
    def means_numbers(self) -> bool:
        """Whether most cells that hold anything hold numbers."""
        filled = int((~self.is_empty).sum())
        return filled > 0 and int(self.is_number.sum()) > _MOSTLY * filled

    def finite_numbers(self) -> Floats:
        wrong = np.flatnonzero(~(self.is_number & np.isfinite(self.numbers)))
        if len(wrong):
            first = self.texts[wrong[0]].strip()
            raise MarginsError(
                f"column {self.name!r}",
                expected="a finite number in every row",
                received=f"{repr(first) if first else 'an empty cell'} in {_rows(wrong)}",
                fix="fill in, correct or drop these rows (row 1 is the first below the header)",
            )
        return self.numbers + 0.0  # -0.0 becomes 0.0, so that equal rows have equal bytes


def _check_columns(file: CsvFile, inputs: Sequence[str], target: str) -> None:
    if not inputs:
        raise MarginsError("input", expected="at least one column", received="none")
    for argument, names in (("input", inputs), ("target", [target])):
        for name in names:
            if name not in file.header:
                fix = suggestion(name, file.header)
                raise MarginsError(
                    argument, expected=f"a column of {file.path.name}", received=repr(name), fix=fix
                )
            if file.header.count(name) > 1:
                raise MarginsError(
                    argument,
                    expected="a column name that occurs once",
                    received=f"{name!r} {file.header.count(name)} times in {file.path.name}",
                    fix="rename the columns in the header line",
                )
    if target in inputs:
        raise MarginsError(
            "input",
            expected="columns other than the target",
            received=repr(target),
            fix="take the target out of the inputs: a model would only copy it",
        )
    twice = [name for name in dict.fromkeys(inputs) if list(inputs).count(name) > 1]
    if twice:
        raise MarginsError("input", expected="each column once", received=f"{twice[0]!r} twice")


def _classes(cells: pl.Series, target: str) -> tuple[Ints, list[str]]:
    names = np.array(cells.fill_null("").to_list(), dtype=object)
    missing = np.flatnonzero([not name.strip() for name in names])
    if len(missing):
        raise MarginsError(
            f"target {target!r}",
            expected="a class in every row",
            received=f"an empty cell in {_rows(missing)}",
            fix="label or drop these rows (row 1 is the first below the header)",
        )
    found, ids, counts = np.unique(names, return_inverse=True, return_counts=True)
    if len(found) < 2:
        raise MarginsError(
            f"target {target!r}",
            expected="at least two classes",
            received=f"{found[0]!r} in every row",
            fix="choose the column that tells the rows apart",
        )
    order = np.argsort(-counts, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[ids], [str(found[i]) for i in order]


def _check_all_numeric(columns: list[_Column]) -> None:
    text = [c.name for c in columns if not c.means_numbers]
    if not text:
        return
    received = "several text columns" if len(text) == len(columns) else "text and numeric columns together"
    raise MarginsError(
        "input",
        expected="one text column, or one or more numeric columns",
        received=f"{received} (text: {', '.join(text[:10])})",
        fix="choose one text column, join text columns into one, or leave the text columns out",
    )


def _rows(places: Ints) -> str:
    """Rows as users count them.

    Example:
        >>> _rows(np.array([0, 4]))
        'rows 1, 5'
    """
    shown = ", ".join(str(p + 1) for p in places[:5].tolist())
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return f"{'row' if len(places) == 1 else 'rows'} {shown}{more}"


def _empty_texts(name: str, texts: list[str]) -> list[str]:
    num = sum(not text.strip() for text in texts)
    if not num:
        return []
    return [
        f"{num} of {len(texts)} rows have an empty text in column {name!r}; they are kept, and a model can "
        "only guess their class."
    ]


def _constant_columns(inputs: Sequence[str], numbers: Floats) -> list[str]:
    constant = [name for name, column in zip(inputs, numbers.T, strict=True) if np.ptp(column) == 0]
    return (
        [f"Columns with the same number in every row tell nothing: {', '.join(constant)}."]
        if constant
        else []
    )
