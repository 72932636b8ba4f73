"""Metrics of probabilities: proper scores, and how far confidence is from the frequency of being right.

The calibration errors use 15 bins of equal width, closed above. They are biased upward on few rows.
"""

from __future__ import annotations

import numpy as np

from margins.errors import MarginsError
from margins.evaluation.forms import Sums, row_means
from margins.evaluation.records import Candidates, Classes, Floats, sums_by

NUM_BINS = 15
_SUM_SLACK = 1e-3  # rows of float16 probabilities sum to one within this


def log_loss() -> Sums:
    """Minus the log of the true class's probability; for label sets the mean binary loss of entries."""
    return row_means(_log_loss_rows)


def brier() -> Sums:
    """The squared distance to the truth: summed over classes, halved for two; a mean of entries for sets."""
    return row_means(_brier_rows)


def calibration_error() -> Sums:
    """The mean over rows of |confidence - accuracy| of their bin, of the most probable class."""

    def state(record: Classes, weight: Floats) -> Floats:
        p = checked(record).probabilities
        guesses = p.argmax(1)
        top = np.take_along_axis(p, guesses[:, None], 1)[:, 0]
        gap = sums_by(_bins(top), weight * (top - (guesses == record.labels)), NUM_BINS)
        return np.append(gap, weight.sum())

    return Sums(state=state, finish=lambda sums: np.abs(sums[..., :-1]).sum(-1) / sums[..., -1])


def classwise_calibration_error() -> Sums:
    """The mean over classes of the calibration error of that class's probability against the rest."""

    def finish(sums: Floats) -> Floats:
        gaps = np.abs(sums[..., :-1])
        return gaps.sum(-1) / sums[..., -1] / (gaps.shape[-1] // NUM_BINS)

    return Sums(state=_classwise_gaps, finish=finish)


def class_calibration_errors(record: Classes, weight: Floats) -> Floats:
    """The calibration error of each class's probability, [C]."""
    gaps = np.abs(_classwise_gaps(record, weight))
    return gaps[:-1].reshape(-1, NUM_BINS).sum(1) / gaps[-1]


def checked(record: Classes) -> Classes:
    """The record, if its rows are probabilities.

    Raises:
        MarginsError: a number outside [0, 1], or a row that does not sum to one.
    """
    p = record.probabilities
    off = float(np.abs(p.sum(1) - 1).max())
    if p.min() < 0 or p.max() > 1 + _SUM_SLACK or off > _SUM_SLACK:
        raise MarginsError(
            "probabilities",
            expected="numbers in [0, 1] whose rows sum to one, for a metric of probabilities",
            received=f"{p.min():g} to {p.max():g}, a row sum off by {off:g}",
            fix="pass logits.softmax(1)",
        )
    return record


def _log_loss_rows(record: Classes | Candidates) -> Floats:
    # A probability of exactly zero comes from rounding; the floor keeps the loss of such a row finite.
    tiny = np.finfo(np.float64).tiny
    if isinstance(record, Classes):
        given = checked(record).probabilities[np.arange(len(record)), record.labels]
        return -np.log(np.maximum(given, tiny))
    p, positive = _entries(record)
    given = np.where(positive, p, 1 - p)
    return _entry_means(record, -np.log(np.maximum(given, tiny)))


def _brier_rows(record: Classes | Candidates) -> Floats:
    if isinstance(record, Candidates):
        p, positive = _entries(record)
        return _entry_means(record, (p - positive) ** 2)
    p = checked(record).probabilities
    if p.shape[1] == 2:
        return (p[:, 1] - record.labels) ** 2
    own = p[np.arange(len(p)), record.labels]
    return (p**2).sum(1) - own**2 + (1 - own) ** 2


def _entries(record: Candidates) -> tuple[Floats, Floats]:
    p = record.matrix().double().numpy()
    if p.min() < 0 or p.max() > 1:
        raise MarginsError(
            "scores", expected="probabilities in [0, 1] for a metric of probabilities",
            received=f"{p.min():g} to {p.max():g}", fix="pass torch.sigmoid(logits)",
        )  # fmt: skip
    positive = record.targets.positive(0, record.targets.num_candidates)
    return p, positive.numpy().astype(np.float64)


def _entry_means(record: Candidates, losses: Floats) -> Floats:
    known = record.targets.known(0, record.targets.num_candidates)
    if known is None:
        return losses.mean(1)
    mask = known.expand(losses.shape).numpy()
    num = mask.sum(1)
    sums = np.where(mask, losses, 0.0).sum(1)
    return np.divide(sums, num, out=np.full(len(num), np.nan), where=num > 0)


def _classwise_gaps(record: Classes, weight: Floats) -> Floats:
    p = checked(record).probabilities
    num_classes = p.shape[1]
    columns = np.arange(num_classes)
    gaps = weight[:, None] * (p - (record.labels[:, None] == columns))
    keys = columns * NUM_BINS + _bins(p)
    sums = sums_by(keys.ravel(), gaps.ravel(), num_classes * NUM_BINS)
    return np.append(sums, weight.sum())


def _bins(p: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.clip(np.ceil(p * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
