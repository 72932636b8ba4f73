"""The language in which a loss is declared: statistics of a row of scores, in stages.

A statistic reduces `phi` of the known entries of a row over a domain:

    sum, logsumexp, max, min      over   all | positives | negatives | targets

`targets` is the sum weighted by the grades, sum_j t_ij phi_ij: on sparse targets it touches the positives
alone. An entry weight multiplies phi in a sum and adds its logarithm in a logsumexp; an unknown entry takes
part in nothing. phi must be finite, with a finite derivative, for every finite score, known entry or not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from margins.errors import MarginsError

Reduce = Literal["sum", "logsumexp", "max", "min"]
Over = Literal["all", "positives", "negatives", "targets"]
Kind = Literal["through", "detached", "implicit"]


@runtime_checkable
class RowValues(Protocol):
    """Named values of a row: statistics and what earlier stages computed from them."""

    def __getattr__(self, name: str) -> Tensor: ...


@runtime_checkable
class Entries(Protocol):
    """What phi sees of some entries: tensors of one shape, or that broadcast to it."""

    @property
    def s(self) -> Tensor:
        """Scores, margin subtracted."""
        ...

    @property
    def t(self) -> Tensor:
        """Grades."""
        ...

    @property
    def row(self) -> RowValues:
        """Statistics (differentiated) and row values of earlier stages."""
        ...

    def side(self, name: str) -> Tensor:
        """A named block beside the scores."""
        ...


Phi = Callable[[Entries], Tensor]


@dataclass(frozen=True)
class Statistic:
    """One number a row: `reduce` of `phi` over the entries of the domain at which `keep` is above 0."""

    reduce: Reduce
    over: Over
    phi: Phi
    keep: Phi | None = None

    def __post_init__(self) -> None:
        if self.over == "targets" and self.reduce != "sum":
            raise MarginsError("Statistic", expected="a sum over 'targets'", received=self.reduce)


class SlopedPhi(ABC):
    """A phi of the score alone that knows its derivative, so that no graph need be built to find it."""

    @abstractmethod
    def __call__(self, entries: Entries) -> Tensor: ...

    @abstractmethod
    def slope(self, entries: Entries) -> Tensor | float:
        """The derivative of phi by the score, entry by entry, or one number."""


@dataclass(frozen=True, eq=False)
class Affine(SlopedPhi):
    """The phi scale * s + shift with constants."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, entries: Entries) -> Tensor:
        scaled = entries.s if self.scale == 1 else entries.s * self.scale
        return scaled if self.shift == 0 else scaled + self.shift

    def slope(self, entries: Entries) -> float:
        """The scale."""
        return self.scale


@dataclass(frozen=True, eq=False)
class Sloped(SlopedPhi):
    """A phi of the score alone, with its derivative."""

    value: Phi
    derivative: Phi

    def __call__(self, entries: Entries) -> Tensor:
        return self.value(entries)

    def slope(self, entries: Entries) -> Tensor:
        """The derivative."""
        return self.derivative(entries)


scores = Affine()
"""The identity phi: the scores themselves."""

squares = Sloped(lambda e: e.s.square(), lambda e: 2 * e.s)
"""The phi s^2."""


@dataclass(frozen=True, eq=False)
class Beyond:
    """The `keep` of scores above a value of their row, or below it."""

    value: Callable[[RowValues], Tensor]
    is_above: bool

    def __call__(self, entries: Entries) -> Tensor:
        gap = entries.s - self.value(entries.row)
        return gap if self.is_above else -gap


def above(value: Callable[[RowValues], Tensor]) -> Beyond:
    """Keeps the scores above a value of their row."""
    return Beyond(value, is_above=True)


def below(value: Callable[[RowValues], Tensor]) -> Beyond:
    """Keeps the scores below a value of their row."""
    return Beyond(value, is_above=False)


def total(over: Over, phi: Phi = scores, *, keep: Phi | None = None) -> Statistic:
    """Sum of phi over the domain; over='targets' weighs each term by its grade."""
    return Statistic("sum", over, phi, keep)


def logsumexp(over: Over, phi: Phi = scores, *, keep: Phi | None = None) -> Statistic:
    """Log of the sum of exp(phi) over the domain; -inf where the domain is empty."""
    return Statistic("logsumexp", over, phi, keep)


def maximum(over: Over, phi: Phi = scores) -> Statistic:
    """Largest phi of the domain; -inf where it is empty."""
    return Statistic("max", over, phi)


def minimum(over: Over, phi: Phi = scores) -> Statistic:
    """Smallest phi of the domain; inf where it is empty."""
    return Statistic("min", over, phi)


@dataclass(frozen=True)
class RowValue:
    """A value computed from a row's statistics for phi of later stages, which see the statistics as well.

    `through` is differentiated; `detached` is a constant to the gradient; `implicit` is the fixed point of
    a `Repeat` whose update is a Newton step: differentiating that step once, at the fixed point, is the
    implicit function theorem.
    """

    function: Callable[[RowValues], Tensor]
    kind: Kind


def through(function: Callable[[RowValues], Tensor]) -> RowValue:
    """A row value that is differentiated."""
    return RowValue(function, "through")


def detached(function: Callable[[RowValues], Tensor]) -> RowValue:
    """A row value that the gradient takes as a constant."""
    return RowValue(function, "detached")


def implicit(function: Callable[[RowValues], Tensor]) -> RowValue:
    """The fixed point of a Newton step, differentiated by the implicit function theorem."""
    return RowValue(function, "implicit")


def _no_rows() -> dict[str, RowValue]:
    # A function, because a compiler that follows the constructor can call no class from in there.
    return {}


RESERVED = frozenset({"known_weight", "mass", "num_known", "num_positives"})
"""What every row function finds beside its own names."""


@dataclass(frozen=True)
class Stage:
    """Statistics found in one pass over the scores, and row values made of them for later passes."""

    statistics: Mapping[str, Statistic]
    rows: Mapping[str, RowValue] = field(default_factory=_no_rows)

    def __post_init__(self) -> None:
        taken = RESERVED & {*self.statistics, *self.rows}
        if taken:
            raise MarginsError(
                "Stage", expected=f"names other than {sorted(RESERVED)}", received=f"{sorted(taken)}",
                fix="every row has these counts anyway, as z.mass and the like",
            )  # fmt: skip


@dataclass(frozen=True)
class Repeat:
    """Stages run up to `times` times, each time with the row values of the time before.

    Earlier stages give the starting values, under the same names, of the row values that the last stage
    sets. It ends early once these have settled to rounding, unless it is differentiated through.
    """

    stages: tuple[Stage, ...]
    times: int

    def carried(self) -> tuple[str, ...]:
        """Row values that go from one time to the next."""
        return tuple(self.stages[-1].rows)

    def kinds(self) -> set[Kind]:
        """How the repeated row values are differentiated."""
        return {value.kind for stage in self.stages for value in stage.rows.values()}


Program = tuple[Stage | Repeat, ...]
