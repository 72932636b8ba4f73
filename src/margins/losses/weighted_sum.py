"""Several losses of the same scores and targets, added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from margins.cards import LossCard, carded
from margins.engine.evaluators import Rows
from margins.engine.statistics import (
    RESERVED,
    Entries,
    Phi,
    Program,
    Repeat,
    RowValue,
    RowValues,
    SlopedPhi,
    Stage,
    Statistic,
)
from margins.errors import MarginsError
from margins.losses.forms.base import in_range
from margins.losses.forms.statistics import EmbeddingLoss, StatisticsLoss
from margins.targets import Targets


class _Own:
    """The row values of one part of a sum, under the names that the part gave them."""

    def __init__(self, values: Any, prefix: str) -> None:
        self._values, self._prefix = values, prefix

    def __getattr__(self, name: str) -> Tensor:
        return getattr(self._values, name if name in RESERVED else self._prefix + name)


class _OwnEntries:
    """Entries as one part of a sum sees them."""

    def __init__(self, entries: Entries, prefix: str) -> None:
        self._entries = entries
        self.row = _Own(entries.row, prefix)

    @property
    def s(self) -> Tensor:
        return self._entries.s

    @property
    def t(self) -> Tensor:
        return self._entries.t

    def side(self, name: str) -> Tensor:
        return self._entries.side(name)


class _OwnRows(Rows):
    """All that a part's row function reads, under the names that the part gave them."""

    def __init__(self, whole: Rows, prefix: str) -> None:
        self._whole, self._own = whole, _Own(whole, prefix)

    def __getattr__(self, name: str) -> Tensor:
        return getattr(self._own, name)

    @property
    def num_known(self) -> Tensor:
        return self._whole.num_known

    @property
    def known_weight(self) -> Tensor:
        return self._whole.known_weight

    @property
    def mass(self) -> Tensor:
        return self._whole.mass

    @property
    def num_positives(self) -> Tensor:
        return self._whole.num_positives


