"""Calibration: maps from logits to probabilities, fitted on predictions of the select role alone.

None of them raises the log loss of the select rows: each contains doing nothing, or starts from what does.
With an offset, what Bayes' rule adds to logits for a change of the prior, doing nothing is the softmax of
logits + offset. They are plain data: `to_data` gives what JSON holds, `calibration_from` reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from margins.data.extras import extra
from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.evaluation.records import Array, Floats, Ints, as_array
from margins.evaluation.select_role import SelectPredictions, check_select, log_softmax

_COLDEST, _HOTTEST = 0.01, 100.0  # temperatures; at an end, the select rows alone would ask for more
_STEPS = 100
_RIDGE = 1e-3
_LARGEST_SHARE = 1 - 1e-3  # of the isotonic map, so that no probability becomes exactly zero


@dataclass(frozen=True, kw_only=True)
class Calibration(ABC):
    """What every calibration does.

    Args:
        offset: [C] of the prior, as in `fit`; None without one.
    """

    method: ClassVar[str]
    offset: tuple[float, ...] | None = None

    @classmethod
    @abstractmethod
    def fit(cls, select: SelectPredictions, *, offset: Array | None = None) -> Self:
        """The map that suits these predictions; they must be of the select role.

        Args:
            select: predictions with class ids.
            offset: [C] known beforehand, as log prior - log of the prior that training saw. It is exact, so
                it is kept as it is while the rest is fitted, and stands in the map from then on.

        Raises:
            MarginsError: anything but `SelectPredictions`, label sets, a number of classes it is not for, or
                an offset that does not fit.
        """

    @abstractmethod
    def probabilities(self, logits: Array) -> Floats:
        """Calibrated probabilities [N, C] in float64 of logits [N, C]."""

    @abstractmethod
    def to_data(self) -> dict[str, Any]:
        """Numbers, lists and strings that `calibration_from` reads."""

    @classmethod
    @abstractmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The calibration that gave these data."""


