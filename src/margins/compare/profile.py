"""The profile of a data set: what a person should know before training anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from margins.compare.numeric_rows import Nearness, nearness, numeric_rows
from margins.data.choosing import choose_columns
from margins.data.columns import Columns
from margins.data.frame import Frame
from margins.data.overlap import overlap
from margins.data.roles import class_ids
from margins.data.row_keys import row_keys
from margins.training.problem import Problem, pose
from margins.training.request import Roles

if TYPE_CHECKING:
    import polars as pl

_RARE_ROWS = 10
_IMBALANCED = 10.0
_SAMPLE_CHARS = 40


@dataclass(frozen=True, kw_only=True)
class ColumnProfile:
    """One column.

    Args:
        name: of the column.
        role: what it is for, or "not used".
        filled: share of cells that hold something.
        num_different: different cells.
        sample: the first filled cell, shortened.
    """

    name: str
    role: str
    filled: float
    num_different: int
    sample: str


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What is in a data set.

    Args:
        source: its name.
        fingerprint: of its content.
        num_rows: all of them.
        columns: each.
        class_counts: rows of each class or label, the most frequent first; empty for numbers.
        num_copies: rows whose inputs stand in an earlier row too.
        num_contradictions: of these copies, those with another target.
        intrinsic_dimension: of inputs that are all numbers or vectors; None of others, or where rows are few.
        label_sharpness: of such inputs with classes; None of others.
        sentences: all that is worth saying, the decisions first.
    """

    source: str
    fingerprint: str
    num_rows: int
    columns: list[ColumnProfile]
    class_counts: dict[str, int]
    num_copies: int
    num_contradictions: int
    intrinsic_dimension: float | None
    label_sharpness: float | None
    sentences: list[str]


def profile(frame: Frame, roles: Roles | None = None) -> Profile:
    """Looks at the data; nothing is trained and nothing is changed.

    Args:
        frame: the rows.
        roles: of columns, where the user says so.

    Raises:
        MarginsError: columns that cannot have their roles.

    Example:
        >>> from margins.data.reading import read_frame
        >>> rows = {"text": ["good film"] * 9 + ["bad film"], "label": ["p"] * 9 + ["n"]}
        >>> found = profile(read_frame(rows))
        >>> found.class_counts, found.num_copies
        ({'p': 9, 'n': 1}, 8)
    """
    columns, decided = choose_columns(frame, **asdict(roles or Roles()))
    problem, odd = pose(frame, columns)
    counts = _class_counts(problem)
    copies, contradictions = copies_in(frame, columns)
    sentences = [*decided, *odd, *_balance(counts, len(frame))]
    if copies:
        sentences.append(
            f"{copies} of {len(frame)} rows ({copies / len(frame):.1%}) copy the inputs of an earlier row, "
            f"{contradictions} of them with another target."
        )
    sentences += [found.sentence for found in overlap(frame, columns, problem.division)]
    near = _nearness(problem)
    sentences += near.sentences
    return Profile(
        source=frame.source, fingerprint=frame.fingerprint, num_rows=len(frame),
        columns=[_column(frame.table[name], _role(columns, name)) for name in frame.names],
        class_counts=counts, num_copies=copies, num_contradictions=contradictions,
        intrinsic_dimension=near.intrinsic_dimension, label_sharpness=near.label_sharpness,
        sentences=sentences,
    )  # fmt: skip


def _column(cells: pl.Series, role: str) -> ColumnProfile:
    import polars as pl

    filled = cells.is_not_null()
    if cells.dtype == pl.String:
        filled = filled & (cells.str.strip_chars() != "").fill_null(value=False)
    there = cells.filter(filled)
    nested = isinstance(cells.dtype, (pl.Array, pl.List))
    sample = str(cells.dtype) if nested else str(there[0]) if len(there) else ""
    return ColumnProfile(
        name=cells.name, role=role, filled=int(filled.sum()) / max(len(cells), 1),
        num_different=len(there) if nested else there.n_unique(),
        sample=" ".join(sample.split())[:_SAMPLE_CHARS],
    )  # fmt: skip


def _role(columns: Columns, name: str) -> str:
    if name in columns.inputs:
        return f"input ({columns.inputs[name]})"
    if name == columns.target:
        return f"target ({columns.target_kind})"
    roles = columns.model_dump(exclude={"inputs", "separator", "class_order"})
    others = {value: role for role, value in roles.items() if isinstance(value, str)}
    return others.get(name, "not used")


def _class_counts(problem: Problem) -> dict[str, int]:
    if problem.columns.target_kind == "value":
        return {}
    counts = np.bincount(problem.targets.positives().columns.numpy(), minlength=problem.coding.num_outputs)
    order = np.argsort(-counts, kind="stable")
    return {problem.coding.names[i]: int(counts[i]) for i in order.tolist()}


def _nearness(problem: Problem) -> Nearness:
    rows = numeric_rows(problem.frame, problem.columns.inputs)
    if rows is None:
        return Nearness(intrinsic_dimension=None, label_sharpness=None, sentences=[])
    has_classes = problem.columns.target_kind == "label" and problem.targets.has_one_positive
    return nearness(rows, class_ids(problem.targets) if has_classes else None)


def _balance(counts: dict[str, int], num_rows: int) -> list[str]:
    if not counts:
        return []
    values = np.array(list(counts.values()))
    names = list(counts)
    rare = int((values < _RARE_ROWS).sum())
    told = [
        f"{len(counts)} classes; the largest, {names[0]!r}, has {values[0]} rows "
        f"({values[0] / num_rows:.1%}), the smallest, {names[-1]!r}, {values[-1]}."
    ]
    if values[0] > _IMBALANCED * max(values[-1], 1):
        told.append(
            f"Classes are imbalanced ({values[0] / max(values[-1], 1):.0f} to 1): accuracy hides the rare "
            "ones; judge by macro_f1, balanced_accuracy or average_precision."
        )
    if rare:
        told.append(f"{rare} classes have fewer than {_RARE_ROWS} rows: their scores will be uncertain.")
    return told


def copies_in(frame: Frame, columns: Columns) -> tuple[int, int]:
    """Rows that repeat the inputs of an earlier row, and those of them with another target."""
    import polars as pl

    keys = row_keys(frame, columns)
    target = frame.table[columns.target or ""]
    if isinstance(target.dtype, pl.List):
        target = target.list.eval(pl.element().cast(pl.String)).list.join("\x1f")
    table = pl.DataFrame({"key": keys, "target": target})
    first = table.group_by("key", maintain_order=True).agg(pl.col("target").first().alias("first"))
    joined = table.join(first, on="key", how="left", maintain_order="left")
    is_copy = ~joined["key"].is_first_distinct()
    other = (joined["target"] != joined["first"]).fill_null(value=False)
    return int(is_copy.sum()), int((is_copy & other).sum())
