"""Heads that exist for training alone: the embedding before them is what is kept."""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import linear
from margins.errors import MarginsError
from margins.heads.cosine import CosineSettings
from margins.heads.linear import LinearSettings
from margins.heads.settings import HeadSettings

Kind = Literal["none", "linear", "mlp", "identity", "reweight"]
ClassHead = Annotated[LinearSettings | CosineSettings, Field(discriminator="name")]

_SHARE_SEEN = 1 / 20  # of the coordinates, by default, that the loss sees through a fixed reweighting


@carded(
    Card(
        name="Disposable head",
        summary="train on coarse or shifted labels, keep the embedding before the head for other ones",
        paper="Xue et al., Investigating the Benefits of Projection Head for Representation Learning, 2024, "
        "arXiv 2403.11391",
        kind="head",
        stations=("score",),
        targets=("classes", "matches"),
        entry=52,
        recipe={"head": {"name": "disposable"}},
        tests=(
            "tests/test_disposable.py::test_a_reweighting_by_one_is_no_head",
            "tests/test_disposable.py::test_the_gradient_of_a_coordinate_is_divided_by_the_power_of_its_place",
            "tests/test_disposable.py::test_the_head_changes_nothing_in_what_is_kept",
        ),
        study="disposable_head",
    )
)
class Disposable(nn.Module):
    r"""A head between embedding and loss that is thrown away after training.

    The layer next to the loss keeps what the training labels need and forgets the rest; the one before it
    forgets less. Use it when the embedding is to serve other labels than those of training: finer classes,
    another domain. Do not use it when the training task is the task: what comes out of the head is made for
    it. The gain is large with contrastive losses, small with cross-entropy.

    Kinds: "linear"; "mlp", linear, ReLU, linear; "identity", linear, symmetric ReLU
    $\max(x - b, 0) - \max(-x - b, 0)$ with b learned from 0, linear, all of it the identity at the start;
    "reweight", $g_i = h_i / \kappa^i$, i from 0, no parameters: the loss sees the first coordinates best;
    "none", the embedding itself, to compare with.

    Args:
        width: d, of the embedding.
        kind: see above.
        num_outputs: of "linear" and "mlp", whose last layer has this width; d when None.
        hidden: width of the middle layer of "mlp"; d when None.
        decay: kappa >= 1 of "reweight". When None, such that the loss sees `width` / 20 coordinates, but at
            least two (see `num_seen`): 1.01 at width 2048, 1.45 at width 64. It must grow as d shrinks.
        generator: draws the first weights.

    Raises:
        MarginsError: an unknown kind, an argument that the kind does not have, or one out of its range.

    References:
        Xue et al. 2024, arXiv 2403.11391 (why, and the fixed reweighting; its scripts have kappa 1.01 and
        1.05 at width 2048).

    Example:
        >>> head = Disposable(3, kind="reweight", decay=2.0, generator=torch.Generator())
        >>> head(torch.tensor([[8.0, 8.0, 8.0]])).tolist()
        [[8.0, 4.0, 2.0]]
        >>> head.representation(torch.tensor([[8.0, 8.0, 8.0]])).tolist()
        [[8.0, 8.0, 8.0]]
    """

    factors: Tensor

    def __init__(
        self,
        width: int,
        *,
        kind: Kind = "mlp",
        num_outputs: int | None = None,
        hidden: int | None = None,
        decay: float | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        _refuse_unused(kind, num_outputs=num_outputs, hidden=hidden, decay=decay)
        for name, size in (("width", width), ("num_outputs", num_outputs), ("hidden", hidden)):
            if size is not None and size < 1:
                raise MarginsError(name, expected="at least 1", received=str(size))
        self.kind: Kind = kind
        self.num_outputs = num_outputs or width
        if kind == "reweight":
            self.decay = _usual_decay(width) if decay is None else decay
            if not (self.decay >= 1 and math.isfinite(self.decay)):
                raise MarginsError("decay", expected="a number of at least 1", received=repr(decay))
            powers = self.decay ** -torch.arange(width, dtype=torch.float64)
            self.register_buffer("factors", powers.float(), persistent=False)
        self.layers = _layers(kind, width, hidden or width, self.num_outputs, generator)

    @property
    def num_seen(self) -> float:
        """How many coordinates the loss sees: of "reweight" the sum of its factors, near k / (k - 1)."""
        return float(self.factors.double().sum()) if self.kind == "reweight" else float(self.num_outputs)

    def forward(self, embeddings: Tensor) -> Tensor:
        """What the loss is given [B, num_outputs], of embeddings [B, width]."""
        if self.kind == "reweight":
            return embeddings * self.factors.to(embeddings.dtype)
        return self.layers(embeddings)

    def representation(self, embeddings: Tensor) -> Tensor:
        """What is kept [B, width]: the embeddings themselves, whatever the kind."""
        return embeddings


class TrainingOnly(nn.Module):
    """A disposable head that is there in training and gone in evaluation, as dropout is.

    Use it where embeddings are compared: the loss sees what the head makes of them, and all that is judged,
    saved and searched later is the embedding before it.

    Args:
        inner: the head.

    Example:
        >>> head = TrainingOnly(Disposable(4, kind="linear", generator=torch.Generator().manual_seed(0)))
        >>> bool((head(torch.ones(1, 4)) == 1).all()), bool((head.eval()(torch.ones(1, 4)) == 1).all())
        (False, True)
    """

    def __init__(self, inner: Disposable) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, embeddings: Tensor) -> Tensor:
        """In training what the loss compares; otherwise the embeddings."""
        return self.inner(embeddings) if self.training else self.inner.representation(embeddings)


