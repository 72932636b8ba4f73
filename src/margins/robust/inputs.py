"""Which inputs of an encoder can be moved a little, and in which unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from margins.encoders.embeddings import Vectors
from margins.encoders.images import Images
from margins.encoders.numeric import Numbers, NumericEncoder
from margins.encoders.tabular import TabularEncoder, TabularRows
from margins.errors import MarginsError


@dataclass(frozen=True, eq=False)
class Movable:
    """The numbers among the inputs of rows, apart from how an encoder holds them.

    Args:
        values: [B, ...] floats, in a unit that is the same for all of them.
        low: smallest possible value, None for any.
        high: largest possible value, None for any.
        as_inputs: such values to inputs of the encoder; what is no number among them stays.
    """

    values: Tensor
    low: float | None
    high: float | None
    as_inputs: Callable[[Tensor], Any]


def movable(encoder: nn.Module, inputs: Any) -> Movable:
    """The inputs of rows as numbers that an attack may move.

    Numbers of a table are in standard deviations of the training rows, pixels in [0, 1], vectors as they are.

    Args:
        encoder: that takes the inputs, fitted.
        inputs: of some rows, after preparation.

    Raises:
        MarginsError: inputs that are no numbers: texts, categories alone, several kinds side by side.

    Example:
        >>> import torch
        >>> vectors = Vectors(torch.tensor([[3.0, 4.0]]))
        >>> movable(nn.Identity(), vectors).as_inputs(torch.zeros(1, 2)).values
        tensor([[0., 0.]])
    """
    if isinstance(inputs, Images):
        return Movable(inputs.pixels.float() / 255, 0.0, 1.0, lambda values: Images(values * 255))
    if isinstance(inputs, Vectors):
        return Movable(inputs.values, None, None, Vectors)
    if isinstance(inputs, Numbers) and isinstance(encoder, NumericEncoder):
        return _standardised(inputs.values, encoder.mean, encoder.deviation, Numbers)
    if isinstance(inputs, TabularRows) and isinstance(encoder, TabularEncoder) and inputs.numbers.shape[1]:
        categories = inputs.categories
        return _standardised(
            inputs.numbers, encoder.mean, encoder.deviation, lambda numbers: TabularRows(numbers, categories)
        )
    raise MarginsError(
        "inputs",
        expected="numbers, images or vectors, of one kind, for an attack that moves them a little",
        received=type(inputs).__name__,
        fix="train by the step standard, or leave the other columns out",
    )


def _standardised(
    numbers: Tensor, mean: Tensor, deviation: Tensor, as_inputs: Callable[[Tensor], Any]
) -> Movable:
    # A missing number is NaN, and stays missing however it is moved.
    values = (numbers.double() - mean) / deviation
    return Movable(values, None, None, lambda moved: as_inputs(moved * deviation + mean))
