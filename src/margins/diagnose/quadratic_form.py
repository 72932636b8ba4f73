"""The law of a sum of squares of Gaussians of unequal variances: its lower tail by a saddlepoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from margins.data.extras import extra
from margins.diagnose.checking import Floats

_FLAT = 1e-4  # of the signed root, below which the formula is 0 / 0 and its limit is taken


@dataclass(frozen=True, kw_only=True)
class QuadraticForm:
    """The law of the sum over i and over `num_outputs` of (sqrt(variances_i) z + offset)^2.

    Args:
        variances: [T] >= 0.
        squared_offsets: [T], summed over the outputs.
        num_outputs: independent Gaussians of each variance.
    """

    variances: Floats
    squared_offsets: Floats
    num_outputs: int

    @property
    def mean(self) -> float:
        """The expected sum."""
        return float(self.num_outputs * self.variances.sum() + self.squared_offsets.sum())

    def log_cdf(self, value: float) -> float:
        r"""Logarithm of the probability of at most `value`, to any depth.

        Lugannani and Rice's formula: with the cumulants' generating function $K$ and $K'(\theta) = x$,
        $w = sign(\theta) \sqrt{2 (\theta x - K)}$, $u = \theta \sqrt{K''}$:
        $P \approx \Phi(w) + \varphi(w) (1 / w - 1 / u)$. Its relative error stays below a per cent in the
        lower tail.
        """
        with extra("tool"):
            from scipy.special import erfcx
            from scipy.stats import norm
        if value <= self._slope(-math.inf):
            return -math.inf
        if not self.variances.any():
            return 0.0
        theta = self._saddlepoint(value)
        root = math.copysign(math.sqrt(max(0.0, 2 * (theta * value - self._cumulants(theta)))), theta)
        if abs(root) < _FLAT:
            skewness = self._derivative(0.0, 3) / self._derivative(0.0, 2) ** 1.5
            return math.log(0.5 + skewness / (6 * math.sqrt(2 * math.pi)))
        other = 1 / root - 1 / (theta * math.sqrt(self._derivative(theta, 2)))
        if root > 0:
            return math.log(min(1.0, max(float(norm.cdf(root) + norm.pdf(root) * other), 1e-300)))
        mills = math.sqrt(math.pi / 2) * float(erfcx(-root / math.sqrt(2)))
        return float(norm.logpdf(root)) + math.log(max(mills + other, 1e-300))

    def _saddlepoint(self, value: float) -> float:
        with extra("tool"):
            from scipy.optimize import brentq
        most = 1 / (2 * float(self.variances.max()))
        low, high = -most, most / 2
        while self._slope(low) > value:
            low *= 2
        while self._slope(high) < value:
            high = (high + most) / 2
        found: Any = brentq(lambda theta: self._slope(theta) - value, low, high, xtol=1e-300)
        return float(found)

    def _cumulants(self, theta: float) -> float:
        shrink = 1 - 2 * self.variances * theta
        return float((-self.num_outputs / 2 * np.log(shrink) + self.squared_offsets * theta / shrink).sum())

    def _slope(self, theta: float) -> float:
        if theta == -math.inf:
            return float(self.squared_offsets[self.variances == 0].sum())
        return self._derivative(theta, 1)

    def _derivative(self, theta: float, order: int) -> float:
        # Each derivative brings a factor 2 (order - 1) v / shrink; the offset's part has one order more.
        shrink = 1 - 2 * self.variances * theta
        factor = math.factorial(order - 1) * 2 ** (order - 1) * self.variances ** (order - 1) / shrink**order
        central = self.num_outputs * self.variances
        return float((factor * (central + order * self.squared_offsets / shrink)).sum())
