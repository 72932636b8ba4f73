"""From the values of an effect, one a seed, to an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from margins.evaluation.statistics import corrected_t

Outcome = Literal["shown", "not shown", "opposite", "not run"]
"""Shown: the interval lies on the claimed side of the bound; opposite: on the other side; not run: what it
needs was missing."""


def outcome_of(
    values: Sequence[float], above: float, *, test_to_train: float
) -> tuple[Outcome, float, float]:
    """The outcome of a claim that a mean is above a bound, and the 95 % interval of the mean.

    Args:
        values: of the effect, one a seed, at least two.
        above: the bound.
        test_to_train: tested rows over trained ones where seeds divide one data set anew; 0 for independent
            values.

    Example:
        >>> outcome_of([0.02, 0.03, 0.025, 0.02, 0.03], 0.0, test_to_train=0.0)[0]
        'shown'
        >>> outcome_of([0.02, -0.03, 0.025, -0.02, 0.03], 0.0, test_to_train=0.0)[0]
        'not shown'
        >>> outcome_of([-0.02, -0.03, -0.025, -0.02, -0.03], 0.0, test_to_train=0.0)[0]
        'opposite'
    """
    found = corrected_t(list(values), test_to_train=test_to_train)
    if found.low > above:
        return "shown", found.low, found.high
    return ("opposite" if found.high < above else "not shown"), found.low, found.high
