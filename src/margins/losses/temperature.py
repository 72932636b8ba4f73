"""A temperature that is learned with the model."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from margins.losses.forms.base import in_range


class LearnedTemperature(nn.Module):
    """A positive scalar that is learned, always above a minimum: minimum + exp(parameter).

    Give it to a loss in place of a number, and the loss's parameters to the optimiser, without weight decay.

    Args:
        initial: above the minimum.
        minimum: > 0; keeps the gradient of the scores bounded (0.01 in CLIP, arXiv 2103.00020).

    Example:
        >>> round(float(LearnedTemperature(0.07)().detach()), 4)
        0.07
    """

    def __init__(self, initial: float = 0.07, *, minimum: float = 0.01) -> None:
        super().__init__()
        self.minimum = in_range("minimum", minimum, low=0, open_low=True)
        above = in_range("initial", initial, low=minimum, open_low=True) - minimum
        self.log_excess = nn.Parameter(torch.tensor(math.log(above)))

    def forward(self) -> Float[Tensor, ""]:
        """The temperature."""
        return self.minimum + self.log_excess.exp()


Temperature = float | LearnedTemperature


def checked_temperature(temperature: Temperature) -> Temperature:
    """The temperature, or an error when it is a number that is not positive."""
    if isinstance(temperature, LearnedTemperature):
        return temperature
    return in_range("temperature", temperature, low=0, open_low=True)


def divided_by(scores: Tensor, temperature: Temperature) -> Tensor:
    """Scores over the temperature."""
    if isinstance(temperature, LearnedTemperature):
        return scores / temperature().to(scores.dtype)
    return scores if temperature == 1 else scores / temperature
