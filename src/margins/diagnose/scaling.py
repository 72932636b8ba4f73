"""How the test loss should fall with more rows, by the dimension of the data, and how it did fall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from margins.cards import Card, carded
from margins.diagnose.checking import Floats, as_figures, check_positive
from margins.diagnose.power_laws import PowerLaw, power_law


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """A fitted learning curve beside the one that dimension and sharpness foretell.

    Args:
        fitted: loss against rows, with the interval of its slope.
        predicted_slope: -1 / dimension.
        offset: the mean over the points of log loss + log(rows) / dimension - log sharpness: the law's
            constant. Of like models on several data sets it should be the same.
        warnings: sentences.
    """

    fitted: PowerLaw
    predicted_slope: float
    offset: float
    warnings: tuple[str, ...]


@carded(
    Card(
        name="Scaling law of the intrinsic dimension",
        summary="after a few trainings: whether more rows help as fast as the data's dimension allows",
        paper="Konz, Mazurowski, The Effect of Intrinsic Dataset Properties on Generalization, 2024, "
        "arXiv 2401.08865",
        kind="diagnostic",
        stations=("after training",),
        targets=("classes", "values"),
        entry=28,
        limits=("losses C K N^(-1/d): slope -1/d, offset log C",),
        tests=("tests/test_intrinsic_dimension.py::test_losses_that_follow_the_law_give_its_constants",),
        study="intrinsic_dimension",
    )
)
def scaling_law(
    num_rows: Sequence[float] | Floats,
    losses: Sequence[float] | Floats,
    *,
    dimension: float,
    sharpness: float = 1.0,
    confidence: float = 0.95,
) -> ScalingLaw:
    r"""Fits log loss against log rows, and sets it beside $L(N) = C K N^{-1/d}$.

    Use it with losses of trained models on held-out rows at three or more sizes, to judge what more rows
    would bring. Read the fitted slope; the foretold one is that of a worst case: where classes are smooth or
    far apart, loss falls faster, and where labels are noisy it stops falling, which no power law knows.

    Args:
        num_rows: [S] training rows, S >= 3.
        losses: [S] or [R, S] test losses above 0; one row a repeat.
        dimension: intrinsic, of the inputs or of a layer's activations.
        sharpness: of the labels; it moves the offset alone.
        confidence: of the slope's interval.

    Raises:
        MarginsError: shapes that do not fit, numbers that are not above 0.

    Example:
        >>> found = scaling_law([100, 400, 1600], [0.5, 0.25, 0.125], dimension=2.0)
        >>> round(found.fitted.slope, 6), found.predicted_slope
        (-0.5, -0.5)

    References:
        Konz, Mazurowski 2024, arXiv 2401.08865.
    """
    check_positive("dimension", dimension)
    check_positive("sharpness", sharpness)
    fitted = power_law(num_rows, losses, confidence=confidence)
    x = np.log(as_figures("num_rows", num_rows))
    y = np.log(np.atleast_2d(as_figures("losses", losses)))
    told: list[str] = []
    if fitted.high >= 0:
        told.append("the loss does not clearly fall with more rows")
    if fitted.largest_residual > 0.25:
        told.append(
            f"the curve bends: a loss lies {fitted.largest_residual:.0%} off the line, so do not extrapolate"
        )
    return ScalingLaw(
        fitted=fitted, predicted_slope=-1 / dimension,
        offset=float((y + x / dimension).mean()) - math.log(sharpness), warnings=tuple(told),
    )  # fmt: skip