@dataclass(frozen=True, kw_only=True)
class Temperature(Calibration):
    """All logits over one number (Guo et al. 2017, arXiv:1706.04599): the order of classes stays.

    softmax(z / temperature + offset): training makes the logits z too sure, not the offset; so that is not
    divided. With an offset the order of z + offset may change.

    Use it first: one parameter cannot overfit. The fit is the exact minimum of the select log loss over
    temperatures from 0.01 to 100; `at_bound` says that the minimum lies at an end (every row right, or logits
    that say nothing).

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> found = Temperature.fit(SelectPredictions(logits, torch.tensor([0, 0, 1, 1])))
        >>> round(found.temperature, 4), found.probabilities(logits)[0].round(2)
        (1.8205, array([0.75, 0.25]))
    """

    method: ClassVar[str] = "temperature"
    temperature: float
    at_bound: bool = False

    @classmethod
    def fit(cls, select: SelectPredictions, *, offset: Array | None = None) -> Self:
        given = check_select(select)
        logits, fixed = given.numbers(), _checked(offset, given)
        inverse = _best_slope(logits, given.class_ids(), fixed)
        at_bound = inverse in (1 / _COLDEST, 1 / _HOTTEST)
        return cls(temperature=1 / inverse, at_bound=at_bound, offset=fixed)

    def probabilities(self, logits: Array) -> Floats:
        num = None if self.offset is None else len(self.offset)
        return np.exp(log_softmax(_moved(_read(logits, num) / self.temperature, self.offset)))

    def to_data(self) -> dict[str, Any]:
        numbers = {"temperature": self.temperature, "at_bound": self.at_bound}
        return {"method": self.method, **numbers, "offset": _listed(self.offset)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        temperature, at_bound = _positive(data["temperature"]), bool(data["at_bound"])
        return cls(temperature=temperature, at_bound=at_bound, offset=_offset_of(data))


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorScaling(Calibration):
    """A slope and a shift for each class (Guo et al. 2017): mends classes that are over-stated as such.

    softmax(slopes * z + shifts + offset). 2 C parameters, so it wants more select rows than a temperature. A
    small ridge pulls them towards the best temperature, from which the fit starts; so rows that could be
    separated give finite numbers. The shifts could learn an offset, but the ridge would pull it towards zero.
    """

    method: ClassVar[str] = "vector"
    slopes: Floats
    shifts: Floats

    @classmethod
    def fit(cls, select: SelectPredictions, *, offset: Array | None = None) -> Self:
        given = check_select(select)
        logits, labels, fixed = given.numbers(), given.class_ids(), _checked(offset, given)
        num = logits.shape[1]
        start = np.concatenate([np.full(num, _best_slope(logits, labels, fixed)), np.zeros(num)])
        right = _one_hot(labels, num)

        def objective(parameters: Floats) -> tuple[float, Floats]:
            log_p = log_softmax(_moved(logits * parameters[:num] + parameters[num:], fixed))
            rest = (np.exp(log_p) - right) / len(labels)
            loss = -float((log_p * right).sum()) / len(labels)
            return _with_ridge(loss, np.concatenate([(rest * logits).sum(0), rest.sum(0)]), parameters, start)

        found = _minimum(objective, start)
        return cls(slopes=found[:num], shifts=found[num:], offset=fixed)

    def probabilities(self, logits: Array) -> Floats:
        scaled = _read(logits, len(self.slopes)) * self.slopes + self.shifts
        return np.exp(log_softmax(_moved(scaled, self.offset)))

    def to_data(self) -> dict[str, Any]:
        numbers = {"slopes": self.slopes.tolist(), "shifts": self.shifts.tolist()}
        return {"method": self.method, **numbers, "offset": _listed(self.offset)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        slopes, shifts = np.array(data["slopes"], float), np.array(data["shifts"], float)
        return cls(slopes=slopes, shifts=shifts, offset=_offset_of(data))


@dataclass(frozen=True, kw_only=True)
class Platt(Calibration):
    """Two classes: slope and shift of the log-odds (Platt 1999); ridge and offset as in `VectorScaling`."""

    method: ClassVar[str] = "platt"
    slope: float
    shift: float

    @classmethod
    def fit(cls, select: SelectPredictions, *, offset: Array | None = None) -> Self:
        given = check_select(select)
        logits, labels, fixed = _two(given.numbers()), given.class_ids(), _checked(offset, given)
        odds, added = logits[:, 1] - logits[:, 0], _difference(fixed)
        start = np.array([_best_slope(logits, labels, fixed), 0.0])
        sign = 2.0 * labels - 1

        def objective(parameters: Floats) -> tuple[float, Floats]:
            margin = sign * (parameters[0] * odds + parameters[1] + added)
            pull = -sign * np.exp(-np.logaddexp(0, margin)) / len(odds)
            loss = float(np.logaddexp(0, -margin).mean())
            return _with_ridge(loss, np.array([pull @ odds, pull.sum()]), parameters, start)

        found = _minimum(objective, start)
        return cls(slope=float(found[0]), shift=float(found[1]), offset=fixed)

    def probabilities(self, logits: Array) -> Floats:
        given = _two(_read(logits))
        odds = self.slope * (given[:, 1] - given[:, 0]) + self.shift + _difference(self.offset)
        return np.exp(log_softmax(np.stack([np.zeros_like(odds), odds], axis=1)))

    def to_data(self) -> dict[str, Any]:
        numbers = {"slope": self.slope, "shift": self.shift}
        return {"method": self.method, **numbers, "offset": _listed(self.offset)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        return cls(slope=float(data["slope"]), shift=float(data["shift"]), offset=_offset_of(data))


@dataclass(frozen=True, kw_only=True, eq=False)
class Isotonic(Calibration):
    """Each class's probability through a rising step-wise linear map, rows renormalised to one.

    Use it with thousands of select rows. One-vs-rest maps (Zadrozny & Elkan 2002) may raise the log loss once
    renormalised, so the result is the mixture `share` isotonic + (1 - share) uncalibrated, of the share in
    [0, 0.999] that the select rows like best; a row that all maps send to zero stays uncalibrated. The maps
    are of probabilities, so an offset is added to the logits before them.
    """

    method: ClassVar[str] = "isotonic"
    knots: list[Floats]  # for each class, probabilities where its map bends, rising
    heights: list[Floats]
    share: float

    @classmethod
    def fit(cls, select: SelectPredictions, *, offset: Array | None = None) -> Self:
        given = check_select(select)
        with extra("tool"):
            from sklearn.isotonic import IsotonicRegression
        labels, fixed = given.class_ids(), _checked(offset, given)
        plain = np.exp(log_softmax(_moved(given.numbers(), fixed)))
        maps = [
            IsotonicRegression(y_min=0, y_max=1).fit(plain[:, c], labels == c) for c in range(plain.shape[1])
        ]
        knots = [np.asarray(m.X_thresholds_, np.float64) for m in maps]
        heights = [np.asarray(m.y_thresholds_, np.float64) for m in maps]
        own = np.arange(len(labels)), labels
        share = _best_share(plain[own], _mapped(plain, knots, heights)[own])
        return cls(knots=knots, heights=heights, share=share, offset=fixed)

    def probabilities(self, logits: Array) -> Floats:
        plain = np.exp(log_softmax(_moved(_read(logits, len(self.knots)), self.offset)))
        return self.share * _mapped(plain, self.knots, self.heights) + (1 - self.share) * plain

    def to_data(self) -> dict[str, Any]:
        lists = {"knots": [k.tolist() for k in self.knots], "heights": [h.tolist() for h in self.heights]}
        return {"method": self.method, "share": self.share, **lists, "offset": _listed(self.offset)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        sides = [[np.array(line, float) for line in data[key]] for key in ("knots", "heights")]
        share, offset = float(data["share"]), _offset_of(data)
        return cls(knots=sides[0], heights=sides[1], share=share, offset=offset)


def calibration_from(data: Mapping[str, Any]) -> Calibration:
    """The calibration that gave these data.

    Example:
        >>> calibration_from({"method": "platt", "slope": 2.0, "shift": 0.5})
        Platt(offset=None, slope=2.0, shift=0.5)

    Raises:
        MarginsError: an unknown method, or data that lack something.
    """
    known: dict[str, type[Calibration]] = {
        kind.method: kind for kind in (Temperature, VectorScaling, Platt, Isotonic)
    }
    method = str(data.get("method"))
    if method not in known:
        raise MarginsError(
            "method", expected="a calibration", received=method, fix=suggestion(method, list(known))
        )
    try:
        return known[method].from_data(data)
    except (KeyError, TypeError, ValueError) as error:
        raise MarginsError("data", expected=f"what {method} saved", received=repr(error)) from error


def _best_slope(logits: Floats, labels: Ints, offset: tuple[float, ...] | None) -> float:
    """The factor of the logits, not of the offset, of least log loss: Newton's method, bisection at need."""
    own = logits[np.arange(len(labels)), labels]

    def derivatives(slope: float) -> tuple[float, float]:
        p = np.exp(log_softmax(_moved(logits * slope, offset)))
        mean = (p * logits).sum(1)
        spread = (p * (logits - mean[:, None]) ** 2).sum(1)
        return float((mean - own).mean()), float(spread.mean())

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    if derivatives(low)[0] >= 0:
        # Also where every row has equal logits: no temperature changes anything, and 1 says so.
        return 1.0 if derivatives(1.0)[0] == 0 else low
    if derivatives(high)[0] <= 0:
        return _flat_start(derivatives, high)
    slope = 1.0
    for _ in range(_STEPS):
        first, second = derivatives(slope)
        low, high = (slope, high) if first < 0 else (low, slope)
        wanted = slope - first / second if second > 0 else low
        following = wanted if low < wanted < high else (low + high) / 2
        if abs(following - slope) <= 1e-14 * slope or first == 0:
            return slope
        slope = following
    return slope


def _flat_start(derivatives: Callable[[float], tuple[float, float]], high: float) -> float:
    # The loss still falls at the coldest temperature, or it fell to nothing on the way there.
    return high if derivatives(1.0)[0] != 0 else 1.0


def _with_ridge(loss: float, gradient: Floats, parameters: Floats, start: Floats) -> tuple[float, Floats]:
    away = parameters - start
    return loss + _RIDGE / 2 * float(away @ away), gradient + _RIDGE * away


def _minimum(objective: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    with extra("tool"):
        from scipy.optimize import minimize
    options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-9}
    found: Any = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    # A line search that ends in rounding may step up by an ulp; the start is never worse than that.
    return np.asarray(found.x, np.float64) if found.fun <= objective(start)[0] else start


def _mapped(plain: Floats, knots: list[Floats], heights: list[Floats]) -> Floats:
    columns = [np.interp(plain[:, c], x, y) for c, (x, y) in enumerate(zip(knots, heights, strict=True))]
    raised = np.stack(columns, axis=1)
    total = raised.sum(1, keepdims=True)
    return np.where(total > 0, raised / np.where(total > 0, total, 1.0), plain)


def _best_share(plain: Floats, mapped: Floats) -> float:
    """The share of `mapped` in the mixture of least log loss: bisection on the slope, which rises."""
    rise = mapped - plain
    floor = np.maximum(plain, np.finfo(np.float64).tiny)

    def slope(share: float) -> float:
        return float(-(rise / (floor + share * rise)).mean())

    low, high = 0.0, _LARGEST_SHARE
    if slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low


def _checked(offset: Array | None, select: SelectPredictions) -> tuple[float, ...] | None:
    if offset is None:
        return None
    given, num = as_array("offset", offset), select.logits.shape[1]
    if given.shape != (num,) or given.dtype.kind != "f" or not np.isfinite(given).all():
        raise MarginsError(
            "offset",
            expected=f"[{num}] finite floats, one a class",
            received=f"{list(given.shape)} {given.dtype}",
        )
    return tuple(given.astype(np.float64).tolist())


def _offset_of(data: Mapping[str, Any]) -> tuple[float, ...] | None:
    given = data.get("offset")  # older files have none
    return None if given is None else tuple(float(number) for number in given)


def _listed(offset: tuple[float, ...] | None) -> list[float] | None:
    return None if offset is None else list(offset)


def _moved(logits: Floats, offset: tuple[float, ...] | None) -> Floats:
    return logits if offset is None else logits + np.array(offset)


def _difference(offset: tuple[float, ...] | None) -> float:
    return 0.0 if offset is None else offset[1] - offset[0]


def _one_hot(labels: Ints, num: int) -> Floats:
    return (labels[:, None] == np.arange(num)).astype(np.float64)


def _read(logits: Array, num: int | None = None) -> Floats:
    given = as_array("logits", logits)
    fits = given.ndim == 2 and (num is None or given.shape[1] == num)
    if not fits or not np.isfinite(given).all():
        columns = "C" if num is None else str(num)
        raise MarginsError(
            "logits", expected=f"[N, {columns}] finite numbers", received=str(list(given.shape))
        )
    return given.astype(np.float64)


def _two(logits: Floats) -> Floats:
    if logits.shape[1] != 2:
        raise MarginsError(
            "logits", expected="[N, 2]: Platt is for two classes", received=str(list(logits.shape)),
            fix="use VectorScaling",
        )  # fmt: skip
    return logits


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < np.inf:
        raise MarginsError("temperature", expected="a finite number > 0", received=str(value))
    return number
