"""Scaled noncentral chi-squared: logarithms of its lower tail to any depth, and its fit to a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from margins.data.extras import extra
from margins.diagnose.checking import Floats
from margins.errors import MarginsError

_MOST_TERMS = 1 << 20  # of the mixture; beyond that the normal approximation is as good
_LARGE_ORDER = 15.0  # from which the expansion of the Bessel function for large orders takes over
_SHARES = (0.05, 0.5, 0.95)  # starts of the search for the maximum of the likelihood


@dataclass(frozen=True, kw_only=True)
class NoncentralChiSquared:
    """The law of `scale` times a noncentral chi-squared variable.

    Args:
        df: degrees of freedom, > 0, not only whole ones.
        nc: noncentrality, >= 0.
        scale: > 0.
    """

    df: float
    nc: float
    scale: float

    def cdf(self, values: Floats) -> Floats:
        """The probability of at most each of the values."""
        with extra("tool"):
            from scipy.stats import ncx2
        return np.asarray(ncx2.cdf(values, self.df, self.nc, 0, self.scale), np.float64)

    def log_cdf(self, value: float) -> float:
        r"""Logarithm of the probability of at most `value`, however small that is.

        The law is a Poisson mixture of central ones, $\sum_j P(j; nc / 2) \, P(df / 2 + j, x / 2)$, summed in
        logarithms; past a million terms Sankaran's normal approximation takes over.
        """
        if value <= 0:
            return -math.inf
        half, rate = value / self.scale / 2, self.nc / 2
        # The largest term of the lower tail has j (df / 2 + j) near rate * half, at most the Poisson's mean.
        last = int(rate + 40 * math.sqrt(rate) + 100)
        if last > _MOST_TERMS:
            return sankaran_log_cdf(2 * half, self.df, self.nc)
        with extra("tool"):
            from scipy.special import gammaln, xlogy
        terms = np.arange(last + 1.0)
        log_poisson = xlogy(terms, rate) - rate - gammaln(terms + 1)
        logs = log_poisson + log_gammainc(self.df / 2 + terms, half)
        return min(0.0, float(logs.max() + np.log(np.exp(logs - logs.max()).sum())))

    def log_likelihood(self, values: Floats, weights: Floats | None = None) -> float:
        """The mean logarithm of the density at values above 0; weights sum to one."""
        x = values / self.scale
        if self.nc == 0:
            with extra("tool"):
                from scipy.stats import chi2
            density = chi2.logpdf(x, self.df) - math.log(self.scale)
        else:
            order = self.df / 2 - 1
            density = (
                order / 2 * np.log(x / self.nc) - (np.sqrt(x) - math.sqrt(self.nc)) ** 2 / 2
                + log_scaled_bessel(order, np.sqrt(x * self.nc)) - math.log(2 * self.scale)
            )  # fmt: skip
        return float(density.mean() if weights is None else density @ weights)


def log_gammainc(shapes: Floats, value: float) -> Floats:
    """Logarithm of the regularised lower incomplete gamma function, also where that underflows."""
    with extra("tool"):
        from scipy.special import gammainc, gammaln
    plain = gammainc(shapes, value)
    deep = plain < 1e-290
    found = np.log(np.where(deep, 1.0, plain))
    if deep.any():
        # x^a e^-x / Gamma(a + 1) (1 + x / (a + 1) + x^2 / (a + 1)(a + 2) + ...); here x is far below a.
        a = shapes[deep]
        total, term, place = np.ones_like(a), np.ones_like(a), 1
        while float((term / total).max()) > 1e-17:
            term = term * value / (a + place)
            total, place = total + term, place + 1
        found[deep] = a * math.log(value) - value - gammaln(a + 1) + np.log(total)
    return found


def log_scaled_bessel(order: float, values: Floats) -> Floats:
    """log(I_order(x) e^-x), by Debye's expansion where the order is large, so that nothing underflows."""
    if order < _LARGE_ORDER:
        with extra("tool"):
            from scipy.special import ive
        return np.log(np.maximum(ive(order, values), np.finfo(np.float64).tiny))
    z = values / order
    root = np.sqrt(1 + z * z)
    t = 1 / root
    # eta - z without cancellation at large z: sqrt(1 + z^2) - z = 1 / (sqrt(1 + z^2) + z).
    eta = 1 / (root + z) + np.log(z / (1 + root))
    u = t * t
    first = t * (3 - 5 * u) / 24
    second = u * (81 + u * (385 * u - 462)) / 1152
    third = t * u * (30375 + u * (u * (765765 - 425425 * u) - 369603)) / 414720
    tail = np.log1p(first / order + second / order**2 + third / order**3)
    return order * eta - math.log(2 * math.pi * order) / 2 - np.log(root) / 2 + tail


