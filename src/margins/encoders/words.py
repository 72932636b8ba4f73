"""Texts as sequences of words, each a hashed id and hashed character n-grams: no vocabulary to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from margins.encoders.hashing import hash_words, words_of
from margins.encoders.inputs import ragged_entries


@dataclass(frozen=True, eq=False)
class WordSequences:
    """Words of texts in order. Each distinct word is held once, with its id and its n-grams."""

    words: Tensor  # [E] int64, places among the distinct words
    offsets: Tensor  # [N + 1] int64: text i owns words[offsets[i]:offsets[i + 1]]
    ids: Tensor  # [U] int64, the hashed id of each distinct word
    ngrams: Tensor  # [G] int64, hashed ids of character n-grams
    ngram_offsets: Tensor  # [U + 1] int64: distinct word u owns ngrams[ngram_offsets[u]:ngram_offsets[u + 1]]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> WordSequences:
        """The texts of these rows, in this order, with the distinct words that they use."""
        entries, offsets = ragged_entries(self.offsets, rows)
        used, words = self.words[entries].unique(return_inverse=True)
        places, ngram_offsets = ragged_entries(self.ngram_offsets, used)
        return WordSequences(words, offsets, self.ids[used], self.ngrams[places], ngram_offsets)

    def to(self, device: torch.device | str) -> WordSequences:
        """The same texts on a device."""
        tensors = (self.words, self.offsets, self.ids, self.ngrams, self.ngram_offsets)
        return WordSequences(*(t.to(device, non_blocking=True) for t in tensors))

    def joined(self, other: WordSequences) -> WordSequences:
        """These texts and then the other ones; a word of both is held twice."""
        return WordSequences(
            torch.cat([self.words, other.words + len(self.ids)]),
            torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]]),
            torch.cat([self.ids, other.ids]),
            torch.cat([self.ngrams, other.ngrams]),
            torch.cat([self.ngram_offsets, other.ngram_offsets[1:] + self.ngram_offsets[-1]]),
        )


def word_sequences(
    columns: Sequence[Sequence[str]], *, buckets: int, chars: tuple[int, int], max_tokens: int
) -> WordSequences:
    """The words of each row's texts, column after column, at most `max_tokens` of them.

    Args:
        columns: texts of all rows, one sequence a column.
        buckets: number of ids, of words and of n-grams each.
        chars: shortest and longest character n-gram of a word with a space at both ends.
        max_tokens: words beyond it are left out.

    Example:
        >>> columns = [["new card", ""], ["", "the NEW one"]]
        >>> texts = word_sequences(columns, buckets=64, chars=(3, 5), max_tokens=2)
        >>> texts.words.tolist(), texts.offsets.tolist()
        ([0, 1, 2, 0], [0, 2, 4])
    """
    place_of: dict[str, int] = {}
    words: list[int] = []
    lengths: list[int] = []
    for row in zip(*(words_of(texts) for texts in columns), strict=True):
        own = [word for column in row for word in column][:max_tokens]
        words += [place_of.setdefault(word, len(place_of)) for word in own]
        lengths.append(len(own))
    ids, ngrams, sizes = hash_words(list(place_of), buckets=buckets, chars=chars)
    return WordSequences(
        torch.tensor(words, dtype=torch.int64),
        _offsets(np.array(lengths, np.int64)),
        torch.from_numpy(ids),
        torch.from_numpy(ngrams),
        _offsets(sizes),
    )


def _offsets(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