@carded(
    LossCard(
        name="Weighted sum of losses (active-passive losses)",
        summary="one loss to learn by and one that wrong labels cannot drag, both in one pass",
        paper="Ma et al., Normalized Loss Functions for Learning with Noisy Labels, 2020, arXiv 2006.13554",
        targets=("classes", "scores", "label sets"),
        distributed="independent",
        comparable=True,
        collapse="the weighted sum of the parts' own",
        limits=("one part of weight 1: that part", "weights that add up to 1 of one loss twice: that loss"),
        recipe={
            "objective": {
                "loss": "weighted_sum",
                "settings": {"parts": [[1.0, "normalized_cross_entropy"], [1.0, "reverse_cross_entropy"]]},
            }
        },
        tests=(
            "tests/test_robust_losses.py::test_a_weighted_sum_has_the_value_and_the_gradient_of_its_parts",
        ),
    )
)
class WeightedSum(StatisticsLoss):
    r"""A weighted sum of losses of the same scores and targets.

    Use it for active-passive losses under label noise: `NormalizedCrossEntropy`, which pushes the label up,
    with `ReverseCrossEntropy`, `AsymmetricGCE` or `AsymmetricUnhinged`, which push the other classes down;
    weights that add up to 10 are usual, tune their ratio. It is declared as one loss, so that every evaluator
    runs it, and parts share their passes over the scores.

    $L_i = \sum_n w_n L_{n,i}$.

    Args:
        parts: pairs of a weight >= 0 and a loss whose rows need a positive and nothing else. Their own
            reductions are not used.
        reduction: see `margins.engine.reduction`.

    Raises:
        MarginsError: no part, or one that is another kind of loss.

    References:
        Ma et al. 2020, arXiv 2006.13554.

    Example:
        >>> import torch
        >>> from margins.losses import NormalizedCrossEntropy, ReverseCrossEntropy
        >>> loss = WeightedSum([(1.0, NormalizedCrossEntropy()), (0.1, ReverseCrossEntropy(log_zero=-4.0))])
        >>> loss(torch.zeros(1, 4), torch.tensor([0]))
        tensor(0.5500)
    """

    needs = frozenset({"positives"})

    def __init__(self, parts: Sequence[tuple[float, StatisticsLoss]], *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        for number, part in enumerate(parts):
            _check_part(f"parts[{number}]", part)
        if not parts:
            raise MarginsError("parts", expected="pairs of a weight and a loss", received="none")
        self.weights = tuple(float(weight) for weight, _ in parts)
        self.parts = nn.ModuleList(loss for _, loss in parts)

    def _named_parts(self) -> list[tuple[str, StatisticsLoss]]:
        return [(f"part{n}_", cast("StatisticsLoss", part)) for n, part in enumerate(self.parts)]

    def check_targets(self, targets: Targets) -> None:
        """What every part asks."""
        for _, part in self._named_parts():
            part.check_targets(targets)

    def stages(self) -> Program:
        """Those of the parts, side by side."""
        programs = [
            [_renamed(step, prefix) for step in part.stages()] for prefix, part in self._named_parts()
        ]
        steps: list[Stage | Repeat] = []
        for together in zip_longest(*programs):
            stages = [step for step in together if isinstance(step, Stage)]
            if stages:
                steps.append(_merged(stages))
            steps += [step for step in together if isinstance(step, Repeat)]
        return tuple(steps)

    def row(self, z: Rows) -> Float[Tensor, " anchors"]:
        """The weighted sum over parts."""
        rows = [part.row(_OwnRows(z, prefix)) for prefix, part in self._named_parts()]
        return sum(
            (w * row for w, row in zip(self.weights[1:], rows[1:], strict=True)), self.weights[0] * rows[0]
        )


def _check_part(name: str, part: Any) -> None:
    is_pair = isinstance(part, (tuple, list)) and len(cast("list[Any]", part)) == 2
    loss: Any = part[1] if is_pair else None
    is_fit = isinstance(loss, StatisticsLoss) and not isinstance(loss, EmbeddingLoss)
    if not is_fit or loss.needs != frozenset({"positives"}) or loss.side_names:
        raise MarginsError(
            name,
            expected="(weight, loss), the loss one of a softmax whose rows need a positive and nothing else",
            received=repr(part),
            fix="CrossEntropy, CompSum, NormalizedCrossEntropy and ReverseCrossEntropy are some",
        )
    in_range(f"{name}[0]", part[0], low=0)


def _merged(stages: Sequence[Stage]) -> Stage:
    statistics = {name: found for stage in stages for name, found in stage.statistics.items()}
    return Stage(statistics, {name: value for stage in stages for name, value in stage.rows.items()})


def _renamed(step: Stage | Repeat, prefix: str) -> Stage | Repeat:
    if isinstance(step, Repeat):
        inner = tuple(cast("Stage", _renamed(stage, prefix)) for stage in step.stages)
        return Repeat(inner, step.times)
    return Stage(
        {prefix + name: _seen(statistic, prefix) for name, statistic in step.statistics.items()},
        {prefix + name: _told(value, prefix) for name, value in step.rows.items()},
    )


def _seen(statistic: Statistic, prefix: str) -> Statistic:
    keep = None if statistic.keep is None else _for_part(statistic.keep, prefix)
    return Statistic(statistic.reduce, statistic.over, _for_part(statistic.phi, prefix), keep)


def _for_part(phi: Phi, prefix: str) -> Phi:
    if isinstance(phi, SlopedPhi):  # of the score alone: the fast ways for it stay open
        return phi
    return lambda entries: phi(_OwnEntries(entries, prefix))


def _told(value: RowValue, prefix: str) -> RowValue:
    function: Callable[[RowValues], Tensor] = value.function
    return RowValue(lambda z: function(_Own(z, prefix)), value.kind)
