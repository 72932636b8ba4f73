"""Metrics of hard decisions: functions of how often each class is right, guessed and true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from margins.errors import MarginsError
from margins.evaluation.forms import Sums, row_means
from margins.evaluation.records import Candidates, Classes, Floats, sums_by

Average = Literal["macro", "micro", "weighted"]


def counts(record: Classes | Candidates, weight: Floats) -> Floats:
    """[3 C]: for each class the weight of rows where it is right, where it is guessed, where it is true."""
    if isinstance(record, Classes):
        guesses, num = record.probabilities.argmax(1), record.probabilities.shape[1]
        right = guesses == record.labels
        parts = [
            sums_by(record.labels[right], weight[right], num),
            sums_by(guesses, weight, num),
            sums_by(record.labels, weight, num),
        ]
        return np.concatenate(parts)
    decided, (rows, columns) = decisions(record), _positive_entries(record)
    guessed_rows, guessed_columns = np.nonzero(decided)
    hit = decided[rows, columns]
    num = decided.shape[1]
    parts = [
        sums_by(columns[hit], weight[rows[hit]], num),
        sums_by(guessed_columns, weight[guessed_rows], num),
        sums_by(columns, weight[rows], num),
    ]
    return np.concatenate(parts)


def decisions(record: Candidates) -> npt.NDArray[np.bool_]:
    """Which labels are given: boolean scores as they are, probabilities of one half or more.

    Raises:
        MarginsError: numbers that are no probabilities; whether they are logits is not guessed.
    """
    scores = record.matrix()
    if scores.dtype != torch.bool and not bool(((scores >= 0) & (scores <= 1)).all()):
        raise MarginsError(
            "scores",
            expected="probabilities in [0, 1], or boolean decisions, for a metric of decisions",
            received=f"{float(scores.min()):g} to {float(scores.max()):g}",
            fix="pass torch.sigmoid(logits), or decide with Thresholds",
        )
    decided = scores if scores.dtype == torch.bool else scores >= 0.5
    known = record.targets.known(0, record.targets.num_candidates)
    return (decided if known is None else decided & known).numpy()


def f_beta(beta: float, average: Average) -> Sums:
    """F-beta of counts; macro over the classes that are true for some row."""

    def finish(sums: Floats) -> Floats:
        table = _table(sums)
        if average == "micro":
            return _f(table.sum(-1, keepdims=True), beta)[..., 0]
        scores, true = _f(table, beta), table[..., 2, :]
        return _mean(scores, (true > 0).astype(np.float64) if average == "macro" else true)

    return Sums(state=counts, finish=finish)


def class_f_beta(beta: float) -> Callable[[Classes | Candidates, Floats], Floats]:
    """F-beta of each class, NaN for one that is true for no row."""

    def per_class(record: Classes | Candidates, weight: Floats) -> Floats:
        table = _table(counts(record, weight))
        return np.where(table[2] > 0, _f(table, beta), np.nan)

    return per_class


def class_recalls(record: Classes | Candidates, weight: Floats) -> Floats:
    """Recall of each class, NaN for one that is true for no row."""
    return _recalls(_table(counts(record, weight)))


def balanced_accuracy() -> Sums:
    """The mean recall of the classes that have rows."""
    return Sums(state=counts, finish=lambda sums: np.nanmean(_recalls(_table(sums)), axis=-1))


def g_mean() -> Sums:
    """The geometric mean of the recalls of the classes that have rows."""

    def finish(sums: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.exp(np.nanmean(np.log(_recalls(_table(sums))), axis=-1))

    return Sums(state=counts, finish=finish)


def matthews() -> Sums:
    """Matthews' correlation for any number of classes; 0 when all labels or all guesses are one class."""

    def finish(sums: Floats) -> Floats:
        right, guessed, true = np.moveaxis(_table(sums), -2, 0)
        total = true.sum(-1)
        covariance = right.sum(-1) * total - (guessed * true).sum(-1)
        spreads = [np.maximum(total**2 - (side**2).sum(-1), 0) for side in (guessed, true)]
        scale = np.sqrt(spreads[0]) * np.sqrt(spreads[1])
        return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)

    return Sums(state=counts, finish=finish)


def accuracy() -> Sums:
    """The share of rows whose most probable class is the true one; of ties, the class of lowest number."""
    return row_means(lambda record: (record.probabilities.argmax(1) == record.labels).astype(np.float64))


def top_accuracy(k: int) -> Sums:
    """The share of rows whose true class is among the k most probable; ties as in accuracy."""

    def rows(record: Classes) -> Floats:
        p, labels = record.probabilities, record.labels[:, None]
        own = np.take_along_axis(p, labels, 1)
        before = (p > own) | ((p == own) & (np.arange(p.shape[1]) < labels))
        return (before.sum(1) < k).astype(np.float64)

    return row_means(rows)


def subset_accuracy() -> Sums:
    """The share of rows whose set of labels is given exactly."""
    return row_means(lambda record: np.where(_num_known(record) > 0, _num_wrong(record) == 0, np.nan))


def hamming_loss() -> Sums:
    """The share of (row, known label) entries that are decided wrongly, a mean over rows."""

    def rows(record: Candidates) -> Floats:
        known = _num_known(record)
        return np.where(known > 0, _num_wrong(record) / np.maximum(known, 1), np.nan)

    return row_means(rows)


def _num_known(record: Candidates) -> Floats:
    return record.targets.num_known().double().numpy()


def _num_wrong(record: Candidates) -> Floats:
    decided, (rows, columns) = decisions(record), _positive_entries(record)
    hits = np.bincount(rows[decided[rows, columns]], minlength=len(record))
    return decided.sum(1) + np.bincount(rows, minlength=len(record)) - 2.0 * hits


def _positive_entries(record: Candidates) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    rows, columns, _ = record.positives()
    return rows.numpy(), columns.numpy()


def _table(sums: Floats) -> Floats:
    return sums.reshape(*sums.shape[:-1], 3, -1)


def _f(table: Floats, beta: float) -> Floats:
    right, guessed, true = table[..., 0, :], table[..., 1, :], table[..., 2, :]
    below = beta**2 * true + guessed
    return np.divide((1 + beta**2) * right, below, out=np.zeros_like(below), where=below > 0)


def _recalls(table: Floats) -> Floats:
    right, true = table[..., 0, :], table[..., 2, :]
    return np.divide(right, true, out=np.full_like(true, np.nan), where=true > 0)


def _mean(values: Floats, weight: Floats) -> Floats:
    total = weight.sum(-1)
    summed = (values * weight).sum(-1)
    return np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0)
