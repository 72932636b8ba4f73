"""A metric: what it is called, what it is computed from, and how it is called on predictions.

Two rules hold for classes. With two of them, class 1 is the positive one for metrics that rank (tables number
classes from the most frequent to the rarest, so it is the rarer one). A macro average is over the classes
that have rows among the truth. Rules of ties stand in `ranking` and `curves`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from margins.errors import MarginsError, MarginsWarning
from margins.evaluation.forms import Sums, Whole
from margins.evaluation.records import Floats, Task, check_weight, read_record

Kind = Literal["f1", "accuracy", "ranking", "probability", "candidates", "values"]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A metric of some rows, with what it was measured on.

    Args:
        value: the number.
        num_rows: rows that count.
        num_lone: rows that cannot count, because nothing is relevant (or known) in them.
    """

    value: float
    num_rows: int
    num_lone: int


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A named metric.

    Args:
        name: as users write it.
        title: as reports write it.
        higher_is_better: its direction.
        kind: what it looks at: hard decisions (f1, accuracy), the order of rows (ranking), probabilities, the
            order of candidates within a row, or real values.
        tasks: what it can be computed for.
        compute: the number, from a checked record; call the metric itself for unchecked input.
        chance: for classes, its value for the best constant guess, from the shares of the classes; NaN where
            these do not tell.
        per_class: the metric of each class from a record and weights, NaN where undefined; None if it has
            none.
    """

    name: str
    title: str
    higher_is_better: bool
    kind: Kind
    tasks: tuple[Task, ...]
    compute: Sums | Whole
    chance: Callable[[Floats], float]
    per_class: Callable[[Any, Floats], Floats] | None = None

    def __call__(self, predictions: object, truth: object, *, weight: object = None) -> float:
        """The metric of these predictions; lone rows are told in a warning (MG020).

        Args:
            predictions: for classes probabilities [N, C] whose rows sum to one; for label sets and rankings
                scores [N, C] or `Embeddings`; for values [N] or [N, D].
            truth: class ids [N]; `Targets` or (offsets, columns); real values shaped like the predictions.
            weight: [N] row weights >= 0; None for ones.

        Returns:
            a finite number.

        Raises:
            MarginsError: shapes that do not fit, no row, non-finite numbers, labels out of range, or nothing
                to measure.
        """
        measured = self.measure(predictions, truth, weight=weight)
        if measured.num_lone:
            text = (
                f"{self.name}: {measured.num_lone} of {measured.num_lone + measured.num_rows} rows have "
                "nothing relevant and do not count; Metric.measure gives their number without this warning"
            )
            warnings.warn(MarginsWarning("MG020", text), stacklevel=2)
        return measured.value

    def measure(self, predictions: object, truth: object, *, weight: object = None) -> Measurement:
        """The metric with the number of rows that count; arguments as in the call."""
        record = read_record(self.tasks, predictions, truth)
        weights = self.weights(weight, len(record))
        if isinstance(self.compute, Whole) or self.compute.rows is None:
            value, num_lone = self.compute(record, weights), 0
        else:
            rows = self.compute.rows(record)
            value = float(self.compute.finish(weights @ rows))
            num_lone = int((rows[:, -1] == 0).sum())
        if not np.isfinite(value):
            raise nothing_to_measure(self.name, num_lone)
        return Measurement(value=value, num_rows=len(record) - num_lone, num_lone=num_lone)

    def weights(self, weight: object, num_rows: int) -> Floats:
        """Checked row weights; refused by a metric for which they have no meaning."""
        checked = check_weight(weight, num_rows)
        if weight is not None and isinstance(self.compute, Whole) and not self.compute.takes_weight:
            raise MarginsError("weight", expected=f"none for {self.name}", received="row weights")
        return checked

    def improvement(self, difference: float) -> float:
        """The difference with the sign that makes better positive."""
        return difference if self.higher_is_better else -difference


def nothing_to_measure(name: str, num_lone: int) -> MarginsError:
    """The error for a metric of rows none of which counts."""
    return MarginsError(
        "truth", expected=f"a row that counts for {name}", received=f"none, {num_lone} with nothing relevant"
    )
