"""The rows of a comparison: which are compared on, which are kept to report, and what is predicted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from margins.compare.problem.inputs import InputsOf, SharedInputsProblem
from margins.data.choosing import choose_columns
from margins.data.class_coding import ClassCoding
from margins.data.coding import TargetCoding
from margins.data.columns import Columns
from margins.data.dividing import Division, divide
from margins.data.fitting_codings import fit_coding, numbered_by
from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.data.splits import group_ids
from margins.data.weights import weights
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.request import Roles

Ints = npt.NDArray[np.int64]

_NOT_USED = ("time", "domain")


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedRows:
    """Rows with targets.

    Args:
        frame: all of them.
        columns: what each column is for.
        coding: of the target; of numbers it is fitted anew in every fold.
        targets: of all rows, with their weights.
        inside: rows that the outer folds go over, ascending.
        report: rows that nothing sees before the end, ascending; may be none.
        groups: [N] rows of one number stay together; None without groups.
        decided: a sentence for everything that was decided.
        notes: a sentence for everything that is odd but usable.
    """

    frame: Frame
    columns: Columns
    coding: TargetCoding
    targets: Targets
    inside: Ints
    report: Ints
    groups: Ints | None
    decided: list[str]
    notes: list[str]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.frame)

    @property
    def names(self) -> list[str]:
        """The name of each class or label, in the order of their numbers."""
        return list(self.coding.names)

    @cached_property
    def counts(self) -> npt.NDArray[np.float64]:
        """[C] rows of each class or label, by weight where rows have one; empty for values."""
        if not self.targets.storage.has_positives:
            return np.zeros(0)
        listed = self.targets.positives()
        weight = self.targets.row_weight
        each = None if weight is None else weight[listed.rows].double().numpy()
        return np.bincount(listed.columns.numpy(), weights=each, minlength=len(self.names)).astype(float)

    @property
    def class_counts(self) -> dict[str, int]:
        """Rows of each class or label, largest first; empty for values."""
        if not self.targets.storage.has_positives:
            return {}
        counts = np.bincount(self.targets.positives().columns.numpy(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable").tolist()
        return {self.names[i]: int(counts[i]) for i in order}

    def problem(
        self, division: Division, inputs_of: InputsOf, labels: Ints | None = None
    ) -> SharedInputsProblem:
        """The problem that these roles pose.

        Args:
            division: which rows train, select and report.
            inputs_of: makes the inputs of all rows, or knows them already.
            labels: [N] other classes than the rows' own.
        """
        coding, targets = self.coding, self.targets
        if self.columns.target_kind == "value":
            cells = self.frame.table[self.columns.target or ""]
            coding = fit_coding(cells, "value", train=division.train)
            targets = self._weighed(coding.targets(cells))
        elif labels is not None:
            targets = self._weighed(Targets.of_classes(torch.from_numpy(labels), len(self.names)))
        return SharedInputsProblem(self.frame, self.columns, coding, division, targets, inputs_of)

    def _weighed(self, targets: Targets) -> Targets:
        weight = self.targets.row_weight
        return targets if weight is None else targets.weigh(rows=weight)


def compared_rows(
    frame: Frame,
    roles: Roles | None = None,
    *,
    positive: str | None = None,
    report_share: float = 0.15,
    seed: int = 0,
) -> ComparedRows:
    """Finds the columns, numbers the classes, the most frequent first, and sets the report rows apart.

    Args:
        frame: the rows.
        roles: of columns, where the user says so.
        positive: of two classes the one that is looked for: it becomes number 1, which ranking metrics take
            as positive. Without it that is the rarer one.
        report_share: of the rows, where no column says; 0 for none.
        seed: of their draw.

    Raises:
        MarginsError: columns that cannot have their roles, or no such class.

    Example:
        >>> from margins.data.reading import read_frame
        >>> frame = read_frame({"size": [1.5, 2.5, 3.5], "label": ["a", "b", "a"]})
        >>> rows = compared_rows(frame, report_share=0)
        >>> rows.names, rows.class_counts, len(rows.inside)
        (['a', 'b'], {'a': 2, 'b': 1}, 3)
    """
    roles = roles or Roles()
    _refuse_not_used(roles)
    columns, decided = choose_columns(frame, **asdict(roles))
    if columns.target is None or columns.target_kind is None:
        raise MarginsError("target", expected="a column to predict", received="none", fix="name one")
    cells = frame.table[columns.target]
    coding = fit_coding(
        cells, columns.target_kind, separator=columns.separator, class_order=columns.class_order
    )
    inside, report, told = _parted(frame, columns, coding.targets(cells), report_share, seed)
    coding = numbered_by(coding, coding.targets(cells).take(torch.from_numpy(inside)))
    coding = _with_positive(coding, positive)
    targets, weight = coding.targets(cells), weights(frame, columns)
    return ComparedRows(
        frame=frame, columns=columns, coding=coding,
        targets=targets if weight is None else targets.weigh(rows=weight.float()),
        inside=inside, report=report, groups=group_ids(frame, columns), decided=[*decided, *told],
        notes=[*frame.notes, *coding.notes, *_odd_inputs(frame, columns)],
    )  # fmt: skip


def _parted(
    frame: Frame, columns: Columns, targets: Targets, report_share: float, seed: int
) -> tuple[Ints, Ints, list[str]]:
    """The rows to compare on and those to report on."""
    everything = np.arange(len(frame), dtype=np.int64)
    if columns.split is None and not report_share:
        return everything, everything[:0], []
    division = divide(frame, columns, targets, seed=seed, report_share=report_share)
    inside = np.sort(np.concatenate([division.train, division.select]))
    if not len(division.report):
        return inside, division.report, []
    how = f"by the column {columns.split!r}" if columns.split else "drawn at random"
    return inside, division.report, [
        f"{len(division.report)} rows are kept to report ({how}); the outer folds go over the other "
        f"{len(inside)}"
    ]  # fmt: skip


def _refuse_not_used(roles: Roles) -> None:
    for role in _NOT_USED:
        name = getattr(roles, role)
        if name is not None:
            raise MarginsError(
                role, expected="none: the outer folds are drawn at random", received=repr(name),
                fix="leave it out; group= keeps rows together, split= names the rows to report on",
            )  # fmt: skip


def _with_positive(coding: TargetCoding, positive: str | None) -> TargetCoding:
    if positive is None:
        return coding
    if not isinstance(coding, ClassCoding) or len(coding.names) != 2:
        raise MarginsError(
            "positive", expected="a target with two classes",
            received=f"{len(coding.names)} classes" if isinstance(coding, ClassCoding) else coding.kind,
            fix="leave it out",
        )  # fmt: skip
    if positive not in coding.names:
        raise MarginsError(
            "positive", expected=" or ".join(map(repr, coding.names)), received=repr(positive),
            fix=suggestion(positive, coding.names),
        )  # fmt: skip
    if coding.is_ordered and coding.names[1] != positive:
        raise MarginsError(
            "positive", expected=f"the higher class, {coding.names[1]!r}", received=repr(positive),
            fix="leave class_order out",
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
