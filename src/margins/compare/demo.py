"""The demo: handwritten digits whose training rows are made long-tailed and partly mislabelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from margins.compare.problem.folding import Spoiling
from margins.compare.problem.rows import compared_rows
from margins.compare.results import ComparisonResult
from margins.compare.run import compare
from margins.compare.trials.scheduling import OnTrialDone
from margins.data.extras import extra
from margins.data.frame import Frame
from margins.data.reading import read_frame
from margins.training.request import Roles

Ints = npt.NDArray[np.int64]

LONG_TAIL = 20.0
MISLABELLED = 0.1
ROLES = Roles(target="digit")
# The rules would look at the table as it is, before its training rows are spoiled.
CANDIDATES = ("logit_adjusted", "generalized_cross_entropy")  # one for each thing that is wrong with the rows
REPORT_SHARE = 0.1


def digits_frame() -> Frame:
    """scikit-learn's 1797 digits of 8 x 8 pixels, which come with the package, a column a pixel."""
    with extra("tool"):
        from sklearn.datasets import load_digits
    pixels, digits = load_digits(return_X_y=True)
    values = np.asarray(pixels, np.float64)
    columns = {f"row {k // 8 + 1} column {k % 8 + 1}": np.array(values[:, k]) for k in range(64)}
    frame = read_frame({**columns, "digit": [str(digit) for digit in np.asarray(digits)]})
    return replace(frame, source="digits (scikit-learn)")


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
    *,
    num_folds: int = 10,
    num_repeats: int = 3,
    out: Path | None = None,
    on_trial_done: OnTrialDone | None = None,
    tell: Callable[[str], None] | None = None,
) -> ComparisonResult:
    """Compares the recipes on the spoiled digits, by macro F1.

    Args:
        num_folds: outer folds; few of them and one repeat make a quick smoke run.
        num_repeats: of the division into folds.
        out: folder for trials, results and the winner's model.
        on_trial_done: told after each trial.
        tell: told what is decided, and what the design can show.
    """
    frame = digits_frame()
    classes = compared_rows(frame, ROLES, report_share=REPORT_SHARE).names
    zero_first = [classes.index(digit) for digit in sorted(classes)]
    result = compare(
        frame,
        "macro_f1",
        roles=ROLES,
        candidates=CANDIDATES,
        num_folds=num_folds,
        num_repeats=num_repeats,
        report_share=REPORT_SHARE,
        spoiling=long_tail_with_wrong_labels(zero_first),
        out=out,
        on_trial_done=on_trial_done,
        tell=tell,
    )
    return _of_images(result)


def _of_images(result: ComparisonResult) -> ComparisonResult:
    """The same result, which calls the pixels by one name; that corners are always blank is no news."""
    description = result.description
    if description.kind == "image":
        return result  # it was here already
    told = f"Columns: target: column 'digit' (10 classes); inputs: {len(description.inputs)} pixels."
    rules = [told, *(sentence for sentence in description.protocol if not sentence.startswith("Columns:"))]
    return replace(
        result,
        description=replace(description, kind="image", inputs=["8 x 8 pixels"], protocol=rules),
        warnings=[w for w in result.warnings if not w.startswith("Columns with the same value")],
    )
