"""What a pair costs: functions ell of x = (negative - positive) / temperature, and how each may be summed.

A large x is a wrong order. The kind of the function decides which sums are faster than going over all pairs:
moments for a polynomial, one sort for a power of a hinge, boxes for a smooth function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Surrogate = Literal["logistic", "hinge", "squared_hinge", "square", "linear"]


@dataclass(frozen=True)
class PairFunction:
    """Any ell(x) and its derivative; its sums go over all pairs."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    has_slope = True


@dataclass(frozen=True)
class Polynomial(PairFunction):
    """(shift + x)^degree for all x."""

    degree: Literal[1, 2] = 1
    shift: float = 0.0


@dataclass(frozen=True)
class HingePower(PairFunction):
    """max(0, shift + x)^power; power 0 is the step that counts wrong orders, with one half at 0."""

    power: Literal[0, 1, 2] = 1
    shift: float = 1.0

    @property
    def has_slope(self) -> bool:
        """The step has none that teaches anything."""
        return self.power > 0


@dataclass(frozen=True)
class Asymptote:
    """What ell becomes far from 0: constant + slope x + sum over k >= 1 of tails[k - 1] exp(-k |x|).

    With its tails the far field keeps its relative accuracy also where ell goes to zero.
    """

    constant: float = 0.0
    slope: float = 0.0
    tails: tuple[float, ...] = ()

    def value(self, x: Tensor) -> Tensor:
        """The asymptote at x."""
        decays = [tail * torch.exp(-k * x.abs()) for k, tail in enumerate(self.tails, 1)]
        return self.constant + self.slope * x + sum(decays, torch.zeros_like(x))

    def derivative(self, x: Tensor) -> Tensor:
        """Its derivative at x."""
        outward = x.sign()
        decays = [-k * tail * outward * torch.exp(-k * x.abs()) for k, tail in enumerate(self.tails, 1)]
        return self.slope + sum(decays, torch.zeros_like(x))


@dataclass(frozen=True)
class Smooth(PairFunction):
    """An analytic ell with an asymptote on either side."""

    left: Asymptote = Asymptote()
    right: Asymptote = Asymptote()


def _softplus(x: Tensor) -> Tensor:
    return -logsigmoid(-x)


def _hinge(x: Tensor) -> Tensor:
    return (1 + x).clamp(min=0)


def _step(x: Tensor) -> Tensor:
    return torch.heaviside(x, x.new_full((), 0.5))


_TAILS = (1.0, -1 / 2, 1 / 3)  # of log(1 + e^-|x|)

SURROGATES: dict[str, PairFunction] = {
    "logistic": Smooth(
        _softplus, torch.sigmoid, left=Asymptote(tails=_TAILS), right=Asymptote(slope=1.0, tails=_TAILS)
    ),
    "hinge": HingePower(_hinge, lambda x: (x > -1).to(x.dtype), power=1),
    "squared_hinge": HingePower(lambda x: _hinge(x).square(), lambda x: 2 * _hinge(x), power=2),
    "square": Polynomial(lambda x: (1 + x).square(), lambda x: 2 * (1 + x), degree=2, shift=1.0),
    "linear": Polynomial(lambda x: x, torch.ones_like, degree=1),
}
STEP = HingePower(_step, torch.zeros_like, power=0, shift=0.0)
