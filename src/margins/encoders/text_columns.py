"""What the encoders of text share: columns of text, or two that are compared with each other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders.base import Encoder, StoredPreparation
from margins.encoders.cells import check_kinds, texts_of
from margins.encoders.inputs import Pairs
from margins.errors import MarginsError


class TextPreparation(StoredPreparation):
    """Columns of text, each cell read as text, an empty one where it is missing."""

    columns: list[str]
    is_pair: bool

    @abstractmethod
    def inputs_of(self, columns: list[list[str]]) -> Any:
        """The inputs of rows whose texts are these, one list a column."""

    def __call__(self, frame: Frame) -> Any:
        """The inputs of the rows; `Pairs` for two columns that are compared."""
        texts = [texts_of(frame, name) for name in self.columns]
        if self.is_pair:
            return Pairs(self.inputs_of(texts[:1]), self.inputs_of(texts[1:]))
        return self.inputs_of(texts)


class PairEncoder(Encoder[Pairs]):
    """One encoder for both texts u and v of a pair, and what a classifier needs to compare them.

        [u, v, |u - v|, u * v]

    Use it to classify pairs (paraphrase, entailment); for retrieval take `both` and score u against v.

    Args:
        tower: encodes each text.
    """

    def __init__(self, tower: Encoder[Any]) -> None:
        super().__init__()
        self.tower = tower
        self.width = 4 * tower.width

    def fit(self, inputs: Pairs) -> None:
        """Fits the tower on the texts of both sides."""
        self.tower.fit(inputs.first.joined(inputs.second))

    def both(self, inputs: Pairs) -> tuple[Tensor, Tensor]:
        """The embeddings of the first and of the second texts, each [B, width / 4]."""
        return self.tower(inputs.first), self.tower(inputs.second)

    def forward(self, inputs: Pairs) -> Tensor:
        """Embeddings [B, width] of pairs."""
        u, v = self.both(inputs)
        return torch.cat([u, v, (u - v).abs(), u * v], 1)


def columns_of_text(name: str, inputs: Mapping[str, InputKind]) -> tuple[list[str], bool]:
    """The columns, in order, and whether they are the two sides of a pair.

    Raises:
        MarginsError: kinds other than text, a single `text_pair` column or more than two, or both kinds.
    """
    check_kinds(name, inputs, "text", "text_pair")
    sides = [column for column, kind in inputs.items() if kind == "text_pair"]
    if sides and (len(sides) != 2 or len(inputs) != 2):
        raise MarginsError(
            "inputs",
            expected="two columns of kind text_pair, or columns of kind text alone",
            received=", ".join(f"{column} ({kind})" for column, kind in inputs.items()),
            fix="`combined` reads a pair and other texts side by side",
        )
    return list(inputs), bool(sides)


def compared(tower: Encoder[Any], *, is_pair: bool) -> Encoder[Any]:
    """The encoder itself, or for pairs the one that compares what it makes of both texts."""
    return PairEncoder(tower) if is_pair else tower
