"""One exception for everything a user can mend, and warnings with codes.

A message names the argument, what was expected (shapes in letters), what came, and the likely fix.
"""

from __future__ import annotations

import torch
from torch import Tensor


class MarginsError(ValueError):
    """Something the caller passed cannot be used; the text says what, where and how to mend it.

    Args:
        argument: name of the argument, column or file at fault.
        expected: what would have been accepted, shapes in letters.
        received: what came.
        fix: the likely cure, one sentence.

    Example:
        >>> raise MarginsError("labels", expected="[B] integers in [0, C)", received="[B, C] floats",
        ...                    fix="pass soft targets through Targets.of_scores")
        Traceback (most recent call last):
        margins.errors.MarginsError: labels: expected [B] integers in [0, C), got [B, C] floats; pass soft
        targets through Targets.of_scores
    """

    def __init__(self, argument: str, *, expected: str, received: str, fix: str = "") -> None:
        self.argument = argument
        self.expected = expected
        self.received = received
        self.fix = fix
        text = f"{argument}: expected {expected}, got {received}"
        super().__init__(f"{text}; {fix}" if fix else text)


class MarginsWarning(UserWarning):
    """A warning with a code (`MG012`), so that it can be looked up and muted by that code alone."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(f"{code} {text}")


class OnceDifferentiableError(RuntimeError):
    """A second derivative was asked of an evaluator that recomputes its scores; the dense one gives it."""


def refuse_second_derivative(evaluator: str) -> None:
    """In a backward pass: raises OnceDifferentiableError when that is to be differentiated itself."""
    if torch.is_grad_enabled():
        raise OnceDifferentiableError(
            f"the {evaluator} evaluator gives first derivatives only: a step that needs second ones "
            "(bilevel, gradient penalty) must use the dense evaluator"
        )


def describe(value: object) -> str:
    """Shape and dtype of a tensor, or the type of anything else, for the `received` part of a message.

    Example:
        >>> describe(torch.zeros(2, 3))
        '[2, 3] float32'
    """
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def values_are_readable(tensor: Tensor) -> bool:
    """Whether looking at values costs no device synchronisation and breaks no compiled graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
