"""Thresholds of scores that are best for a metric of decisions on predictions of the select role.

Every cut between two different scores is tried, at the cost of a sort. Equal scores are never divided. A
threshold lies halfway between the lowest score that it accepts and the next one below; a score at the
threshold is accepted. Among cuts of equal value the one that accepts fewest is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.evaluation.records import Array, Floats, Ints, as_array
from margins.evaluation.select_role import SelectPredictions, check_select

Bools: TypeAlias = "npt.NDArray[np.bool_]"
Counts: TypeAlias = "npt.NDArray[Any]"
_BLOCK = 1 << 22  # entries sorted at once


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a wrong decision costs, to be made least: false positives and false negatives, each at a price."""

    false_positive: float
    false_negative: float

    def __post_init__(self) -> None:
        prices = (self.false_positive, self.false_negative)
        if not all(0 <= price < np.inf for price in prices) or not any(prices):
            raise MarginsError("Cost", expected="finite prices >= 0, not both 0", received=str(prices))


Goal: TypeAlias = "str | Cost"
"""`f1`, `f2`, `f0.5` ..., `balanced_accuracy`, or a `Cost`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Thresholds:
    """A threshold for each label.

    Args:
        values: [C]; a label is given where its score is at least this.
        is_global: [C] labels that use the threshold of all labels together, by wish or for want of positives.
        goal: what they are best for.
    """

    values: Floats
    is_global: Bools
    goal: Goal

    def decide(self, scores: Array) -> Bools:
        """Which labels are given, [N, C], for scores on the scale of those fitted on."""
        given = as_array("scores", scores).astype(np.float64)
        if given.ndim != 2 or given.shape[1] != len(self.values):
            raise MarginsError("scores", expected=f"[N, {len(self.values)}]", received=str(list(given.shape)))
        return given >= self.values

    def to_data(self) -> dict[str, Any]:
        """Numbers and lists for `from_data`."""
        return {
            "values": self.values.tolist(),
            "is_global": self.is_global.tolist(),
            "goal": _goal_to_data(self.goal),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The thresholds that gave these data."""
        return cls(
            values=np.array(data["values"], float),
            is_global=np.array(data["is_global"], bool),
            goal=_goal_from_data(data["goal"]),
        )


