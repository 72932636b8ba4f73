"""What a design could show, said before anything is judged: the minimum detectable difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from margins.compare.planning import Design
from margins.compare.results import Preview
from margins.evaluation.statistics import detectable_difference

POWER = 0.8
HOPELESS = 10.0  # a lead of so many standard deviations over folds is not to be expected of any recipe
PILOT_SEEDS = 2


def stated_preview(design: Design, spread: float) -> Preview:
    """For a standard deviation of paired differences over folds that the user states.

    Args:
        design: of the comparison.
        spread: in the metric's unit, above 0.
    """
    size = _detectable(design, spread)
    return Preview(
        low=size, high=size, how="stated",
        sentences=[
            f"{_folds(design)}: for differences that vary by {spread:g} over folds, as stated, a true "
            f"difference of {size:.4f} in {design.metric.title} between two recipes would be found four "
            "times in five.",
            *_too_few(design, size, None),
        ],
    )  # fmt: skip


def piloted_preview(design: Design, scores: Sequence[Sequence[float]]) -> Preview:
    """From a pilot: the baseline with its defaults on the first folds, from two seeds each.

    How much the difference of two recipes varies over folds is not known before they are run. It varies at
    least as the difference of two trainings of one recipe that differ in their seed, and at most as if the
    recipes had been scored on other folds each.

    Args:
        design: of the comparison.
        scores: [folds][2] of the pilot.
    """
    found = np.array(scores, np.float64)
    if len(found) < 2:
        return Preview(low=None, high=None, how="pilot", sentences=["One fold tells nothing of spread."])
    seeds = float((found[:, 0] - found[:, 1]).std(ddof=1)) / math.sqrt(design.num_seeds)
    folds = math.sqrt(2) * float(found.mean(1).std(ddof=1))
    level = float(found.mean())
    if not seeds:
        return Preview(
            low=None, high=None, how="pilot",
            sentences=[
                f"{_folds(design)}: in a pilot of {design.baseline.title} two seeds scored alike on every "
                f"fold (mean {level:.4f}), which tells nothing of what could be found.",
                *_too_few(design, 0.0, level),
            ],
        )  # fmt: skip
    low, high = sorted((_detectable(design, seeds), _detectable(design, folds)))
    return Preview(
        low=low, high=high, how="pilot",
        sentences=[
            f"{_folds(design)}: a true difference of {low:.4f} in {design.metric.title} between two recipes "
            f"would be found four times in five if their differences vary as those of two seeds do, "
            f"one of {high:.4f} if pairing by folds gains nothing. (A pilot of "
            f"{design.baseline.title}: {len(found)} folds, {PILOT_SEEDS} seeds, mean {level:.4f}.)",
            *_too_few(design, low, level),
        ],
    )  # fmt: skip


def _detectable(design: Design, spread: float) -> float:
    return detectable_difference(
        spread, len(design.folds), test_to_train=design.test_to_train, power=POWER, alpha=design.alpha
    )


def _folds(design: Design) -> str:
    return f"{len(design.folds)} outer folds, {len(design.candidates)} recipes"


def _too_few(design: Design, low: float, level: float | None) -> list[str]:
    """A sentence when no recipe could be called better, however good it is."""
    start = "These are too few folds to expect that any recipe will be called better"
    fix = "Ask for more folds or repeats, or compare fewer recipes."
    spreads = _detectable(design, 1.0)
    if spreads > HOPELESS:
        return [
            f"{start}: it would have to lead by {spreads:.0f} times what differences vary by over folds. "
            f"{fix}"
        ]
    is_bounded = design.metric.kind in ("f1", "accuracy", "ranking", "candidates")
    room = (1.0 if is_bounded else math.inf) if level is None else _room(design, level)
    if low > room:
        return [f"{start}: not even a perfect one (+{room:.4f}) would be found four times in five. {fix}"]
    return []


def _room(design: Design, level: float) -> float:
    """What a perfect recipe would gain."""
    return abs((1.0 if design.metric.higher_is_better else 0.0) - level)