class SymmetricReLU(nn.Module):
    """max(x - b, 0) - max(-x - b, 0), with b learned from 0, where it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        """The values, each nearer to 0 by b, or 0."""
        return torch.relu(values - self.threshold) - torch.relu(-values - self.threshold)


class DisposableSettings(HeadSettings):
    """A head for training alone, before which the embedding is taken; see `Disposable` for when to use it.

    Args:
        kind: of the inner part.
        num_outputs: of the inner part, for the kinds linear and mlp; the embedding's width when null.
        hidden: middle width of the kind mlp; the embedding's width when null.
        decay: of the kind reweight; by the width when null.
        then: the head of class scores behind it. For the task matches null: embeddings are compared behind
            the inner part in training, and before it afterwards.
    """

    name: Literal["disposable"] = "disposable"
    kind: Kind = "mlp"
    num_outputs: int | None = Field(default=None, ge=1)
    hidden: int | None = Field(default=None, ge=1)
    decay: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    then: ClassHead | None = LinearSettings()

    def build(self, width: int, num_outputs: int, *, generator: torch.Generator) -> nn.Module:
        """An untrained inner part with its head of classes, or by itself."""
        inner = Disposable(
            width, kind=self.kind, num_outputs=self.num_outputs, hidden=self.hidden, decay=self.decay,
            generator=generator,
        )  # fmt: skip
        if self.then is None:
            return TrainingOnly(inner)
        return nn.Sequential(inner, self.then.build(inner.num_outputs, num_outputs, generator=generator))


def _usual_decay(width: int) -> float:
    return 1 / (1 - 1 / max(2.0, width * _SHARE_SEEN))


def _refuse_unused(kind: str, **given: float | None) -> None:
    used = {"linear": ("num_outputs",), "mlp": ("num_outputs", "hidden"), "reweight": ("decay",)}
    if kind not in get_args(Kind):
        raise MarginsError("kind", expected=f"one of {get_args(Kind)}", received=repr(kind))
    for name, value in given.items():
        if value is not None and name not in used.get(kind, ()):
            raise MarginsError(
                name, expected=f"None with the kind {kind}", received=repr(value),
                fix=f"{name} is of the kind {' and '.join(k for k, names in used.items() if name in names)}",
            )  # fmt: skip


def _layers(
    kind: Kind, width: int, hidden: int, num_outputs: int, generator: torch.Generator
) -> nn.Sequential:
    if kind == "linear":
        return nn.Sequential(linear(width, num_outputs, generator=generator))
    if kind == "mlp":
        return nn.Sequential(
            linear(width, hidden, generator=generator), nn.ReLU(),
            linear(hidden, num_outputs, generator=generator),
        )  # fmt: skip
    if kind == "identity":
        return nn.Sequential(_identity(width), SymmetricReLU(), _identity(width))
    return nn.Sequential()


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer
