"""The demo: handwritten digits whose training rows are made long-tailed and partly mislabelled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from margins.compare.results import ComparisonResult
from margins.compare.run import compare
from margins.compare.trials import OnTrialDone, Spoiling
from margins.data import Table
from margins.data.extras import extra

Ints = npt.NDArray[np.int64]

LONG_TAIL = 20.0
MISLABELLED = 0.2


def digits_table() -> Table:
    """scikit-learn's 1797 digits of 8 x 8 pixels, which come with the package."""
    with extra("tool"):
        from sklearn.datasets import load_digits
    pixels, digits = load_digits(return_X_y=True)
    values, labels = np.asarray(pixels, np.float64), np.asarray(digits, np.int64)
    counts = np.bincount(labels)
    order = np.argsort(-counts, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Table(
        source="digits (scikit-learn)",
        source_sha256=hashlib.sha256(values.tobytes() + labels.tobytes()).hexdigest(),
        task="image",
        inputs=["8 x 8 pixels"],
        target="digit",
        numbers=values,
        labels=place[labels],
        classes=[str(digit) for digit in order],
    )


def long_tail_with_wrong_labels(
    order: Sequence[int], *, ratio: float = LONG_TAIL, wrong: float = MISLABELLED
) -> Spoiling:
    """Keeps geometrically fewer rows of each class in turn, then relabels a share of what is left.

    Args:
        order: all class ids, the one that is to stay largest first.
        ratio: rows of the largest class over rows of the smallest.
        wrong: share of the kept rows that get another class, each other class as likely.
    """
    num_classes = len(order)

    def change(rows: Ints, labels: Ints, generator: np.random.Generator) -> tuple[Ints, Ints]:
        largest = int(np.bincount(labels, minlength=num_classes).min())
        kept: list[Ints] = []
        for place, label in enumerate(order):
            num = max(round(largest * ratio ** (-place / (num_classes - 1))), 1)
            kept.append(generator.permutation(np.flatnonzero(labels == label))[:num])
        at = np.sort(np.concatenate(kept))
        given = labels[at].copy()
        flipped = generator.permutation(len(at))[: round(wrong * len(at))]
        given[flipped] = (given[flipped] + generator.integers(1, num_classes, len(flipped))) % num_classes
        return rows[at], given

    return Spoiling(
        change,
        f"The rows outside each outer fold were first made long-tailed ({ratio:g} to 1, in geometric "
        f"steps), then {wrong:.0%} of them got another class at random; the outer folds themselves stayed "
        "clean and balanced.",
    )


def run_demo(
    *, num_folds: int = 10, num_repeats: int = 3, on_trial_done: OnTrialDone | None = None
) -> ComparisonResult:
    """Compares the recipes on the spoiled digits, by macro F1.

    Args:
        num_folds: outer folds; two and one repeat make a quick smoke run.
        num_repeats: of the division into folds.
        on_trial_done: called after each training with (done, total, recipe, fold, seed).
    """
    table = digits_table()
    zero_first = [table.classes.index(digit) for digit in sorted(table.classes)]
    return compare(
        table,
        "macro_f1",
        num_folds=num_folds,
        num_repeats=num_repeats,
        spoiling=long_tail_with_wrong_labels(zero_first),
        on_trial_done=on_trial_done,
    )
