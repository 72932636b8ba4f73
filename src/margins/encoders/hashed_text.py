"""Hashed n-grams of one or several columns of text: settings and preparation of `TextEncoder`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders.base import Encoder, EncoderSettings
from margins.encoders.hashing import HashedTexts, hash_texts
from margins.encoders.text import TextEncoder
from margins.encoders.text_columns import TextPreparation, columns_of_text, compared


@dataclass(frozen=True, eq=False)
class TextColumns:
    """Several texts a row, one of each column."""

    columns: tuple[HashedTexts, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.columns[0])

    def take(self, rows: Tensor) -> TextColumns:
        """The texts of these rows, in this order."""
        return TextColumns(tuple(texts.take(rows) for texts in self.columns))

    def to(self, device: torch.device | str) -> TextColumns:
        """The same texts on a device."""
        return TextColumns(tuple(texts.to(device) for texts in self.columns))


class TextColumnsEncoder(Encoder[TextColumns]):
    """A `TextEncoder` for each column, and the sum of their embeddings.

    Columns share nothing, so a word of the title counts apart from the same word of the body, and the sum
    keeps the width whatever the number of columns. Each column's n-grams are scaled to length one first: a
    long column does not drown a short one.

    Args:
        num_columns: at least 1; with 1 it reduces to `TextEncoder`.
        generator: draws the first weights and the n-grams left out.
        settings: of each `TextEncoder`.
    """

    def __init__(self, num_columns: int, *, generator: torch.Generator, **settings: Any) -> None:
        super().__init__()
        encoders = [TextEncoder(generator=generator, **settings) for _ in range(num_columns)]
        self.width = encoders[0].width
        self.encoders = nn.ModuleList(encoders)

    def fit(self, inputs: TextColumns) -> None:
        """Inverse document frequencies of each column."""
        for encoder, texts in zip(self.encoders, inputs.columns, strict=True):
            encoder.fit(texts)  # type: ignore[operator]

    def forward(self, inputs: TextColumns) -> Tensor:
        """Embeddings [B, width]."""
        embedded = [encoder(texts) for encoder, texts in zip(self.encoders, inputs.columns, strict=True)]
        return torch.stack(embedded).sum(0)


class HashedTextPreparation(TextPreparation):
    """Texts to hashed n-grams; nothing is fitted."""

    buckets: int
    word_pairs: bool
    chars: tuple[int, int]

    def inputs_of(self, columns: list[list[str]]) -> HashedTexts | TextColumns:
        """Hashed texts, of each column when there are several."""
        hashed = [
            hash_texts(texts, buckets=self.buckets, word_pairs=self.word_pairs, chars=self.chars)
            for texts in columns
        ]
        return hashed[0] if len(hashed) == 1 else TextColumns(tuple(hashed))


class HashedTextSettings(EncoderSettings):
    """Bags of hashed words, word pairs and character n-grams, for texts in any script.

    Use it as the first thing to try on text: it needs no pretrained model and trains in seconds. Word order
    beyond pairs is lost. Several columns are hashed apart and their embeddings summed; two columns of kind
    `text_pair` go through one encoder and are compared (`PairEncoder`, four times the width).

    Args:
        width: of the embedding.
        buckets: number of hashed ids.
        word_pairs: whether neighbouring words count as a feature too.
        chars: shortest and longest character n-gram.
        drop_ngrams: share of n-grams left out of each training text.
    """

    name: Literal["hashed_text"] = "hashed_text"
    width: int = Field(default=128, ge=1)
    buckets: int = Field(default=2**15, ge=1)
    word_pairs: bool = True
    chars: tuple[int, int] = (3, 5)
    drop_ngrams: float = Field(default=0.3, ge=0, lt=1)

    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> HashedTextPreparation:
        """The columns and how they are hashed."""
        columns, is_pair = columns_of_text(self.name, inputs)
        preparation = HashedTextPreparation(
            columns=columns,
            is_pair=is_pair,
            buckets=self.buckets,
            word_pairs=self.word_pairs,
            chars=self.chars,
        )
        preparation(frame.take(torch.zeros(0, dtype=torch.int64)))  # names what cannot be used before a run
        return preparation

    def restore(self, data: Mapping[str, Any]) -> HashedTextPreparation:
        """The preparation that `to_data` wrote."""
        return HashedTextPreparation.from_data(data)

    def build(self, preparation: Any, *, generator: torch.Generator) -> Encoder[Any]:
        """An untrained encoder for these columns."""
        settings: dict[str, Any] = {
            "buckets": preparation.buckets,
            "width": self.width,
            "drop_ngrams": self.drop_ngrams,
            "generator": generator,
        }
        if preparation.is_pair or len(preparation.columns) == 1:
            return compared(TextEncoder(**settings), is_pair=preparation.is_pair)
        return TextColumnsEncoder(len(preparation.columns), **settings)
