"""How a class is decided for, fitted on predictions of the select role for a metric of decisions.

The largest probability is best for accuracy, if probabilities are right; other metrics want rare classes
more often. Of two classes every cut of the log-odds between two different ones is tried. Of more classes one
number is fitted, which cannot overfit. Neither is worse on the select rows than the largest probability, and
where none is better that stays. They are plain data: `to_data` gives what JSON holds, `class_cut_from` reads
it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.evaluation.forms import Sums
from margins.evaluation.metric import Metric
from margins.evaluation.records import Array, Classes, Floats, Ints, as_array
from margins.evaluation.select_role import SelectPredictions, check_select, log_softmax
from margins.evaluation.thresholds import log_odds_of

TAUS = np.arange(41) / 20  # 0 to 2
_APART = 1e-12  # how far from one half a share is at least, so that rounding turns no decision
_EQUAL = 1e-12


class ClassCut(ABC):
    """What every cut does."""

    kind: ClassVar[str]

    @abstractmethod
    def shares(self, logits: Array) -> Floats:
        """[N, C] rows that sum to one, whose largest entry is the class decided for; of logits [N, C].

        They are for decisions alone: as probabilities they are off by what the cut moves.
        """

    def decide(self, logits: Array) -> Ints:
        """The class of each row, [N], for logits [N, C] on the scale of those fitted on."""
        return self.shares(logits).argmax(1)

    @abstractmethod
    def to_data(self) -> dict[str, Any]:
        """Numbers, lists and strings that `class_cut_from` reads."""

    @classmethod
    @abstractmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The cut that gave these data."""


@dataclass(frozen=True, kw_only=True)
class OddsCut(ClassCut):
    """Two classes: class 1 where its log-odds, logit 1 minus logit 0, are above a number.

    Args:
        log_odds: the number; 0 decides for the largest.
        metric: what it is best for.

    Example:
        >>> OddsCut(log_odds=-1.0, metric="macro_f1").decide(np.array([[0.0, -0.5], [0.0, -1.0]]))
        array([1, 0])
    """

    kind: ClassVar[str] = "log_odds"
    log_odds: float
    metric: str

    def shares(self, logits: Array) -> Floats:
        odds = log_odds_of(as_array("logits", logits))
        away = odds - self.log_odds
        p = np.exp(log_softmax(np.stack([np.zeros_like(away), away], axis=1)))[:, 1]
        p = np.where(odds > self.log_odds, np.maximum(p, 0.5 + _APART), np.minimum(p, 0.5 - _APART))
        return np.stack([1 - p, p], axis=1)

    def to_data(self) -> dict[str, Any]:
        return {"kind": self.kind, "log_odds": self.log_odds, "metric": self.metric}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        return cls(log_odds=float(data["log_odds"]), metric=str(data["metric"]))


@dataclass(frozen=True, kw_only=True, eq=False)
class PriorCut(ClassCut):
    """Several classes: the largest of logit - tau * log share of the class.

    This is the post-hoc logit adjustment of Menon et al. 2021, arXiv 2007.07314.

    Args:
        tau: 0 decides for the largest logit; 1 as if classes were equally frequent.
        log_prior: [C] logarithms of their shares.
        metric: what it is best for.

    Example:
        >>> cut = PriorCut(tau=1.0, log_prior=np.log([0.8, 0.1, 0.1]), metric="macro_f1")
        >>> cut.decide(np.log([[0.6, 0.3, 0.1], [0.9, 0.05, 0.05]]))
        array([1, 0])
    """

    kind: ClassVar[str] = "prior"
    tau: float
    log_prior: Floats
    metric: str

    def shares(self, logits: Array) -> Floats:
        given = as_array("logits", logits).astype(np.float64)
        if given.ndim != 2 or given.shape[1] != len(self.log_prior):
            raise MarginsError(
                "logits", expected=f"[N, {len(self.log_prior)}]", received=str(list(given.shape))
            )
        return np.exp(log_softmax(given - self.tau * self.log_prior))

    def to_data(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "tau": self.tau, "log_prior": self.log_prior.tolist(), "metric": self.metric,
        }  # fmt: skip

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            tau=float(data["tau"]), log_prior=np.array(data["log_prior"], float), metric=str(data["metric"])
        )


