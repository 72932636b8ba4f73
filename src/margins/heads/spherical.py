"""A head of any number of classes that is trained exactly at a cost which does not depend on that number."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from margins.cards import Card, carded
from margins.engine import SphericalLayer
from margins.heads.settings import HeadSettings


@runtime_checkable
class OwnsUpdate(Protocol):
    """A head whose weights no optimiser sees: it keeps their gradient, and takes its own steps.

    Backward passes through its `source` add to the gradient until the update, which clears it.
    """

    def zero_gradient(self) -> None:
        """Forgets the gradient."""

    def scale_gradient(self, factor: Tensor | float) -> None:
        """Multiplies the gradient."""

    def gradient_norm(self) -> Tensor:
        """Its norm, as if it were written out."""
        ...

    def update(self, share_of_rate: float) -> None:
        """Takes a step at this share of the head's own learning rate."""

    def requires_grad_(self, requires_grad: bool = True) -> object:
        """Whether it learns; a frozen head keeps no gradient, and its update does nothing."""
        ...


@carded(
    Card(
        name="Factored spherical output layer",
        summary="many classes trained exactly at a cost that does not grow with their number",
        paper="Vincent, de Brebisson, Bouthillier, Efficient Exact Gradient Update for Training Deep "
        "Networks with Very Large Sparse Targets, 2015, arXiv 1412.7091",
        kind="head",
        stations=("score", "update"),
        targets=("classes", "label sets"),
        entry=1,
        recipe={"objective": {"loss": "z_loss"}, "head": {"name": "spherical"}},
        tests=("tests/test_spherical_layer.py::test_two_hundred_steps_equal_those_of_the_dense_layer",),
    )
)
class SphericalHead(SphericalLayer):
    """Logits as an affine map of the embedding, for losses of the sums of scores and of their squares.

    Use it with many classes (from some ten thousand up, into the millions) and one of `ZLoss`,
    `SphericalSoftmax`, `TaylorSoftmax` and `SquaredError`; for other losses or few classes, a linear head.
    It learns by plain gradient descent at its own rate; everything before it may have any optimiser. Its cost
    a row is O(width^2).

        value = loss.on_source(head.source(embeddings), targets)
        value.backward()
        head.update(1.0)

    Args:
        width: of the embedding.
        num_classes: number of logits.
        learning_rate: of `update`, > 0. A loss averaged over a batch moves each class by its few rows' part
            of the mean, so good rates are well above those of small heads.
        weight_decay: of the weights, not the biases.
        balance_every: see `margins.engine.SphericalLayer`.
        generator: draws the first weights.

    Example:
        >>> from margins.losses import ZLoss
        >>> head = SphericalHead(4, 100_000, generator=torch.Generator().manual_seed(0))
        >>> x, labels = torch.ones(2, 4), torch.tensor([17, 99_999])
        >>> value = ZLoss().on_source(head.source(x), labels)
        >>> value.backward()
        >>> head.update(1.0)
        >>> bool(ZLoss().on_source(head.source(x), labels) < value)
        True
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        learning_rate: float = 1.0,
        weight_decay: float = 0.0,
        balance_every: int = 100,
        generator: torch.Generator,
    ) -> None:
        super().__init__(width, num_classes, balance_every=balance_every, generator=generator)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def update(self, share_of_rate: float) -> None:
        """One step of gradient descent at this share of the learning rate; the gradient is cleared."""
        self.step(self.learning_rate * share_of_rate, weight_decay=self.weight_decay)


class SphericalSettings(HeadSettings):
    """A spherical head; see `SphericalHead` for when to use it.

    Args:
        learning_rate: of the head alone; the recipe's schedule applies to it too.
        weight_decay: of the head's weights.
        balance_every: steps between two looks at how well conditioned its factors are.
    """

    name: Literal["spherical"] = "spherical"
    learning_rate: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    balance_every: int = Field(default=100, ge=1)

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> SphericalHead:
        """An untrained spherical head."""
        return SphericalHead(
            width, num_outputs, learning_rate=self.learning_rate, weight_decay=self.weight_decay,
            balance_every=self.balance_every, generator=generator,
        )  # fmt: skip