@dataclass(frozen=True, kw_only=True)
class BinaryThreshold:
    """Two classes: class 1 is given where its log-odds, logit 1 minus logit 0, are at least `log_odds`."""

    log_odds: float
    goal: Goal

    def decide(self, logits: Array) -> Ints:
        """The class of each row, [N], for logits [N, 2]."""
        return (log_odds_of(as_array("logits", logits)) >= self.log_odds).astype(np.int64)

    def to_data(self) -> dict[str, Any]:
        """Numbers for `from_data`."""
        return {"log_odds": self.log_odds, "goal": _goal_to_data(self.goal)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The threshold that gave these data."""
        return cls(log_odds=float(data["log_odds"]), goal=_goal_from_data(data["goal"]))


def fit_thresholds(
    select: SelectPredictions,
    goal: Goal = "f1",
    *,
    scope: Literal["per_label", "global"] = "per_label",
    min_positives: int = 5,
) -> Thresholds:
    """The best thresholds of label sets.

    A label with fewer positives than `min_positives`, or without negatives, takes the global threshold: a
    cut through a handful of positives is chance. The global one is best for all entries as one list (micro).

    Args:
        select: predictions of the select role with label sets; unknown entries do not count.
        goal: what to maximise: `f1`, `f2`, `balanced_accuracy`; or a `Cost` to make least.
        scope: one threshold a label, or one for all.
        min_positives: at least 1.

    Raises:
        MarginsError: not of the select role, class ids, an unknown goal, or no positive at all.

    Example:
        >>> import torch
        >>> sets = (torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0]))
        >>> logits = torch.tensor([[0.9], [0.4], [0.2]])
        >>> fit_thresholds(SelectPredictions(logits, sets), "f1", min_positives=1).values.round(6)
        array([0.3])
    """
    given = check_select(select)
    _check_goal(goal)
    if scope not in ("per_label", "global") or min_positives < 1:
        raise MarginsError(
            "scope, min_positives", expected="per_label or global, and at least 1",
            received=f"{scope}, {min_positives}",
        )  # fmt: skip
    scores, positive, known = _entries(given)
    num_labels = scores.shape[0]
    everywhere = _best_common_cut(scores, positive, known, goal)
    enough = (positive & known).sum(1) >= min_positives
    uses_global = ~(enough & (~positive & known).any(1)) | (scope == "global")
    values = np.full(num_labels, everywhere)
    own = np.flatnonzero(~uses_global)
    step = max(1, _BLOCK // scores.shape[1])
    for start in range(0, len(own), step):
        block = own[start : start + step]
        values[block] = _best_cuts(scores[block], positive[block], known[block], goal)
    return Thresholds(values=values, is_global=uses_global, goal=goal)


def fit_binary_threshold(select: SelectPredictions, goal: Goal = "f1") -> BinaryThreshold:
    """The best threshold of the log-odds of class 1, of two.

    Args:
        select: predictions [N, 2] of the select role with class ids, both classes among them.
        goal: as for `fit_thresholds`.

    Raises:
        MarginsError: not of the select role, label sets, more than two classes, rows of one class alone.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, -1.0], [0.0, -2.0], [0.0, -4.0]])
        >>> fit_binary_threshold(SelectPredictions(logits, torch.tensor([1, 1, 0]))).log_odds
        -3.0
    """
    given = check_select(select)
    _check_goal(goal)
    odds, labels = log_odds_of(given.numbers()), given.class_ids()
    if not 0 < labels.sum() < len(labels):
        raise MarginsError("labels", expected="rows of both classes", received=f"class {labels[0]} only")
    everything = np.ones((1, len(labels)), bool)
    cut = _best_cuts(odds[None], (labels == 1)[None], everything, goal)[0]
    return BinaryThreshold(log_odds=float(cut), goal=goal)


def _entries(select: SelectPredictions) -> tuple[Floats, Bools, Bools]:
    targets = select.label_sets()
    scores = np.ascontiguousarray(select.numbers().T)
    known = targets.known(0, targets.num_candidates)
    mask = np.ones(scores.shape, bool) if known is None else known.expand(targets.shape).T.numpy().copy()
    positive = np.ascontiguousarray(targets.positive(0, targets.num_candidates).T.numpy())
    if not (positive & mask).any():
        raise MarginsError("labels", expected="at least one positive label", received="none")
    return scores, positive, mask


def _best_cuts(scores: Floats, positive: Bools, known: Bools, goal: Goal) -> Floats:
    """[L] best thresholds of the rows of these [L, N] entries; unknown entries move no count."""
    order = np.argsort(-scores, axis=1)
    falling = np.take_along_axis(scores, order, 1)
    counted = np.take_along_axis(known, order, 1)
    right = np.cumsum(np.take_along_axis(positive, order, 1) & counted, axis=1, dtype=np.float64)
    wrong = np.cumsum(counted, axis=1, dtype=np.float64) - right
    sizes = right[:, -1:], wrong[:, -1:]
    value = _value(right, wrong, *sizes, goal)
    # A cut may not divide equal scores; before the first score lies the cut that accepts nothing.
    value[:, :-1][falling[:, 1:] == falling[:, :-1]] = -np.inf
    nothing = np.zeros((len(scores), 1))
    none = _value(nothing, nothing, *sizes, goal)
    best = np.concatenate([none, value], axis=1).argmax(1)
    return _between(falling, best)


def _best_common_cut(scores: Floats, positive: Bools, known: Bools, goal: Goal) -> float:
    """The best threshold of all entries as one list.

    No goal gains from one more wrong entry, so only cuts just below a positive need trying. That sorts plain
    numbers instead of entries: a fraction of the time and of the memory.
    """
    rising = np.sort(scores[known])
    own = np.sort(scores[known & positive])
    lowest = np.unique(own)[::-1]
    right = np.append(0, len(own) - np.searchsorted(own, lowest))
    accepted = np.append(0, len(rising) - np.searchsorted(rising, lowest))
    wrong = accepted - right
    sizes = np.array([len(own)]), np.array([len(rising) - len(own)])
    best = _value(right, wrong, *sizes, goal).argmax()
    return float(_between(rising[::-1][None], accepted[best : best + 1])[0])


def _between(falling: Floats, accepted: npt.NDArray[np.int64]) -> Floats:
    num = falling.shape[1]
    lines = np.arange(len(falling))
    lowest = falling[lines, np.maximum(accepted - 1, 0)]
    following = falling[lines, np.minimum(accepted, num - 1)]
    middle = lowest / 2 + following / 2
    inside = np.where(middle > following, middle, lowest)  # neighbours in float64 have no middle
    cut = np.where(accepted == num, lowest, inside)
    return np.where(accepted == 0, np.nextafter(lowest, np.inf), cut)


def _value(right: Counts, wrong: Counts, positives: Counts, negatives: Counts, goal: Goal) -> Floats:
    """What each cut is worth, greater is better, from how many it accepts of how many there are."""
    if isinstance(goal, Cost):
        return -(goal.false_positive * wrong + goal.false_negative * (positives - right)).astype(np.float64)
    if goal == "balanced_accuracy":
        # Times both sizes: whole numbers, so that equal cuts are equal exactly.
        return (right * np.maximum(negatives, 1) - wrong * np.maximum(positives, 1)).astype(np.float64)
    square = float(goal[1:]) ** 2
    below = square * positives + right + wrong
    return np.divide((1 + square) * right, below, out=np.zeros(right.shape), where=below > 0)


def log_odds_of(logits: npt.NDArray[Any]) -> Floats:
    """[N] logit 1 minus logit 0, of logits [N, 2]."""
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise MarginsError("logits", expected="[N, 2], of two classes", received=str(list(logits.shape)))
    numbers = logits.astype(np.float64)
    return numbers[:, 1] - numbers[:, 0]


def _check_goal(goal: object) -> None:
    if isinstance(goal, Cost) or goal == "balanced_accuracy":
        return
    if isinstance(goal, str) and re.fullmatch(r"f\d+(\.\d+)?", goal) and float(goal[1:]) > 0:
        return
    fix = suggestion(str(goal), ["f1", "f2", "f0.5", "balanced_accuracy"])
    raise MarginsError(
        "goal", expected="f1, f2 ..., balanced_accuracy or a Cost", received=repr(goal), fix=fix
    )


def _goal_to_data(goal: Goal) -> object:
    if isinstance(goal, str):
        return goal
    return {"false_positive": goal.false_positive, "false_negative": goal.false_negative}


def _goal_from_data(data: Any) -> Goal:
    goal = Cost(**data) if isinstance(data, dict) else data
    _check_goal(goal)
    return goal
