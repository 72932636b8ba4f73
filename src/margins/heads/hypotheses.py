"""Several answers to one question: heads whose outputs have an axis of hypotheses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import linear
from margins.encoders.convolution import convolution
from margins.errors import MarginsError, describe

_PAPER = "Liu et al., Multi-Outputs Is All You Need For Deblur, 2022, arXiv 2208.13029"


@carded(
    Card(
        name="Multi-hypothesis head",
        summary="several answers a row, where the target is one of many right ones; for MinOverHypotheses",
        paper="Guzman-Rivera, Batra, Kohli, Multiple Choice Learning, NIPS 2012",
        kind="head",
        stations=("score",),
        targets=("values", "classes"),
        entry=39,
        tests=("tests/test_hypotheses.py::test_only_the_winner_has_a_gradient",),
        study="min_over_hypotheses",
    )
)
class MultiHypothesisHead(nn.Module):
    """H linear layers on one embedding: [B, H, num_outputs] values or logits.

    Use it with `MinOverHypotheses`. Not for several targets of one row: that is `MultiHead`.

    Args:
        width: of the embedding.
        num_outputs: numbers or classes of one hypothesis.
        num_hypotheses: H >= 1; they start apart, drawn one after the other.
        generator: draws the first weights.

    Raises:
        MarginsError: a number that is not positive.

    Example:
        >>> head = MultiHypothesisHead(4, 3, num_hypotheses=2, generator=torch.Generator().manual_seed(0))
        >>> head(torch.ones(5, 4)).shape
        torch.Size([5, 2, 3])

    Reduces to: a linear layer with an axis of one hypothesis, for H = 1.

    References:
        Guzman-Rivera et al., NIPS 2012.
    """

    def __init__(
        self, width: int, num_outputs: int, *, num_hypotheses: int = 4, generator: torch.Generator
    ) -> None:
        super().__init__()
        _check_positive(width=width, num_outputs=num_outputs, num_hypotheses=num_hypotheses)
        self.num_hypotheses = num_hypotheses
        self.layer = linear(width, num_hypotheses * num_outputs, generator=generator)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Hypotheses [B, H, num_outputs] of embeddings [B, width]."""
        return self.layer(embeddings).unflatten(1, (self.num_hypotheses, -1))


@carded(
    Card(
        name="Multi-hypothesis convolution",
        summary="several restored images a row, each as a change of the given one; deblurring and the like",
        paper=_PAPER,
        kind="head",
        stations=("score",),
        targets=("maps",),
        entry=39,
        tests=("tests/test_hypotheses.py::test_hypotheses_of_maps_are_changes_of_the_given_map",),
        study="min_over_hypotheses",
    )
)
class MultiHypothesisConv(nn.Module):
    """H last convolutions of one network of maps, each added to the given image: [B, H, C, height, width].

    Use it with `MinOverHypotheses` behind the features of a restoration network. Not where there is one right
    answer: H outputs cost H times the last layer and gain nothing.

    Args:
        width: channels of the features.
        channels: C of one hypothesis.
        num_hypotheses: H >= 1; they start apart, drawn one after the other.
        generator: draws the first weights.

    Raises:
        MarginsError: a number that is not positive; an image that does not fit.

    Example:
        >>> head = MultiHypothesisConv(4, 1, num_hypotheses=2, generator=torch.Generator().manual_seed(0))
        >>> head(torch.ones(5, 4, 8, 8), torch.ones(5, 1, 8, 8)).shape
        torch.Size([5, 2, 1, 8, 8])

    Reduces to: a last convolution with the way around it, with an axis of one hypothesis, for H = 1.

    References:
        Liu et al. 2022, arXiv 2208.13029.
    """

    def __init__(
        self, width: int, channels: int = 1, *, num_hypotheses: int = 4, generator: torch.Generator
    ) -> None:
        super().__init__()
        _check_positive(width=width, channels=channels, num_hypotheses=num_hypotheses)
        self.num_hypotheses, self.channels = num_hypotheses, channels
        self.layer = convolution(width, num_hypotheses * channels, kernel=3, step=1, generator=generator)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Hypotheses [B, H, C, height, width] of features [B, width, height, width'] and the given image."""
        wanted = (features.shape[0], self.channels, *features.shape[2:])
        if tuple(image.shape) != wanted:
            raise MarginsError("image", expected=f"{list(wanted)} floats", received=describe(image))
        return image.unsqueeze(1) + self.layer(features).unflatten(1, (self.num_hypotheses, self.channels))


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise MarginsError(name, expected="at least 1", received=str(number))
