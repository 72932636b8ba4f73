"""Numbers, standardised by the training rows, through a small multilayer perceptron."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from margins.encoders.base import Encoder, perceptron
from margins.encoders.inputs import TensorRows


@dataclass(frozen=True, eq=False)
class Numbers(TensorRows):
    """Numeric inputs [N, columns]."""

    values: Tensor


class NumericEncoder(Encoder[Numbers]):
    """Standardisation and two hidden layers with ReLU and dropout.

    Args:
        num_columns: width of the input.
        width: of the hidden layers and of the embedding.
        dropout: share of hidden units left out in training.
        generator: draws the first weights and the dropout.

    Example:
        >>> encoder = NumericEncoder(num_columns=2, width=4, generator=torch.Generator().manual_seed(0))
        >>> rows = Numbers(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        >>> encoder.fit(rows)
        >>> encoder.standardised(rows)
        tensor([[-1.,  0.],
                [ 1.,  0.]])
        >>> encoder(rows).shape
        torch.Size([2, 4])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, *, num_columns: int, width: int = 128, dropout: float = 0.2, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.width = width
        self.layers = perceptron(num_columns, width, depth=2, dropout=dropout, generator=generator)
        self.register_buffer("mean", torch.zeros(num_columns, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(num_columns, dtype=torch.float64))

    def fit(self, inputs: Numbers) -> None:
        """Mean and standard deviation of each column; a constant column keeps deviation one."""
        mean, deviation = mean_and_deviation(inputs.values.double())
        self.mean, self.deviation = mean.to(self.mean.device), deviation.to(self.mean.device)

    def standardised(self, inputs: Numbers) -> Tensor:
        """Inputs in deviations from the training mean; only then float32, so large numbers lose nothing."""
        return ((inputs.values.double() - self.mean) / self.deviation).float()

    def forward(self, inputs: Numbers) -> Tensor:
        """Embeddings [B, width]."""
        return self.layers(self.standardised(inputs))


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column in float64, leaving NaN out.

    A column that is constant, or has no number at all, gets deviation one; the latter mean zero.
    """
    if not values.numel():
        return values.new_zeros(values.shape[1]), values.new_ones(values.shape[1])
    if not values.isnan().any():
        mean, deviation = values.mean(0), values.std(0, correction=0)
    else:
        mean = values.nanmean(0).nan_to_num(0.0)
        deviation = (values - mean).square().nanmean(0).nan_to_num(0.0).sqrt()
    # Compared with the size of the numbers: a constant 1e9 has a deviation of rounding only.
    is_constant = deviation <= 1e-12 * values.nan_to_num(0.0).abs().amax(0)
    return mean, torch.where(is_constant, torch.ones_like(deviation), deviation)
