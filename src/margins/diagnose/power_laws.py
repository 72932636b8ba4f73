"""A straight line through the logarithms of sizes and errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from margins.data.extras import extra
from margins.diagnose.checking import Floats, as_figures, check_share
from margins.errors import MarginsError


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """error = constant * size ** slope.

    Args:
        slope: of the line in logarithms.
        low: lower end of the interval of the slope.
        high: upper end.
        constant: the error at size 1.
        largest_residual: largest distance of a point from the line, as a share of the error there: a curve
            that bends shows here.
    """

    slope: float
    low: float
    high: float
    constant: float
    largest_residual: float

    def at(self, size: float) -> float:
        """The error at a size; beyond the sizes of the fit it is an extrapolation."""
        return self.constant * size**self.slope


def power_law(
    sizes: Sequence[float] | Floats, errors: Sequence[float] | Floats, *, confidence: float = 0.95
) -> PowerLaw:
    """The least squares line through the logarithms, with a t interval of its slope.

    With several repeats the interval is over them: each repeat has a slope of its own. With one it is over
    the points, and knows only how crooked they lie.

    Args:
        sizes: [S] above 0, S >= 3, at least two different.
        errors: [S] or [R, S] above 0: one row a repeat.
        confidence: of the interval.

    Raises:
        MarginsError: shapes that do not fit, numbers that have no logarithm.

    Example:
        >>> found = power_law([10, 100, 1000], [1.0, 0.1, 0.01])
        >>> round(found.slope, 6), round(found.at(10_000), 6)
        (-1.0, 0.001)
    """
    check_share("confidence", confidence)
    places, values = as_figures("sizes", sizes, least=3), as_figures("errors", errors, least=3)
    if places.ndim != 1 or values.ndim > 2 or values.shape[-1] != len(places) or not len(values):
        raise MarginsError(
            "errors", expected=f"[{len(places)}] or [R, {len(places)}]", received=str(list(values.shape))
        )
    if places.min() <= 0 or values.min() <= 0 or len(set(places.tolist())) < 2:
        raise MarginsError(
            "sizes, errors", expected="numbers above 0, of two sizes or more",
            received=f"sizes from {places.min():g} to {places.max():g}, errors from {values.min():g}",
        )  # fmt: skip
    x, y = np.log(places), np.log(np.atleast_2d(values))
    centred = x - x.mean()
    slopes = y @ centred / (centred @ centred)
    slope, intercept = float(slopes.mean()), float(y.mean() - slopes.mean() * x.mean())
    residuals = y.mean(0) - intercept - slope * x
    reach = _reach(slopes, residuals, float(centred @ centred), confidence)
    return PowerLaw(
        slope=slope, low=slope - reach, high=slope + reach, constant=math.exp(intercept),
        largest_residual=float(np.expm1(np.abs(residuals)).max()),
    )  # fmt: skip


def _reach(slopes: Floats, residuals: Floats, spread: float, confidence: float) -> float:
    with extra("tool"):
        from scipy.stats import t as student
    if len(slopes) > 1:
        freedom, error = len(slopes) - 1, float(slopes.std(ddof=1)) / math.sqrt(len(slopes))
    else:
        freedom = len(residuals) - 2
        error = math.sqrt(float(residuals @ residuals) / freedom / spread)
    return float(student.ppf((1 + confidence) / 2, freedom)) * error
