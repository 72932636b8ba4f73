"""A small transformer over the words of a text, trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders.attention import TransformerBlocks
from margins.encoders.base import Dropout, Encoder, EncoderSettings
from margins.encoders.cells import texts_of
from margins.encoders.hashing import words_of
from margins.encoders.pooling import PoolingName, new_pooling
from margins.encoders.text_columns import TextPreparation, columns_of_text, compared
from margins.encoders.words import WordSequences, word_sequences
from margins.errors import MarginsError

START = "<start>"
"""What the token before the words is called; no word has such signs."""


class TransformerTextPreparation(TextPreparation):
    """Texts to words with hashed ids and n-grams; nothing is fitted."""

    buckets: int
    chars: tuple[int, int]
    max_tokens: int

    def inputs_of(self, columns: list[list[str]]) -> WordSequences:
        """The words of each row, column after column."""
        return word_sequences(columns, buckets=self.buckets, chars=self.chars, max_tokens=self.max_tokens)

    def token_names(self, frame: Frame) -> list[list[str]]:
        """The start token and the words of each row, as they are read."""
        rows = zip(*(words_of(texts_of(frame, name)) for name in self.columns), strict=True)
        return [[START, *[word for words in row for word in words][: self.max_tokens]] for row in rows]


class TransformerTextSettings(EncoderSettings):
    """A small transformer without a fitted vocabulary, for texts with spaces between words.

    Use it where word order matters and no pretrained model fits; it needs more rows than `hashed_text`, and a
    script without spaces gives it whole sentences as words. Several columns are read one after another; two
    columns of kind `text_pair` go through one encoder and are compared (`PairEncoder`, four times the width).

    Args:
        width: of the states and of the embedding; a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        max_tokens: words beyond it are left out.
        dropout: share of the values left out of what each step adds.
        pooling: how the states of the words become one vector; `cls` is a start token before them.
        buckets: number of hashed ids, of words and of n-grams each.
        chars: shortest and longest character n-gram of a word.
    """

    name: Literal["transformer_text"] = "transformer_text"
    width: int = Field(default=128, ge=1)
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    pooling: PoolingName = "mean"
    buckets: int = Field(default=2**14, ge=1)
    chars: tuple[int, int] = (3, 5)

    @property
    def has_tokens(self) -> bool:
        """Of texts that are not compared with each other."""
        return True

    def prepare(self, frame: Frame, inputs: Mapping[str, InputKind]) -> TransformerTextPreparation:
        """The columns and how they are hashed."""
        columns, is_pair = columns_of_text(self.name, inputs)
        if not 1 <= self.chars[0] <= self.chars[1]:
            raise MarginsError("chars", expected="1 <= shortest <= longest", received=str(self.chars))
        preparation = TransformerTextPreparation(
            columns=columns,
            is_pair=is_pair,
            buckets=self.buckets,
            chars=self.chars,
            max_tokens=self.max_tokens,
        )
        preparation(frame.take(torch.zeros(0, dtype=torch.int64)))  # names what cannot be used before a run
        return preparation

    def restore(self, data: Mapping[str, Any]) -> TransformerTextPreparation:
        """The preparation that `to_data` wrote."""
        return TransformerTextPreparation.from_data(data)

    def build(self, preparation: Any, *, generator: torch.Generator) -> Encoder[Any]:
        """An untrained encoder for these columns."""
        tower = TransformerTextEncoder(
            buckets=preparation.buckets,
            max_tokens=preparation.max_tokens,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            dropout=self.dropout,
            pooling=self.pooling,
            generator=generator,
        )
        return compared(tower, is_pair=preparation.is_pair)


class TransformerTextEncoder(Encoder[WordSequences]):
    """Words, each an embedding of its own plus the mean of those of its n-grams, through a transformer.

    A learned start token stands before the words, so a text without any has something to attend to. It has
    nothing to fit.

    Args:
        buckets: number of hashed ids; the same as in the inputs.
        max_tokens: most words of a text.
        width: of the states and of the embedding; a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        dropout: share of the values left out of what each step adds.
        pooling: how the states become one vector.
        generator: draws the first weights and the dropout.

    Example:
        >>> texts = word_sequences([["lost card", ""]], buckets=64, chars=(3, 5), max_tokens=8)
        >>> encoder = TransformerTextEncoder(buckets=64, max_tokens=8, width=8,
        ...                                  generator=torch.Generator().manual_seed(0))
        >>> encoder(texts).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        *,
        buckets: int,
        max_tokens: int,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        pooling: PoolingName = "mean",
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Parameter(torch.empty(buckets, width))
        self.ngrams = nn.Parameter(torch.empty(buckets, width))
        self.places = nn.Parameter(torch.empty(max_tokens + 1, width))
        for table in (self.words, self.ngrams, self.places):
            nn.init.normal_(table, std=1 / math.sqrt(width), generator=generator)
        self.dropout = Dropout(dropout, generator=generator)
        self.blocks = TransformerBlocks(
            width=width, depth=depth, heads=heads, dropout=dropout, generator=generator
        )
        self.pooling = new_pooling(pooling, width=width, num_layers=depth + 1)

    def fit(self, inputs: WordSequences) -> None:
        """Nothing: words are hashed, and each row is treated by itself."""

    def forward(self, inputs: WordSequences) -> Tensor:
        """Embeddings [B, width]."""
        if not len(inputs):
            return self.places.new_zeros(0, self.width)
        return self.pooling(*self._layers(inputs))

    def tokens(self, inputs: WordSequences) -> tuple[Tensor, Tensor]:
        """States [B, 1 + longest, width] of the start token and the words, and which of them are real."""
        if not len(inputs):
            return self.places.new_zeros(0, 1, self.width), self.places.new_zeros(0, 1, dtype=torch.bool)
        layers, mask = self._layers(inputs)
        return layers[-1], mask

    def _layers(self, inputs: WordSequences) -> tuple[list[Tensor], Tensor]:
        states, mask = self._padded(inputs)
        return self.blocks(self.dropout(states), mask), mask

    def _padded(self, inputs: WordSequences) -> tuple[Tensor, Tensor]:
        """States [B, 1 + longest, width] with the start token first, and which of them are real."""
        lengths = inputs.offsets.diff()
        num_places = int(lengths.max()) + 1
        place = torch.arange(num_places, device=lengths.device)
        mask = place <= lengths[:, None]
        owner = torch.repeat_interleave(
            torch.arange(len(inputs), device=lengths.device), lengths, output_size=len(inputs.words)
        )
        own_place = torch.arange(len(owner), device=owner.device) - inputs.offsets[owner] + 1
        states = self.places[:num_places].repeat(len(inputs), 1, 1)
        states = states.index_put((owner, own_place), self._embedded(inputs)[inputs.words], accumulate=True)
        return states, mask

    def _embedded(self, inputs: WordSequences) -> Tensor:
        """One vector for each distinct word."""
        ngrams = nn.functional.embedding_bag(
            inputs.ngrams, self.ngrams, inputs.ngram_offsets[:-1], mode="mean"
        )
        return self.words[inputs.ids] + ngrams
