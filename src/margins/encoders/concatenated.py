"""Several trained encoders of the same inputs as one: their embeddings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.data.roles import RowInputs
from margins.encoders.base import Encoder
from margins.errors import MarginsError

_ROWS_AT_ONCE = 2048


@carded(
    Card(
        name="Concatenated representations (CAT)",
        summary="features for tasks to come: several trainings that differ by their seed keep more than one",
        paper="Zhang and Bottou, Learning useful representations for shifting tasks and distributions, 2023, "
        "arXiv 2212.07346",
        kind="encoder",
        stations=("encode",),
        targets=("classes", "label sets", "values", "matches"),
        entry=60,
        tests=(
            "tests/test_concatenated.py::test_one_encoder_is_itself",
            "tests/test_concatenated.py::test_a_probe_of_all_blocks_fits_at_least_as_well_as_that_of_each",
        ),
        study="concatenated",
    )
)
class ConcatenatedEncoder(Encoder[RowInputs]):
    r"""Embeddings of several trained encoders side by side: $\Phi(x) = [\phi_1(x); \dots; \phi_n(x)]$.

    Use it when a task or a distribution other than that of training is to come: one training keeps the
    features that it needs, and others, from other seeds, keep other ones. Train 2 to 10 encoders with the
    same data and settings, and a linear head on top. When the target task is known, train each of them
    further on it with a head of its own first, and then a linear head on all; training all of them jointly
    loses what they have beyond one. On the task they were trained for, expect little. The cost is that of n
    encoders: `distill.MultiTeacherFeatures` makes one of them.

    The encoders keep their weights: no gradient reaches them, and they stay in evaluation mode.

    Args:
        encoders: trained, of the same inputs.
        standardise: whether each feature is brought to mean 0 and deviation 1 over the training rows (`fit`),
            so that no encoder wins by its scale. A feature that does not vary becomes 0.

    Raises:
        MarginsError: no encoder.

    Example:
        >>> from margins.encoders import Numbers, NumericEncoder
        >>> blocks = [
        ...     NumericEncoder(num_columns=3, width=4, generator=torch.Generator().manual_seed(seed))
        ...     for seed in range(2)
        ... ]
        >>> ConcatenatedEncoder(blocks, standardise=False)(Numbers(torch.zeros(5, 3))).shape
        torch.Size([5, 8])

    One encoder that is not standardised is itself.

    References:
        Zhang and Bottou 2023, arXiv 2212.07346.
    """

    mean: Tensor
    factor: Tensor
    num_rows: Tensor

    def __init__(self, encoders: Sequence[Encoder[Any]], *, standardise: bool = True) -> None:
        super().__init__()
        if not encoders:
            raise MarginsError("encoders", expected="at least one", received="none")
        self.encoders = nn.ModuleList(encoders)
        self.widths = tuple(encoder.width for encoder in encoders)
        self.width = sum(self.widths)
        self.standardise = standardise
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("factor", torch.ones(self.width))
        self.register_buffer("num_rows", torch.zeros((), dtype=torch.int64))
        self.train(False)

    def fit(self, inputs: RowInputs) -> None:
        """Takes means and deviations of the features; the encoders themselves are left alone.

        Args:
            inputs: of training rows.
        """
        if not self.standardise:
            return
        parts = torch.arange(len(inputs)).split(_ROWS_AT_ONCE)
        features = torch.cat([self._embedded(inputs.take(part)) for part in parts]).double()
        deviation = features.std(0, correction=0)
        # Rounding is not to be blown up to a feature.
        varies = deviation > 1e-6 * (1 + features.mean(0).abs())
        self.mean.copy_(features.mean(0))
        self.factor.copy_(torch.where(varies, 1 / deviation, 0.0))
        self.num_rows.fill_(len(features))

    def forward(self, inputs: RowInputs) -> Tensor:
        """Embeddings [B, width], the encoders' in their order.

        Raises:
            MarginsError: they are to be standardised and nothing was fitted.
        """
        embeddings = self._embedded(inputs)
        if not self.standardise:
            return embeddings
        if not int(self.num_rows):
            raise MarginsError(
                "inputs", expected="a fitted encoder: means and deviations of training rows",
                received="one that was not", fix="call fit(training inputs) first",
            )  # fmt: skip
        return (embeddings - self.mean) * self.factor

    def train(self, mode: bool = True) -> Self:
        """As for any module, but the encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders:
            encoder.train(False)
        return self

    @torch.no_grad()
    def _embedded(self, inputs: RowInputs) -> Tensor:
        return torch.cat([encoder(inputs) for encoder in self.encoders], 1)
