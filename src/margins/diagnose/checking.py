"""What diagnostics ask of rows, labels and figures before they measure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.errors import MarginsError, describe

Floats = npt.NDArray[np.float64]


def as_rows(name: str, inputs: Tensor, *, least: int = 1) -> Tensor:
    """Inputs [N, ...] as a detached float64 matrix [N, d] on their device.

    Raises:
        MarginsError: integers, one axis, fewer than `least` rows, or numbers that are not finite.
    """
    if not inputs.is_floating_point() or inputs.ndim < 2 or len(inputs) < least:
        raise MarginsError(name, expected=f"[N, ...] floats, N >= {least}", received=describe(inputs))
    rows = inputs.detach().flatten(1).double()
    if not bool(torch.isfinite(rows).all()):
        raise MarginsError(name, expected="finite numbers", received="some that are not")
    return rows


def check_labels(name: str, labels: Tensor, num_rows: int) -> None:
    """Refuses labels that are not one integer of at least 0 a row."""
    if labels.shape != (num_rows,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise MarginsError(name, expected=f"[N] = [{num_rows}] integers", received=describe(labels))
    if num_rows and int(labels.min()) < 0:
        raise MarginsError(
            name, expected="class ids from 0", received=str(int(labels.min())),
            fix="leave rows without a label out",
        )  # fmt: skip


def as_figures(name: str, values: Sequence[float] | Floats | Tensor, *, least: int = 1) -> Floats:
    """Measured figures as float64.

    Raises:
        MarginsError: fewer than `least` along the last axis, or numbers that are not finite.
    """
    figures = np.asarray(values, np.float64)
    if figures.ndim == 0 or figures.shape[-1] < least:
        raise MarginsError(name, expected=f"at least {least} numbers", received=str(list(figures.shape)))
    if not np.isfinite(figures).all():
        raise MarginsError(name, expected="finite numbers", received="some that are not")
    return figures


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if value < least:
        raise MarginsError(name, expected=f"at least {least}", received=str(value))
    return value


def check_positive(name: str, value: float) -> float:
    """A finite number above 0."""
    if not (value > 0 and np.isfinite(value)):
        raise MarginsError(name, expected="a finite number above 0", received=str(value))
    return value


def check_share(name: str, value: float) -> float:
    """A number strictly between 0 and 1."""
    if not 0 < value < 1:
        raise MarginsError(name, expected="a number in (0, 1)", received=str(value))
    return value