def sankaran_log_cdf(value: float, df: float, nc: float) -> float:
    """Sankaran's normal approximation of the logarithm of the lower tail, for unit scale.

    A few per cent off at twenty nats; the mixture of `log_cdf` is exact wherever it can be summed.
    """
    with extra("tool"):
        from scipy.stats import norm
    one, two, three = df + nc, df + 2 * nc, df + 3 * nc
    h = 1 - 2 / 3 * one * three / two**2
    p = two / one**2
    m = (h - 1) * (1 - 3 * h)
    centre = 1 + h * p * (h - 1 - (2 - h) * m * p / 2)
    spread = h * math.sqrt(2 * p) * (1 + m * p / 2)
    return float(norm.logcdf(((value / one) ** h - centre) / spread))


def fitted_by_moments(values: Floats) -> NoncentralChiSquared:
    """The law with the sample's mean and variance, and its skewness where there is such a law.

    Skewness outside what these laws have is moved to the nearest: none noncentral, or nearly all.
    """
    mean, variance = float(values.mean()), float(values.var())
    if not variance > 1e-24 * mean * mean:
        raise MarginsError("errors", expected="numbers that differ", received="equal ones alone")
    third = float(((values - mean) ** 3).mean())
    root = math.sqrt(min(max(1 - mean * third / (2 * variance * variance), 0.0), 0.25))
    scale = variance / (2 * mean) * (1 - root)
    total = mean / scale
    nc = max(variance / (2 * scale * scale) - total, 0.0)
    nc = min(nc, total * (1 - 1e-6))
    return NoncentralChiSquared(df=total - nc, nc=nc, scale=scale)


def fitted_by_likelihood(
    values: Floats, *, start: NoncentralChiSquared | None = None, weights: Floats | None = None
) -> NoncentralChiSquared | None:
    """The law of the largest likelihood with location 0; None when the search finds none.

    Searched over mean, relative variance and the share of noncentrality, which hardly depend on each other.

    Args:
        values: [S] above 0.
        start: a law nearby, for a short search; None searches from several.
        weights: [S] of the values, summing to one; None weighs all alike.
    """
    with extra("tool"):
        from scipy.optimize import minimize
    if start is not None:
        starts, exactness = [_coordinates(start)], 1e-3
    else:
        relative = math.log(values.var() / values.mean() ** 2)
        starts = [np.array([math.log(values.mean()), relative, _logit(share)]) for share in _SHARES]
        exactness = 1e-4
    best: Any = None
    for first in starts:
        found = minimize(
            lambda at: _cost(at, values, weights), first, method="Nelder-Mead",
            options={"xatol": exactness, "fatol": exactness**2, "maxiter": 400},
        )  # fmt: skip
        if best is None or found.fun < best.fun:
            best = found
    return _law(best.x) if best is not None and math.isfinite(best.fun) and best.fun < 1e30 else None


def _cost(at: Floats, values: Floats, weights: Floats | None) -> float:
    if abs(at[2]) > 12 or abs(at[1]) > 60:
        return 1e30
    cost = -_law(at).log_likelihood(values, weights)
    return cost if math.isfinite(cost) else 1e30


def _law(at: Floats) -> NoncentralChiSquared:
    mean, relative, share = math.exp(at[0]), math.exp(at[1]), 1 / (1 + math.exp(-at[2]))
    total = 2 * (1 + share) / relative  # df + nc
    return NoncentralChiSquared(df=total * (1 - share), nc=total * share, scale=mean / total)


def _coordinates(law: NoncentralChiSquared) -> Floats:
    total = law.df + law.nc
    share = min(max(law.nc / total, 1e-5), 1 - 1e-5)
    return np.array([math.log(total * law.scale), math.log(2 * (1 + share) / total), _logit(share)])


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
