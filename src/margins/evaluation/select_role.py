"""Predictions on the select rows: the only ones that calibration and thresholds may be fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from margins.errors import MarginsError
from margins.evaluation.records import Array, Floats, Ints, as_array, check_class_ids
from margins.targets import Targets


@dataclass(frozen=True, eq=False)
class SelectPredictions:
    """Logits of rows of the select role with their truth. Not of training rows, and not of report rows.

    Args:
        logits: [N, C] finite floats; of label sets, the score of each label.
        labels: [N] class ids, or label sets as `Targets` or (offsets, columns).

    Raises:
        MarginsError: shapes that do not fit, no row, non-finite logits, labels out of range.

    Example:
        >>> SelectPredictions(torch.zeros(2, 3), torch.tensor([0, 2])).class_ids()
        array([0, 2])
    """

    logits: Array
    labels: Array | Targets | tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        logits = as_array("logits", self.logits)
        if logits.ndim != 2 or not logits.size or logits.dtype.kind != "f":
            raise MarginsError(
                "logits", expected="[N, C] floats, N >= 1", received=f"{list(logits.shape)} {logits.dtype}"
            )
        if not np.isfinite(logits).all():
            raise MarginsError("logits", expected="finite numbers", received="NaN or infinity")
        if isinstance(self.labels, (Targets, tuple)):
            if self.label_sets().shape != logits.shape:
                raise _misfit(list(logits.shape), list(self.label_sets().shape))
            return
        labels = as_array("labels", self.labels)
        if labels.shape != logits.shape[:1]:
            raise _misfit(f"[N] with N = {len(logits)}", list(labels.shape))
        check_class_ids("labels", labels, logits.shape[1])

    def numbers(self) -> Floats:
        """The logits in float64."""
        return as_array("logits", self.logits).astype(np.float64)

    def class_ids(self) -> Ints:
        """The class of each row.

        Raises:
            MarginsError: the labels are label sets.
        """
        if isinstance(self.labels, (Targets, tuple)):
            raise MarginsError("labels", expected="[N] class ids here", received="label sets")
        return as_array("labels", self.labels).astype(np.int64)

    def label_sets(self) -> Targets:
        """The labels of each row.

        Raises:
            MarginsError: the labels are class ids.
        """
        if isinstance(self.labels, Targets):
            return self.labels
        if isinstance(self.labels, tuple):
            return Targets.of_label_sets(self.labels, self.logits.shape[1])
        raise MarginsError(
            "labels", expected="label sets here: Targets, or (offsets, columns)", received="class ids",
            fix="for two classes use fit_binary_threshold",
        )  # fmt: skip


def check_select(value: object) -> SelectPredictions:
    """The value, if it is of the select role by its type.

    Raises:
        MarginsError: anything else.
    """
    if not isinstance(value, SelectPredictions):
        raise MarginsError(
            "select", expected="SelectPredictions", received=type(value).__name__,
            fix="fit on predictions for rows of the select role: SelectPredictions(logits, labels)",
        )  # fmt: skip
    return value


def log_softmax(logits: Floats) -> Floats:
    """Log probabilities [N, C] of logits, in float64."""
    return torch.from_numpy(logits).log_softmax(1).numpy()


def _misfit(expected: object, received: object) -> MarginsError:
    return MarginsError("labels", expected=str(expected), received=str(received))
