"""Class scores that depend on directions alone."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.errors import MarginsError
from margins.heads.settings import HeadSettings

_PAPER = "Pereira et al., Hyperspherical Embedding for Novel Class Classification, 2021, arXiv 2102.03243"


@carded(
    Card(
        name="Normalised-softmax head",
        summary="embeddings that are to tell classes apart which were not there in training, without pairs",
        paper=_PAPER,
        kind="head",
        stations=("score",),
        targets=("classes",),
        entry=33,
        recipe={"head": {"name": "cosine"}},
        tests=(
            "tests/test_prototypes.py::test_cosine_logits_are_bounded_and_do_not_see_lengths",
            "tests/test_prototypes.py::test_a_regular_simplex_reaches_the_probability_at_the_largest_temperature",
        ),
        study="cosine_novel_classes",
    )
)
class CosineHead(nn.Module):
    """The cosine of embedding and class vector over a temperature.

        logits_ij = cos(x_i, w_j) / temperature

    Use it for embeddings that are to be compared later, above all with rows of new classes
    (`PrototypeHead`), with many or rare classes (no class wins by the length of its vector), and with margins
    on cosines. Do not use it at temperature 1 or higher: logits then differ by 2 at most, and the loss cannot
    become small (`largest_temperature`); nor with SGD at the rate of a linear head: the gradient is divided
    by the temperature. An embedding of zeros scores 0 for every class.

    A margin m on the cosine of the own class (CosFace) is one of m / temperature on its score:
    `targets.margin(rows=torch.full((B,), m / temperature), on="positives")`.

    Args:
        width: of the embedding.
        num_classes: number of logits.
        temperature: positive; the start when it is learned. Papers name its inverse, the scale.
        learn_temperature: whether it is trained too, as its logarithm, so that it stays positive.
        generator: draws the first class vectors, uniform in direction.

    References:
        Pereira et al. 2021, arXiv 2102.03243; Wang et al., NormFace, 2017, arXiv 1704.06369; Wang et al.,
        CosFace, 2018, arXiv 1801.09414.

    Example:
        >>> head = CosineHead(2, 1, temperature=0.5, generator=torch.Generator().manual_seed(0))
        >>> with torch.no_grad():
        ...     _ = head.weight.copy_(torch.tensor([[0.0, 3.0]]))
        >>> head(torch.tensor([[0.0, 5.0], [1.0, 0.0]])).tolist()
        [[2.0], [0.0]]
    """

    log_temperature: Tensor

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        temperature: float = 0.05,
        learn_temperature: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise MarginsError("temperature", expected="a positive number", received=str(temperature))
        self.weight = nn.Parameter(torch.empty(num_classes, width))
        nn.init.normal_(self.weight, std=1 / math.sqrt(width), generator=generator)
        start = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(start)
        else:
            self.register_buffer("log_temperature", start)

    @property
    def temperature(self) -> Tensor:
        """What the cosines are divided by."""
        return self.log_temperature.exp()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits [B, C] of embeddings [B, width]."""
        unit = nn.functional.normalize(embeddings, dim=-1)
        return nn.functional.linear(unit, nn.functional.normalize(self.weight, dim=-1)) / self.temperature


def largest_temperature(num_classes: int, probability: float) -> float:
    r"""The highest temperature of a `CosineHead` at which it can be that sure of every row's own class.

    Use it to see that a temperature is low enough for the number of classes. It is a bound, not the best
    value; an embedding of fewer than C - 1 numbers needs a lower one still.

    $\frac1\tau = \frac{C - 1}{C} \log \frac{(C - 1) P}{1 - P}$: rows stand on their class vectors, and these
    form a regular simplex, with cosine -1 / (C - 1) between each two; no arrangement does better for all.

    Args:
        num_classes: C >= 2.
        probability: P in (1 / C, 1).

    Raises:
        MarginsError: an argument out of its range; at 1 / C and below any temperature will do.

    References:
        Wang et al., NormFace, 2017, arXiv 1704.06369, proposition 2 (the bound in another form).

    Example:
        >>> round(largest_temperature(1000, 0.9), 3)
        0.11
    """
    if num_classes < 2:
        raise MarginsError("num_classes", expected="at least 2", received=str(num_classes))
    if not 1 / num_classes < probability < 1:
        raise MarginsError(
            "probability", expected=f"a number in (1 / {num_classes}, 1)", received=str(probability)
        )
    odds = (num_classes - 1) * probability / (1 - probability)
    return num_classes / ((num_classes - 1) * math.log(odds))


class CosineSettings(HeadSettings):
    """A cosine head; see `CosineHead` for when to use it.

    Args:
        temperature: positive; the start when it is learned.
        learn_temperature: whether it is trained too.
    """

    name: Literal["cosine"] = "cosine"
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    learn_temperature: bool = False

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> CosineHead:
        """An untrained cosine head."""
        return CosineHead(
            width,
            num_outputs,
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
            generator=generator,
        )
