"""Sums over positive/negative pairs of a function of their score difference, without a tensor of pairs.

Four ways give the same numbers. Which of them ran is in the result; "auto" chooses:

moments    polynomials: means and variances, O(n)
sorted     powers of a hinge, and the step: one sort, O(n log n), exact
multipole  smooth functions: boxes and their far fields, O(n); relative error of ell below 1e-9 in float64 and
           1e-5 in float32
direct     all pairs in chunks: any function; the reference, and the fastest where positives are few
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from margins.engine.pairs.direct import direct_sums
from margins.engine.pairs.functions import (
    STEP,
    SURROGATES,
    Asymptote,
    HingePower,
    PairFunction,
    Polynomial,
    Smooth,
    Surrogate,
)
from margins.engine.pairs.groups import grouped_sums
from margins.engine.pairs.moments import moment_sums
from margins.engine.pairs.multipole import multipole_sums
from margins.engine.pairs.problem import PairProblem, Swept
from margins.engine.pairs.sorted import sorted_sums
from margins.engine.sources import checked
from margins.errors import MarginsError, OnceDifferentiableError, values_are_readable

__all__ = [
    "STEP",
    "SURROGATES",
    "Asymptote",
    "HingePower",
    "Method",
    "PairFunction",
    "PairSums",
    "Polynomial",
    "Smooth",
    "Surrogate",
    "method_for",
    "methods_of",
    "pair_sums",
]

Method = Literal["auto", "moments", "sorted", "multipole", "direct"]

_FAST: dict[type, tuple[Method, Callable[..., Swept]]] = {
    Polynomial: ("moments", moment_sums),
    HingePower: ("sorted", sorted_sums),
    Smooth: ("multipole", multipole_sums),
}


class _Cost(NamedTuple):
    """Work of a fast way in pairs of the direct way, as measured: to start, of a row, and of an item."""

    start: int
    row: int
    item: int


_COSTS = {
    "moments": _Cost(0, 0, 0),
    "sorted": _Cost(30_000, 0, 20),
    "multipole": _Cost(150_000, 3_000, 8),
}


@dataclass(frozen=True)
class PairSums:
    """The sums of every group, in float64: there may be more pairs than float32 counts.

    Args:
        values: weighted sum over the pairs of each group.
        pairs: sum of the weights of its pairs.
        methods: the ways that ran, each named once.
    """

    values: Float[Tensor, " groups"]
    pairs: Float[Tensor, " groups"]
    methods: tuple[str, ...]


def pair_sums(
    scores: Float[Tensor, "groups items"],
    positive: Bool[Tensor, "groups items"],
    weight: Float[Tensor, "groups items"] | None = None,
    *,
    surrogate: str | PairFunction,
    temperature: float = 1.0,
    groups: Int[Tensor, " ids"] | None = None,
    method: Method = "auto",
) -> PairSums:
    r"""For each group $\sum_{p, n} w_p w_n \ell((s_n - s_p) / \tau)$ over its pairs, and the sum of weights.

    Never holds a matrix of pairs. Gradients reach the scores, once; weights are constants to them.

    Args:
        scores: one row a group; pairs are within a row.
        positive: which items are positive; the others are negative.
        weight: >= 0 of each item, 0 for one that is not there; a pair weighs the product of its items'
            weights. None: all 1.
        surrogate: a name in `SURROGATES`, or a function; `STEP` counts wrong orders and has no gradient.
        temperature: > 0, divides the difference.
        groups: ids of groups of any sizes; scores are then [1, items], and the result follows rising ids.
        method: a way that the function admits, or "auto"; see `method_for` for its rule.

    Raises:
        MarginsError: scores that are not finite, a negative weight, or a method that the function has not.

    Example:
        >>> scores, positive = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[True, False, False]])
        >>> pair_sums(scores, positive, surrogate="linear").values
        tensor([-3.], dtype=torch.float64)
    """
    function = SURROGATES[surrogate] if isinstance(surrogate, str) else surrogate
    weight = torch.ones_like(scores) if weight is None else weight.detach()
    _check(scores, weight, function, method, groups)
    problem = PairProblem(scores.detach().contiguous(), positive, weight, temperature)
    methods: list[str] = []

    def sweep(with_slopes: bool) -> Swept:
        run = partial(_run, function=function, method=method, methods=methods, with_slopes=with_slopes)
        return run(problem) if groups is None else grouped_sums(problem, groups, run)

    values = _PairSums.apply(scores, groups, sweep) if function.has_slope else sweep(False).sums
    return PairSums(values, _pair_weights(problem, groups), tuple(dict.fromkeys(methods)))  # pyright: ignore[reportArgumentType]


def methods_of(surrogate: str | PairFunction) -> tuple[Method, ...]:
    """What `method` may be with this function.

    Example:
        >>> methods_of("logistic")
        ('auto', 'multipole', 'direct')
    """
    function = SURROGATES[surrogate] if isinstance(surrogate, str) else surrogate
    return ("auto", _FAST[type(function)][0], "direct") if type(function) in _FAST else ("auto", "direct")


def method_for(problem: PairProblem, function: PairFunction) -> Method:
    """What "auto" runs: the function's own fast way, or all pairs where those are less work.

    Positives times items are held against start + row * rows + item * items, by measured costs.
    """
    if type(function) not in _FAST:
        return "direct"
    fast = _FAST[type(function)][0]
    rows, items = problem.scores.shape
    cost = _COSTS[fast]
    work = cost.start + rows * (cost.row + items * cost.item)
    return "direct" if int(problem.positive.sum()) * items <= work else fast


def _run(
    problem: PairProblem, *, function: PairFunction, method: Method, methods: list[str], with_slopes: bool
) -> Swept:
    if problem.scores.numel() == 0:
        sums = torch.zeros(problem.scores.shape[0], dtype=torch.float64, device=problem.scores.device)
        return Swept(sums, torch.zeros_like(problem.scores))
    chosen = method_for(problem, function) if method == "auto" else method
    methods.append(chosen)
    way = direct_sums if chosen == "direct" else _FAST[type(function)][1]
    return way(problem, function, with_slopes=with_slopes)


def _pair_weights(problem: PairProblem, groups: Tensor | None) -> Tensor:
    sides = torch.stack(problem.sides())
    if groups is None:
        masses = sides.sum(2)
    else:
        ids, places = groups.unique(return_inverse=True)
        masses = sides.new_zeros(2, ids.shape[0]).index_add_(1, places, sides[:, 0])
    return masses.prod(0)


def _check(
    scores: Tensor, weight: Tensor, function: PairFunction, method: str, groups: Tensor | None
) -> None:
    checked("scores", scores)
    if method not in methods_of(function):
        raise MarginsError(
            "method", expected=f"one of {methods_of(function)} for this function", received=repr(method)
        )
    if values_are_readable(weight) and weight.numel() and not float(weight.min()) >= 0:
        raise MarginsError("weight", expected="numbers >= 0", received=f"{float(weight.min()):g}")
    if groups is not None and (scores.shape[0] != 1 or groups.shape[0] != scores.shape[1]):
        raise MarginsError(
            "groups",
            expected="[items] ids, with scores of [1, items]",
            received=f"{list(groups.shape)} with scores of {list(scores.shape)}",
        )


class _PairSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _scores: Tensor, groups: Tensor | None, sweep: Callable[[bool], Swept]) -> Tensor:
        needed = bool(ctx.needs_input_grad[0])
        found = sweep(needed)
        if needed:
            ctx.groups = groups
            ctx.save_for_backward(found.slopes)
        return found.sums

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise OnceDifferentiableError("pair sums give first derivatives only")
        (slopes,) = ctx.saved_tensors
        per_group = upstream[0].to(slopes.dtype)
        if ctx.groups is None:
            return per_group[:, None] * slopes, None, None
        places = ctx.groups.unique(return_inverse=True)[1]
        return per_group[places] * slopes, None, None
