"""The worst change of inputs inside a ball, by projected gradient ascent."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from margins.errors import MarginsError, describe
from margins.losses.forms.base import in_range

Norm = Literal["linf", "l2"]

Rising = Callable[[Tensor], Tensor]
"""Inputs [B, ...] to what is to rise, [B], one value a row that depends on no other row."""


class PGD:
    r"""Projected gradient ascent of any objective of rows, each inside a ball around its input.

    Use it inside adversarial training, and with more steps to measure robust accuracy: what it does not find
    may still be there, so a robust accuracy by one attack is an upper bound.

    $x' \leftarrow \Pi(x' + \eta\, d)$ with $d$ the sign of the gradient ("linf") or the gradient over its
    length ("l2") and $\Pi$ the projection into the ball and the range of inputs, from
    $x' = x + N(0, \epsilon^2)$. The best point of the way is returned, row by row.

    Args:
        radius: of the ball, >= 0, in the unit of the inputs.
        norm: "linf", each number of a row by itself, or "l2", the length of a row's change.
        num_steps: >= 1. Of the margins of linear models, 10 steps in an l2 ball reach nine tenths of the
            largest change there is, 100 steps all but a hundredth.
        step_size: $\eta$ > 0; a quarter of the radius when None.
        start_noise: $\epsilon$ >= 0; above 0 for an objective whose gradient is 0 at the input itself.
        low: smallest number that an input may have; None for any.
        high: largest number that an input may have; None for any.

    Raises:
        MarginsError: an argument out of its range.

    References:
        Madry et al. 2018, arXiv 1706.06083.

    Example:
        >>> attack = PGD(0.5, low=0.0, high=1.0, start_noise=0.0)
        >>> attack.ascend(lambda x: x.sum(1), torch.tensor([[0.2, 0.8]]), generator=torch.Generator())
        tensor([[0.7000, 1.0000]])
    """

    def __init__(
        self,
        radius: float,
        *,
        norm: Norm = "linf",
        num_steps: int = 10,
        step_size: float | None = None,
        start_noise: float = 1e-3,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        if norm not in get_args(Norm):
            raise MarginsError("norm", expected=f"one of {get_args(Norm)}", received=repr(norm))
        self.radius = in_range("radius", radius, low=0)
        self.norm: Norm = norm
        self.num_steps = int(in_range("num_steps", num_steps, low=1))
        self.step_size = (
            radius / 4 if step_size is None else in_range("step_size", step_size, low=0, open_low=True)
        )
        self.start_noise = in_range("start_noise", start_noise, low=0)
        self.low = -math.inf if low is None else low
        self.high = math.inf if high is None else high
        if not self.low < self.high:
            raise MarginsError("low, high", expected="low below high", received=f"{low} and {high}")

    def ascend(
        self,
        objective: Rising,
        inputs: Tensor,
        *,
        generator: torch.Generator,
        model: nn.Module | None = None,
    ) -> Tensor:
        """The inputs after the ascent, off the graph.

        Args:
            objective: inputs [B, ...] to [B] values that are to rise; no row's value depends on another row.
            inputs: [B, ...] floats in the range.
            generator: draws the start.
            model: in evaluation mode while the ascent lasts; every part of it then has its own mode again.

        Raises:
            MarginsError: integers, inputs out of range, an objective of another shape.
        """
        self._check(inputs)
        origin = inputs.detach()
        noise = torch.randn(inputs.shape, generator=generator, device=generator.device).to(origin)
        change = self.projected(origin, self.start_noise * noise)
        best, best_value = change, origin.new_full(origin.shape[:1], -math.inf)
        with evaluating(model):
            for step in range(self.num_steps + 1):
                value, gradient = self._value(
                    objective, self._at(origin, change), last=step == self.num_steps
                )
                is_better = value > best_value
                best_value = torch.where(is_better, value, best_value)
                best = torch.where(_as_rows(is_better, origin), change, best)
                if gradient is not None:
                    change = self.projected(origin, change + self.step_size * self.direction(gradient))
        return self._at(origin, best)

    def _at(self, inputs: Tensor, change: Tensor) -> Tensor:
        return (inputs + change).clamp(self.low, self.high)

    def direction(self, gradient: Tensor) -> Tensor:
        """The way of a step of size one; 0 for a row without a gradient."""
        if self.norm == "linf":
            return gradient.sign()
        length = _lengths(gradient)
        return torch.where(length > 0, gradient / length.clamp(min=torch.finfo(gradient.dtype).tiny), 0.0)

    def projected(self, inputs: Tensor, change: Tensor) -> Tensor:
        """The change inside the ball, such that the inputs stay in their range."""
        if self.norm == "linf":
            change = change.clamp(-self.radius, self.radius)
        else:
            length = _lengths(change).clamp(min=torch.finfo(change.dtype).tiny)
            change = change * (self.radius / length).clamp(max=1.0)
        if math.isinf(self.low) and math.isinf(self.high):
            return change
        # An input in its range stays nearer to a clamped point than to the point itself: the ball is kept.
        return (inputs + change).clamp(self.low, self.high) - inputs

    def _value(self, objective: Rising, inputs: Tensor, *, last: bool) -> tuple[Tensor, Tensor | None]:
        if last:
            with torch.no_grad():
                return self._checked(objective(inputs), inputs), None
        with torch.enable_grad():
            moved = inputs.requires_grad_()
            value = self._checked(objective(moved), moved)
            (gradient,) = torch.autograd.grad(value.sum(), moved)
        return value.detach(), gradient

    def _check(self, inputs: Tensor) -> None:
        if not inputs.is_floating_point() or inputs.ndim < 2:
            raise MarginsError("inputs", expected="[B, ...] floats", received=describe(inputs))
        if bool((inputs < self.low).any()) or bool((inputs > self.high).any()):
            raise MarginsError(
                "inputs", expected=f"numbers in [{self.low:g}, {self.high:g}]", received="some outside it",
                fix="give the range that inputs really have",
            )  # fmt: skip

    @staticmethod
    def _checked(value: Tensor, inputs: Tensor) -> Tensor:
        if value.shape != inputs.shape[:1]:
            raise MarginsError(
                "objective", expected=f"[B] = [{inputs.shape[0]}] values", received=describe(value),
                fix="one value a row: no mean, no sum over rows",
            )  # fmt: skip
        return value


@contextmanager
def evaluating(model: nn.Module | None) -> Generator[None]:
    """A model in evaluation mode; afterwards every part of it is in the mode that it had."""
    modes = {} if model is None else {part: part.training for part in model.modules()}
    if model is not None:
        model.eval()
    try:
        yield
    finally:
        for part, was_training in modes.items():
            part.training = was_training


def _lengths(rows: Tensor) -> Tensor:
    """The length of each row, in the shape of the rows."""
    return _as_rows(rows.flatten(1).norm(dim=1), rows)


def _as_rows(values: Tensor, rows: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (rows.ndim - 1))
