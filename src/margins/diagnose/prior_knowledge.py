"""How much a learner must know beforehand to reach an error: minus the log probability of getting there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from margins.cards import Card, carded
from margins.diagnose.checking import Floats, as_figures, check_count, check_positive, check_share
from margins.diagnose.noncentral import NoncentralChiSquared, fitted_by_likelihood, fitted_by_moments
from margins.errors import MarginsError

Unit = Literal["bits", "nats"]

_BAD_FIT = 0.1  # Kolmogorov-Smirnov distance from which the fitted law is not trusted
_FEW = 50  # hypotheses
_BINS = 256  # of errors, in the bootstrap


@dataclass(frozen=True, kw_only=True)
class InductiveBias:
    """The information that a target error takes, over a space of hypotheses that fit the training rows.

    Args:
        target_error: that is to be reached.
        information: minus the log of the share of hypotheses that reach it, by the fitted law.
        low: lower end of the bootstrap interval over the hypotheses.
        high: upper end.
        unit: "bits" or "nats".
        counted: minus the log of the share of sampled hypotheses that reach it; None when none does.
        law: fitted to the sampled errors.
        distance: largest difference of fitted and sampled distribution (Kolmogorov-Smirnov).
        num_hypotheses: sampled.
        smallest_error: among them.
        warnings: sentences.
    """

    target_error: float
    information: float
    low: float
    high: float
    unit: Unit
    counted: float | None
    law: NoncentralChiSquared
    distance: float
    num_hypotheses: int
    smallest_error: float
    warnings: tuple[str, ...]

    def curve(self, target_errors: Sequence[float]) -> tuple[float, ...]:
        """The information of other targets, by the same law."""
        return tuple(_information(self.law, error, self.unit) for error in target_errors)


@carded(
    Card(
        name="Inductive bias",
        summary="compare architectures: how many bits towards a target error each one already knows",
        paper="Boopathy et al., Towards Exact Computation of Inductive Bias, 2024, arXiv 2406.15941",
        kind="diagnostic",
        stations=("before training",),
        targets=("classes", "values"),
        entry=41,
        limits=("Gaussian posterior of equal variances: the exact noncentral chi-squared tail",),
        tests=(
            "tests/test_inductive_bias.py::test_the_fitted_information_is_near_the_exact_one",
            "tests/test_inductive_bias.py::test_the_fit_agrees_with_counting_where_counting_is_possible",
            "tests/test_inductive_bias.py::test_the_logarithm_of_the_tail_does_not_underflow",
        ),
        study="inductive_bias",
    )
)
def inductive_bias(
    errors: Sequence[float] | Floats | Tensor,
    target_error: float,
    *,
    unit: Unit = "bits",
    num_resamples: int = 100,
    confidence: float = 0.95,
    seed: int,
) -> InductiveBias:
    r"""The information $I(\epsilon) = -\log P(error \le \epsilon)$ over random hypotheses that fit training.

    Use it to compare hypothesis spaces on one task at one target: the difference of two is what the better
    one supplies. Give it test errors of hypotheses drawn at random among those that fit the training rows:
    from `kernel_errors` or `network_errors`. The probability is mostly far below what can be counted, so the
    lower tail of a scaled noncentral chi-squared law, fitted by maximum likelihood, stands in: right for
    Gaussian posteriors of like variances, an extrapolation for the rest (of kernels take the exact law that
    `kernel_errors` gives). Twenty nats out, with two thousand hypotheses, it is good to about 4 to 8 per
    cent; with fifty, look at the interval first, which at 95 % holds the truth in about nine of ten cases.

    Args:
        errors: [S] mean squared test errors above 0, S >= 10.
        target_error: above 0.
        unit: "bits" or "nats".
        num_resamples: of the hypotheses, for the interval, at least 20.
        confidence: of the interval.
        seed: of the resamples.

    Raises:
        MarginsError: too few errors, equal ones, or numbers out of range.

    Example:
        >>> errors = np.random.default_rng(0).chisquare(10, 500)
        >>> found = inductive_bias(errors, 2.0, unit="nats", seed=0)
        >>> abs(found.information - 5.61) < 0.5, len(found.warnings)
        (True, 0)

    References:
        Boopathy et al. 2024, arXiv 2406.15941.
    """
    if unit not in ("bits", "nats"):
        raise MarginsError("unit", expected="'bits' or 'nats'", received=repr(unit))
    check_positive("target_error", target_error)
    check_count("num_resamples", num_resamples, least=20)
    check_share("confidence", confidence)
    figures = as_figures("errors", errors, least=10)
    if figures.ndim != 1 or figures.min() <= 0:
        raise MarginsError("errors", expected="[S] numbers above 0",
                           received=f"{list(figures.shape)}, from {figures.min():g}")  # fmt: skip
    moments = fitted_by_moments(figures)
    likely = fitted_by_likelihood(figures)
    law = moments if likely is None else likely
    reached = float((figures <= target_error).mean())
    distance = _distance(law, figures)
    low, high = _interval(figures, law, target_error, unit, num_resamples, confidence, seed)
    return InductiveBias(
        target_error=target_error, information=_information(law, target_error, unit), low=low, high=high,
        unit=unit, counted=-math.log(reached) / _per(unit) if reached else None, law=law, distance=distance,
        num_hypotheses=len(figures), smallest_error=float(figures.min()),
        warnings=_warnings(figures, target_error, distance, by_moments=likely is None),
    )  # fmt: skip


def probability_points(found: InductiveBias, errors: Sequence[float] | Floats | Tensor) -> Floats:
    """[S, 2] fitted and sampled probabilities of the sorted errors: a P-P plot; a straight one fits.

    Example:
        >>> errors = np.random.default_rng(0).chisquare(10, 500)
        >>> points = probability_points(inductive_bias(errors, 2.0, seed=0), errors)
        >>> points.shape, bool(abs(points[:, 0] - points[:, 1]).max() < 0.05)
        ((500, 2), True)
    """
    figures = np.sort(as_figures("errors", errors))
    observed = (np.arange(len(figures)) + 0.5) / len(figures)
    return np.stack([found.law.cdf(figures), observed], axis=1)


def _per(unit: Unit) -> float:
    return math.log(2) if unit == "bits" else 1.0


def _information(law: NoncentralChiSquared, target_error: float, unit: Unit) -> float:
    return max(0.0, -law.log_cdf(target_error) / _per(unit))


def _distance(law: NoncentralChiSquared, figures: Floats) -> float:
    fitted, places = law.cdf(np.sort(figures)), np.arange(len(figures) + 1) / len(figures)
    return float(max((places[1:] - fitted).max(), (fitted - places[:-1]).max()))


def _interval(
    figures: Floats, law: NoncentralChiSquared, target_error: float, unit: Unit, num_resamples: int,
    confidence: float, seed: int,
) -> tuple[float, float]:  # fmt: skip
    # A bin of neighbouring errors is resampled as one value: nothing is lost at this number of bins.
    bins = np.array_split(np.sort(figures), min(len(figures), _BINS))
    centres, shares = np.array([b.mean() for b in bins]), np.array([len(b) for b in bins]) / len(figures)
    draws = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(num_resamples):
        weights = draws.multinomial(len(figures), shares) / len(figures)
        again = fitted_by_likelihood(centres, start=law, weights=weights)
        if again is not None:
            found.append(_information(again, target_error, unit))
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]).tolist() if found else (0.0, math.inf)
    return low, high


def _warnings(figures: Floats, target_error: float, distance: float, *, by_moments: bool) -> tuple[str, ...]:
    told: list[str] = []
    if target_error < figures.min():
        told.append(
            f"extrapolation: none of {len(figures)} hypotheses has an error below {figures.min():.4g}, and "
            f"the target is {target_error:.4g}"
        )
    if distance > _BAD_FIT:
        told.append(
            f"the fitted law is {distance:.2f} away from the sampled errors (more than {_BAD_FIT}): do not "
            "trust its tail"
        )
    if by_moments:
        told.append("the likelihood could not be maximised: the law is fitted by moments")
    if len(figures) < _FEW:
        told.append(f"{len(figures)} hypotheses are few: {_FEW} or more give a usable interval")
    return tuple(told)
