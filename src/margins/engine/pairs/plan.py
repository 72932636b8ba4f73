"""The small matrices by which boxes of scores act on each other, for a smooth ell.

Inside a box a place is u in [-1, 1], and the items of a box are known by their moments sum w u^k. For a
target in one box and a source d boxes lower, x = d h + (u - v) h / 2, and with Chebyshev nodes in both boxes

    ell(x) = sum over j, k < K of A_d[j, k] u^j v^k    to the tolerance.

Beyond `num_near` boxes the asymptotes of ell hold to the tolerance, relative to ell itself. How far that is
and how many nodes are needed is measured on ell, not assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from margins.engine.pairs.functions import Smooth
from margins.errors import MarginsError

_MOST_NODES = 24
_LONGEST_REACH = 64
_BOX = 1.0  # width of a box in units of the temperature, at most
_ALL_NEAR = (16, 32, 64)  # with so few boxes all are near: that is less work than a far field


@dataclass(frozen=True)
class Plan:
    """What depends on the function and on the width of a box alone; float64.

    Args:
        width: of a box, in units of x.
        num_near: boxes at most this far apart act by the matrices, others by the asymptotes.
        value: [D, K, K] matrices A_d for d = -num_near..num_near, of ell.
        slope: the same of its derivative.
        growth: [2, T, K] coefficients over u of exp(-k u h / 2) and exp(k u h / 2).
    """

    width: float
    num_near: int
    value: Tensor
    slope: Tensor
    growth: Tensor

    @property
    def degree(self) -> int:
        """Moments a box."""
        return self.value.shape[-1]

    def to(self, device: torch.device) -> Plan:
        """The plan on a device."""
        return Plan(
            self.width, self.num_near, self.value.to(device), self.slope.to(device), self.growth.to(device)
        )


def box_width(temperature: float) -> float:
    """Of a box in units of the scores: a power of two, so that a score's place in its box is exact."""
    return 2.0 ** math.floor(math.log2(_BOX * temperature))


def plan_of(function: Smooth, width: float, tolerance: float, *, span: int | None) -> Plan:
    """The plan for boxes of this width in units of x.

    Args:
        function: ell.
        width: of a box.
        tolerance: of ell and of its derivative, relative to their largest value in a pair of boxes.
        span: from the lowest to the highest box of a row, in boxes; None when unknown.

    Raises:
        MarginsError: ell does not come near its asymptotes, or is not smooth enough.
    """
    all_near = [limit for limit in _ALL_NEAR if span is not None and span <= limit]
    return _cached_plan(function, width, tolerance, all_near[0] if all_near else None)


@lru_cache(maxsize=64)
def _cached_plan(function: Smooth, width: float, tolerance: float, all_near: int | None) -> Plan:
    reach, degree = _reach(function, tolerance), _degree(function, tolerance)
    return _plan(function, width, math.ceil(reach / width) if all_near is None else all_near, degree)


def _plan(function: Smooth, width: float, num_near: int, degree: int) -> Plan:
    nodes, to_powers = _nodes(degree)
    shifts = torch.arange(-num_near, num_near + 1, dtype=torch.float64)
    x = shifts[:, None, None] * width + (nodes[:, None] - nodes[None, :]) * width / 2
    num_tails = max(len(function.left.tails), len(function.right.tails))
    rates = torch.arange(1, num_tails + 1, dtype=torch.float64)[:, None] * width / 2
    growth = torch.stack([torch.exp(-rates * nodes), torch.exp(rates * nodes)]) @ to_powers.T
    return Plan(
        width,
        num_near,
        to_powers @ function.value(x) @ to_powers.T,
        to_powers @ function.slope(x) @ to_powers.T,
        growth,
    )


def _nodes(degree: int) -> tuple[Tensor, Tensor]:
    """Chebyshev nodes, and the matrix from values at them to coefficients of powers."""
    nodes = torch.cos((torch.arange(degree, dtype=torch.float64) + 0.5) * (math.pi / degree))
    return nodes, torch.linalg.inv(torch.vander(nodes, increasing=True))


@lru_cache(maxsize=64)
def _reach(function: Smooth, tolerance: float) -> int:
    """The least |x| from which on both asymptotes hold, relative to ell and to its derivative."""
    for reach in range(1, _LONGEST_REACH):
        far = torch.arange(reach, reach + 40, 0.25, dtype=torch.float64)
        pairs = [
            (exact(side), near(side))
            for side, asymptote in ((-far, function.left), (far, function.right))
            for exact, near in ((function.value, asymptote.value), (function.slope, asymptote.derivative))
        ]
        if all(bool(((a - b).abs() <= tolerance * a.abs()).all()) for a, b in pairs):
            return reach
    raise MarginsError(
        "surrogate",
        expected=f"a function that meets its asymptotes within |x| < {_LONGEST_REACH}",
        received="one that does not",
        fix="declare more tails, or a PairFunction, which goes over all pairs",
    )


@lru_cache(maxsize=64)
def _degree(function: Smooth, tolerance: float) -> int:
    """The least number of nodes with which the matrices of the widest boxes are right."""
    num_near = math.ceil(_reach(function, tolerance) / _BOX)
    u = torch.linspace(-1, 1, 9, dtype=torch.float64)
    shifts = torch.arange(-num_near, num_near + 1, dtype=torch.float64)
    x = shifts[:, None, None] * _BOX + (u[:, None] - u[None, :]) * _BOX / 2
    exact = torch.stack([function.value(x), function.slope(x)])
    for degree in range(3, _MOST_NODES + 1):
        plan = _plan(function, _BOX, num_near, degree)
        powers = torch.vander(u, degree, increasing=True)
        found = powers @ torch.stack([plan.value, plan.slope]) @ powers.T
        off = (found - exact).abs().amax((2, 3)) / exact.abs().amax((2, 3))
        if bool((off <= tolerance).all()):
            return degree
    raise MarginsError(
        "surrogate",
        expected=f"a function that {_MOST_NODES} nodes on an interval of length 1 determine",
        received="one that is not that smooth",
        fix="declare a PairFunction, which goes over all pairs",
    )
