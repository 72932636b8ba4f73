"""What all losses share: how targets are read, and where the reduction is kept."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from margins.cards import LossCard
from margins.engine.reduction import Reduction, check_reduction
from margins.engine.sources import at_least_float32, checked
from margins.errors import MarginsError, describe, values_are_readable
from margins.targets import Targets
from margins.targets.checks import check_tensor
from margins.targets.dense import DenseGrades


class Loss(nn.Module):
    """A loss: hyperparameters, perhaps learned parameters or state, and a declared form.

    Args:
        reduction: "mean", "weighted_mean", "sum" or "none"; see `margins.engine.reduction`.
    """

    form: ClassVar[str]
    reads_order: ClassVar[bool] = False
    """Whether the numbers of the candidates are an order to it: classes must then be numbered by theirs."""
    card: ClassVar[LossCard]

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction: Reduction = check_reduction(reduction)

    def extra_repr(self) -> str:
        """The hyperparameters."""
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(
            f"{k}={v!r}" for k, v in shown.items() if isinstance(v, (int, float, str, type(None)))
        )


def as_targets(targets: Targets | Tensor, shape: tuple[int, int]) -> Targets:
    """Targets of the shape of the scores, made from a tensor with the meaning that torch gives it.

    Args:
        targets: `Targets` of that shape, [B] class ids (-100 ignores a row), or a [B, C] float matrix.
        shape: (B, C) of the scores.
    """
    if isinstance(targets, Targets):
        if targets.shape != shape:
            raise MarginsError(
                "targets", expected=f"(anchors, candidates) = {shape}, as the scores", received=repr(targets)
            )
        return targets
    check_tensor("targets", targets, "[B] class ids or [B, C] floats, or Targets")
    if targets.ndim == 1 and targets.dtype == torch.int64:
        if targets.shape[0] != shape[0]:
            raise MarginsError(
                "targets", expected=f"[B] class ids with B = {shape[0]}", received=describe(targets)
            )
        return Targets.of_classes(targets, shape[1])
    if targets.ndim == 2 and targets.is_floating_point():
        if tuple(targets.shape) != shape:
            raise MarginsError(
                "targets", expected=f"[B, C] = {list(shape)} floats", received=describe(targets)
            )
        return Targets.of_scores(targets)
    raise MarginsError(
        "targets",
        expected=f"[B] int64 class ids in [0, C), [B, C] floats, or Targets, for scores {list(shape)}",
        received=describe(targets),
        fix=_likely_cure(targets),
    )


def _likely_cure(targets: Tensor) -> str:
    if targets.ndim == 2 and targets.shape[1] == 1:
        return "drop the last axis: targets.squeeze(1)"
    if targets.ndim == 2:
        return "multi-hot labels: targets.float()"
    if targets.ndim == 1 and targets.is_floating_point():
        return (
            "class ids: targets.long(); one score an item: pass scores of shape [B, 1] and targets[:, None]"
        )
    return "class ids: targets.long()"


def as_columns(scores: Tensor, targets: Targets | Tensor) -> tuple[Tensor, Targets]:
    """Scores [B, C] and their targets; a binary problem may give [B] scores and [B] labels 0 or 1."""
    if scores.ndim != 1:
        return scores, as_targets(targets, _shape_of(scores))
    if isinstance(targets, Tensor):
        if targets.shape != scores.shape:
            raise MarginsError(
                "targets", expected=f"[B] = {list(scores.shape)}, as the scores", received=describe(targets)
            )
        targets = Targets.of_scores(targets.to(at_least_float32(scores).dtype)[:, None])
    return scores[:, None], as_targets(targets, (scores.shape[0], 1))


def _shape_of(scores: Tensor) -> tuple[int, int]:
    if scores.ndim != 2:
        raise MarginsError("scores", expected="[B, C] floats", received=describe(scores))
    return scores.shape[0], scores.shape[1]


def prepared(scores: Tensor, targets: Targets | Tensor) -> tuple[Tensor, Targets]:
    """Finite float32 scores with their margins subtracted, and the targets, for forms that use all scores."""
    columns, targets = as_columns(scores, targets)
    refuse_real_values(targets)
    if not columns.is_floating_point():
        raise MarginsError("scores", expected="[B, C] floats", received=describe(scores))
    if columns.shape[1] == 0:
        raise MarginsError("scores", expected="[B, C] with C >= 1", received=describe(scores))
    columns = checked("scores", at_least_float32(columns))
    check_device(columns, targets)
    margin = targets.margin_of(0, targets.num_candidates)
    return (columns if margin is None else columns - margin.to(columns.dtype)), targets


def known_weights(targets: Targets, dtype: torch.dtype) -> Tensor:
    """[B, C] row weight times entry weight of every entry, 0 where it is unknown."""
    entries = entry_weights(targets, dtype)
    return entries if targets.row_weight is None else entries * targets.row_weight[:, None].to(dtype)


def entry_weights(targets: Targets, dtype: torch.dtype) -> Tensor:
    """[B, C] weight of every entry, 0 where it is unknown or its row has no target or no weight."""
    num_candidates = targets.num_candidates
    total = torch.ones(targets.shape, dtype=dtype, device=targets.device)
    weight, known = targets.weight_of(0, num_candidates), targets.known(0, num_candidates)
    rows = targets.known_rows()
    if weight is not None:
        total = total * weight.to(dtype)
    if known is not None:
        total = total * known
    return total if rows is None else total * rows[:, None]


def check_device(scores: Tensor, targets: Targets) -> None:
    """Raises MarginsError when scores and targets live on different devices."""
    if scores.device != targets.device:
        raise MarginsError(
            "targets", expected=f"targets on {scores.device}, as the scores", received=f"{targets.device}",
            fix=f"targets.to({str(scores.device)!r})",
        )  # fmt: skip


def refuse_real_values(targets: Targets) -> None:
    """Raises MarginsError for regression targets, for a loss of positives and negatives."""
    if not targets.storage.has_positives:
        raise MarginsError(
            "targets",
            expected="targets with positive candidates",
            received=repr(targets),
            fix="real values go with SquaredError",
        )


def refuse_grades_beyond_one(targets: Targets) -> None:
    """Raises MarginsError for grades above 1, for a loss that reads them as probabilities."""
    num_candidates, storage = targets.num_candidates, targets.storage
    bounded = targets.is_sparse or (isinstance(storage, DenseGrades) and storage.upper_bound <= 1)
    if bounded or 0 in targets.shape:
        return
    grades = targets.grades(0, num_candidates).detach()
    if values_are_readable(grades) and float(grades.max()) > 1:
        raise MarginsError(
            "targets",
            expected="[B, C] probabilities in [0, 1]",
            received=f"a grade of {float(grades.max()):g}",
            fix="divide graded relevance by its maximum, or use a ranking loss",
        )


def refuse_smoothing(targets: Targets) -> None:
    """Raises MarginsError for smoothed targets, for a loss that sets positives against negatives."""
    if targets.is_smoothed:
        raise MarginsError(
            "targets", expected="targets that are not smoothed", received=repr(targets),
            fix="label smoothing goes with CrossEntropy, BinaryCrossEntropy, Focal or CompSum",
        )  # fmt: skip


def refuse_shares(targets: Targets) -> None:
    """Raises MarginsError for mixtures and smoothing, for a loss to which an entry is positive or not."""
    refuse_smoothing(targets)
    if targets.is_mixed:
        raise MarginsError(
            "targets", expected="targets that are not mixed: grades are not used", received=repr(targets),
            fix="add the losses of targets.parts, each times its share",
        )  # fmt: skip


def refuse_entry_weights(targets: Targets) -> None:
    """Raises MarginsError when entries weigh differently, for a loss whose definition has no place for it."""
    if targets.weight_of(0, 0) is not None:
        raise MarginsError(
            "targets",
            expected="entries that all weigh 1",
            received="entry weights",
            fix="weigh rows, or ignore entries",
        )


def in_range(
    name: str, value: float, *, low: float, high: float = float("inf"), open_low: bool = False
) -> float:
    """The hyperparameter, or an error with its range."""
    above = value > low if open_low else value >= low
    if not (above and value <= high and math.isfinite(value)):
        bracket = "(" if open_low else "["
        raise MarginsError(name, expected=f"a number in {bracket}{low:g}, {high:g}]", received=f"{value!r}")
    return value
