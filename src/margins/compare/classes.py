"""The rows of a comparison: inputs, and one class each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.data.choosing import choose_columns
from margins.data.class_coding import ClassCoding
from margins.data.columns import Columns
from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.data.roles import class_ids
from margins.data.splits import group_ids
from margins.data.weights import weights
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.request import Roles

Ints = npt.NDArray[np.int64]

_NOT_USED = ("split", "time", "domain")


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassRows:
    """Rows with a class each.

    Args:
        frame: all of them.
        columns: what each column is for.
        coding: numbers of the classes.
        labels: [N] the class of each row.
        weight: [N] float32; None when all rows count alike.
        groups: [N] rows of one number stay together; None without groups.
        decided: a sentence for everything that was decided.
        notes: a sentence for everything that is odd but usable.
    """

    frame: Frame
    columns: Columns
    coding: ClassCoding
    labels: Ints
    weight: Tensor | None
    groups: Ints | None
    decided: list[str]
    notes: list[str]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def classes(self) -> list[str]:
        """The name of each class, in the order of their numbers."""
        return list(self.coding.names)

    @property
    def class_counts(self) -> dict[str, int]:
        """Rows of each class, largest first."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable").tolist()
        return {self.classes[i]: int(counts[i]) for i in order}

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """[C] the share of each class, by weight where rows have one."""
        weight = None if self.weight is None else self.weight.double().numpy()
        counts = np.bincount(self.labels, weights=weight, minlength=len(self.classes))
        return counts / counts.sum()

    def input_frame(self) -> Frame:
        """All rows with the columns that a model sees."""
        return self.frame.only(list(self.columns.inputs))

    def targets(self, rows: Ints, labels: Ints | None = None) -> Targets:
        """The targets of these rows, with their weights.

        Args:
            rows: their numbers.
            labels: other classes than their own.
        """
        given = self.labels[rows] if labels is None else labels
        targets = Targets.of_classes(torch.from_numpy(given), len(self.classes))
        return targets if self.weight is None else targets.weigh(rows=self.weight[torch.from_numpy(rows)])


def class_rows(frame: Frame, roles: Roles | None = None, *, positive: str | None = None) -> ClassRows:
    """Finds the columns and numbers the classes, the most frequent first.

    Args:
        frame: the rows.
        roles: of columns, where the user says so.
        positive: of two classes the one that is looked for: it becomes number 1, which ranking metrics take
            as positive. Without it that is the rarer one.

    Raises:
        MarginsError: columns that cannot have their roles, a target that is no class, or no such class.

    Example:
        >>> from margins.data.reading import read_frame
        >>> rows = class_rows(read_frame({"size": [1.5, 2.5, 3.5], "label": ["a", "b", "a"]}))
        >>> rows.classes, rows.labels.tolist()
        (['a', 'b'], [0, 1, 0])
    """
    roles = roles or Roles()
    _refuse_not_used(roles)
    columns, decided = choose_columns(frame, **asdict(roles))
    if columns.target is None or columns.target_kind != "label":
        raise MarginsError(
            "target",
            expected="a column with one class a row: compare judges classes so far",
            received="none"
            if columns.target is None
            else f"{columns.target!r} of kind {columns.target_kind}",
            fix="say target_kind='label' if each cell is one class",
        )
    cells = frame.table[columns.target]
    coding = _with_positive(ClassCoding.fit(cells), positive)
    weight = weights(frame, columns)
    return ClassRows(
        frame=frame,
        columns=columns,
        coding=coding,
        labels=np.array(class_ids(coding.targets(cells)).numpy()),
        weight=None if weight is None else weight.float(),
        groups=group_ids(frame, columns),
        decided=decided,
        notes=[*frame.notes, *coding.notes, *_odd_inputs(frame, columns), *_not_used(columns)],
    )


def _refuse_not_used(roles: Roles) -> None:
    for role in _NOT_USED:
        name = getattr(roles, role)
        if name is not None:
            raise MarginsError(
                role, expected="none: the outer folds go over all rows", received=repr(name),
                fix="leave it out; group= keeps rows together",
            )  # fmt: skip


def _not_used(columns: Columns) -> list[str]:
    if columns.split is None:
        return []
    return [
        f"Column {columns.split!r} is named as one that divides rows; it was not used: the outer folds go "
        "over all rows."
    ]


def _with_positive(coding: ClassCoding, positive: str | None) -> ClassCoding:
    if positive is None:
        return coding
    if len(coding.names) != 2:
        raise MarginsError(
            "positive", expected="a target with two classes", received=f"{len(coding.names)} classes",
            fix="leave it out",
        )  # fmt: skip
    if positive not in coding.names:
        raise MarginsError(
            "positive", expected=" or ".join(map(repr, coding.names)), received=repr(positive),
            fix=suggestion(positive, coding.names),
        )  # fmt: skip
    other = next(name for name in coding.names if name != positive)
    return replace(coding, classes=(other, positive))


def _odd_inputs(frame: Frame, columns: Columns) -> list[str]:
    """Empty texts and columns that tell nothing."""
    told: list[str] = []
    for name in columns.inputs_of("text", "text_pair"):
        num = int((frame.table[name].fill_null("").str.strip_chars() == "").sum())
        if num:
            told.append(
                f"{num} of {len(frame)} rows have an empty text in column {name!r}; they are kept, and a "
                "model can only guess their class."
            )
    same = [n for n in columns.inputs_of("numeric", "categorical") if frame.table[n].n_unique() == 1]
    if same:
        told.append(f"Columns with the same value in every row tell nothing: {', '.join(same)}.")
    return told
