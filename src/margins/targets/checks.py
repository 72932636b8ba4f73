"""What constructors of targets refuse, each with the argument, what was expected and the likely fix.

Shapes and dtypes are always checked. Values are checked where looking at them is free: on the CPU, outside
a compiled graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from margins.errors import MarginsError, describe, values_are_readable


def check_tensor(name: str, value: object, expected: str) -> None:
    """A tensor, not a list or an array."""
    if not isinstance(value, Tensor):
        raise MarginsError(name, expected=f"a tensor, {expected}", received=describe(value))


def index_of(name: str, rows: Tensor, num_anchors: int) -> Tensor:
    """Row numbers from an index tensor or a boolean mask over the rows."""
    check_tensor(name, rows, "[n] row numbers or a [B] mask")
    if rows.dtype == torch.bool and tuple(rows.shape) == (num_anchors,):
        return rows.nonzero()[:, 0]
    if rows.dtype == torch.bool:
        raise MarginsError(name, expected=f"a mask [B] = [{num_anchors}]", received=describe(rows))
    check_labels(name, rows, dims="[n]")
    wrong = rows[(rows < -num_anchors) | (rows >= num_anchors)] if values_are_readable(rows) else rows[:0]
    if wrong.shape[0]:
        raise MarginsError(name, expected=f"rows in [0, {num_anchors})", received=str(int(wrong[0])))
    return rows.long()


def check_labels(name: str, labels: Tensor, *, dims: str = "[B]") -> None:
    """One-dimensional integers."""
    check_tensor(name, labels, f"{dims} integers")
    is_index = labels.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if labels.ndim == 1 and is_index:
        return
    fix = ""
    if labels.ndim == 2 and labels.is_floating_point():
        fix = "soft or multi-hot targets: Targets.of_scores"
    elif labels.ndim == 2 and labels.shape[1] == 1:
        fix = "drop the last axis: labels.squeeze(1)"
    elif labels.is_floating_point():
        fix = "class ids: labels.long(); real values to regress on: Targets.of_values"
    raise MarginsError(name, expected=f"{dims} integers", received=describe(labels), fix=fix)


def check_range(name: str, labels: Tensor, num_classes: int, *, ignored: int | None = None) -> None:
    """Integers in [0, num_classes), or equal to `ignored`."""
    if num_classes < 1:
        raise MarginsError("num_classes", expected="at least 1", received=str(num_classes))
    if not values_are_readable(labels) or labels.shape[0] == 0:
        return
    wrong = (labels >= num_classes) | (labels < 0)
    if ignored is not None:
        wrong = wrong & (labels != ignored)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        allowed = "" if ignored is None else f" (or {ignored} to ignore the row)"
        raise MarginsError(
            name,
            expected=f"integers in [0, C) = [0, {num_classes}){allowed}",
            received=f"{int(labels[row])} at row {row}",
            fix="number the classes from 0 to C - 1 and pass num_classes=C",
        )


def check_finite(name: str, values: Tensor) -> None:
    """No NaN, no infinity."""
    if not values_are_readable(values) or values.numel() == 0:
        return
    low, high = torch.aminmax(values.detach())  # one pass; NaN shows in both
    if not (torch.isfinite(low) and torch.isfinite(high)):
        where = torch.isfinite(values).logical_not().nonzero()[0].tolist()
        raise MarginsError(
            name, expected="finite numbers", received=f"{float(values[tuple(where)])} at {where}"
        )


def check_matrix(name: str, matrix: Tensor, letters: str) -> None:
    """Two-dimensional, floating point."""
    check_tensor(name, matrix, f"{letters} floats")
    if matrix.ndim != 2 or not matrix.is_floating_point():
        fix = "convert by .float()" if matrix.ndim == 2 else ""
        raise MarginsError(name, expected=f"{letters} floats", received=describe(matrix), fix=fix)


def check_not_negative(name: str, values: Tensor) -> float:
    """No value below 0, none that is not finite; returns the largest, or infinity where it cannot look."""
    if not values_are_readable(values) or values.numel() == 0:
        return float("inf")
    low, high = (float(x) for x in torch.aminmax(values.detach()))
    if low < 0:
        raise MarginsError(name, expected="values >= 0", received=f"{low:g}")
    if not (math.isfinite(low) and math.isfinite(high)):
        check_finite(name, values)
    return high