def fit_class_cut(
    select: SelectPredictions, metric: Metric, *, prior: Array, weight: Array | None = None
) -> ClassCut:
    """The cut that is best for a metric of decisions.

    Use it where the metric is not accuracy, above all with rare classes; it costs no training. Not where
    probabilities are used for more than the decision: those are better left as they are.

    Of two classes: among cuts of equal value the one that moves fewest rows; where the select rows hold one
    class alone, it stays at the largest. Of more: tau from 0 to 2 in steps of 0.05, the smallest of equal
    ones.

    Args:
        select: predictions [N, C] of the select role with class ids.
        metric: of classes; looks at decisions (kinds "f1" and "accuracy").
        prior: [C] shares > 0 of the classes in the training rows.
        weight: [N] row weights >= 0, as the metric takes them.

    Raises:
        MarginsError: not of the select role, label sets, another kind of metric, or shares that do not fit.

    Example:
        >>> import torch
        >>> from margins.evaluation import find_metric
        >>> logits = torch.tensor([[0.0, -1.0], [0.0, -2.0], [0.0, -4.0]])
        >>> select = SelectPredictions(logits, torch.tensor([1, 1, 0]))
        >>> fit_class_cut(select, find_metric("macro_f1"), prior=np.array([0.7, 0.3]))
        OddsCut(log_odds=-3.0, metric='macro_f1')
    """
    given = check_select(select)
    logits, labels = given.numbers(), given.class_ids()
    if "classes" not in metric.tasks or metric.kind not in ("f1", "accuracy"):
        raise MarginsError(
            "metric", expected="a metric of decisions", received=metric.name,
            fix="macro_f1, mcc and balanced_accuracy are some",
        )  # fmt: skip
    shares = as_array("prior", prior).astype(np.float64)
    if shares.shape != logits.shape[1:] or not (np.isfinite(shares).all() and (shares > 0).all()):
        raise MarginsError("prior", expected=f"[{logits.shape[1]}] shares > 0", received=str(shares)[:60])
    weights = metric.weights(weight, len(labels))
    if logits.shape[1] == 2:
        return OddsCut(log_odds=_best_log_odds(logits, labels, weights, metric), metric=metric.name)
    log_prior = np.log(shares)
    cuts = [PriorCut(tau=float(tau), log_prior=log_prior, metric=metric.name) for tau in TAUS]
    values = [metric.improvement(metric.measure(c.shares(logits), labels, weight=weight).value) for c in cuts]
    return cuts[int(np.argmax(values))]


def class_cut_from(data: Mapping[str, Any]) -> ClassCut:
    """The cut that gave these data.

    Example:
        >>> class_cut_from({"kind": "log_odds", "log_odds": -0.5, "metric": "macro_f1"})
        OddsCut(log_odds=-0.5, metric='macro_f1')

    Raises:
        MarginsError: an unknown kind, or data that lack something.
    """
    known: dict[str, type[ClassCut]] = {kind.kind: kind for kind in (OddsCut, PriorCut)}
    kind = str(data.get("kind"))
    if kind not in known:
        raise MarginsError("kind", expected="a cut", received=kind, fix=suggestion(kind, list(known)))
    try:
        return known[kind].from_data(data)
    except (KeyError, TypeError, ValueError) as error:
        raise MarginsError("data", expected=f"what the cut {kind} saved", received=repr(error)) from error


def _best_log_odds(logits: Floats, labels: Ints, weight: Floats, metric: Metric) -> float:
    """The best cut from what each gives: a sort, running sums of four counts, and the metric of these."""
    odds = log_odds_of(logits)
    order = np.argsort(-odds, kind="stable")
    falling, ones, mass = odds[order], labels[order] == 1, weight[order]
    hits, misses = (np.append(0.0, np.cumsum(mass * side)) for side in (ones, ~ones))
    if not (hits[-1] > 0 and misses[-1] > 0):
        return 0.0
    table = np.stack([misses[-1] - misses, misses, hits[-1] - hits, hits], axis=1)
    value = _values(table, metric)
    value[1:-1][falling[1:] == falling[:-1]] = -np.inf  # a cut may not divide equal scores
    plain = int((falling > 0).sum())
    best = np.flatnonzero(value >= value.max() - _EQUAL)
    nearest = int(best[np.abs(best - plain).argmin()])
    return 0.0 if nearest == plain else _below(falling, nearest)


def _values(table: Floats, metric: Metric) -> Floats:
    """The metric of every line of a table [cuts, 4]: rows by true class and decision, 00, 01, 10, 11."""
    compute = metric.compute
    assert isinstance(compute, Sums)  # noqa: S101 - metrics of decisions are
    one = np.ones(1)
    # What a row adds to the metric's sums depends on its class and its decision alone.
    added = [
        compute.state(Classes(np.eye(2)[[decided]], np.array([true])), one)
        for true in (0, 1)
        for decided in (0, 1)
    ]
    sign = metric.improvement(1.0)
    return sign * np.asarray(compute.finish(table @ np.stack(added)), np.float64)


def _below(falling: Floats, accepted: int) -> float:
    """A number that so many of these are above: halfway where there is room."""
    if accepted == 0:
        return float(falling[0])
    lowest = falling[accepted - 1]
    if accepted == len(falling):
        return float(np.nextafter(lowest, -np.inf))
    following = falling[accepted]
    middle = lowest / 2 + following / 2
    return float(middle if middle < lowest else following)
