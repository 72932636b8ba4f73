"""Words, word pairs and character n-grams of texts as hashed ids, without a fitted vocabulary.

The hash is arithmetic on code points, so it is the same in every process and on every machine (Python's own
`hash` of a string is salted anew in each process). Everything runs on one array of code points for many
texts: there is no Python loop over characters or n-grams.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from margins.encoders.inputs import ragged_entries
from margins.errors import MarginsError

Codes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it is zero modulo 2^64
_SPACE = np.uint64(ord(" "))
_PART_CHARS = 50_000  # parts that fit in the cache hash four times faster than large ones
# Not a small multiple of the base, or a family would look like another first character.
_FAMILY_STEP = 0xD6E8FEB86659FD93
# Families hash apart: the word "ab" is not the n-gram "ab". N-grams of length k take _CHARS + k.
_WORD, _PAIR, _CHARS = 1, 2, 3


@dataclass(frozen=True)
class HashedTexts:
    """The n-grams of texts: row i owns `ids[offsets[i]:offsets[i + 1]]`, each id once, with its count."""

    ids: Tensor  # [E] int64 in [0, buckets)
    counts: Tensor  # [E] float32
    offsets: Tensor  # [N + 1] int64

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> HashedTexts:
        """The texts of these rows, in this order."""
        entries, offsets = ragged_entries(self.offsets, rows)
        return HashedTexts(self.ids[entries], self.counts[entries], offsets)

    def to(self, device: torch.device | str) -> HashedTexts:
        """The same texts on a device."""
        return HashedTexts(*(t.to(device, non_blocking=True) for t in (self.ids, self.counts, self.offsets)))

    def joined(self, other: HashedTexts) -> HashedTexts:
        """These texts and then the other ones."""
        offsets = torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]])
        return HashedTexts(torch.cat([self.ids, other.ids]), torch.cat([self.counts, other.counts]), offsets)


def hash_texts(
    texts: Sequence[str], *, buckets: int = 2**15, word_pairs: bool = True, chars: tuple[int, int] = (3, 5)
) -> HashedTexts:
    """Hashes lower-cased words, pairs of neighbouring words, and character n-grams into `buckets` ids.

    Args:
        texts: the texts, any script; one without a letter or digit gives a row without features.
        buckets: number of ids; n-grams that collide share one.
        word_pairs: whether neighbouring words count as a feature too.
        chars: shortest and longest character n-gram; a space stands at both ends of each text.

    Returns:
        one row of distinct ids with counts a text.

    Example:
        >>> rows = hash_texts(["Card lost", "card LOST", ""])
        >>> bool((rows.take(torch.tensor([0])).ids == rows.take(torch.tensor([1])).ids).all())
        True
        >>> len(rows.take(torch.tensor([2])).ids)
        0
    """
    if buckets < 1 or not 1 <= chars[0] <= chars[1]:
        raise MarginsError(
            "buckets, chars",
            expected="buckets >= 1 and 1 <= shortest <= longest",
            received=f"{buckets}, {chars}",
        )
    parts = [_hashed(part, buckets, word_pairs, chars) for part in _parts(texts)]
    sizes = np.concatenate([size for _, _, size in parts])
    return HashedTexts(
        torch.from_numpy(np.concatenate([ids for ids, _, _ in parts])),
        torch.from_numpy(np.concatenate([counts for _, counts, _ in parts]).astype(np.float32)),
        torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)),
    )


def words_of(texts: Sequence[str]) -> Iterator[list[str]]:
    """The lower-cased words of each text: runs of letters, digits and combining marks.

    Example:
        >>> list(words_of(["The card, LOST!", "?"]))
        [['the', 'card', 'lost'], []]
    """
    table = _LettersAndDigits()
    return (unicodedata.normalize("NFKC", text).lower().translate(table).split() for text in texts)


def hash_words(words: Sequence[str], *, buckets: int, chars: tuple[int, int]) -> tuple[Ints, Ints, Ints]:
    """Hashes single words, as `words_of` gives them, and their character n-grams.

    Args:
        words: distinct or not, none empty.
        buckets: number of ids, of words and of n-grams each.
        chars: shortest and longest n-gram; a space stands at both ends of each word.

    Returns:
        the id of each word [U]; the ids of n-grams [G], word after word; how many of them each word has [U].

    Example:
        >>> ids, ngrams, sizes = hash_words(["ab", "abc"], buckets=100, chars=(3, 3))
        >>> len(ids), len(ngrams), sizes.tolist()
        (2, 5, [2, 3])
    """
    codes, word_of = _spaced_code_points([[word] for word in words])
    ids = _word_features(codes, word_of, word_pairs=False)[0][0]
    hashed = [_char_features(codes, word_of, length) for length in range(chars[0], chars[1] + 1)]
    owners = np.concatenate([o for _, o in hashed])
    order = np.argsort(owners, kind="stable")
    ngrams = np.concatenate([h for h, _ in hashed])[order]
    size = np.uint64(buckets)
    return (
        (ids % size).astype(np.int64),
        (ngrams % size).astype(np.int64),
        np.bincount(owners, minlength=len(words)),
    )


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts whose n-grams fit in memory at once; at least one run, empty or not."""
    start = length = 0
    for place, text in enumerate(texts):
        length += len(text)
        if length > _PART_CHARS:
            yield texts[start : place + 1]
            start, length = place + 1, 0
    if start < len(texts) or not texts:
        yield texts[start:]


def _hashed(
    texts: Sequence[str], buckets: int, word_pairs: bool, chars: tuple[int, int]
) -> tuple[Ints, Ints, Ints]:
    """Distinct ids and their counts, text after text, and how many ids each text has."""
    codes, text_of = _spaced_code_points(words_of(texts))
    hashed = _word_features(codes, text_of, word_pairs=word_pairs)
    hashed += [_char_features(codes, text_of, length) for length in range(chars[0], chars[1] + 1)]
    values = np.concatenate([h for h, _ in hashed]) % np.uint64(buckets)
    owners = np.concatenate([o for _, o in hashed])
    keys, counts = np.unique(owners * buckets + values.astype(np.int64), return_counts=True)
    return keys % buckets, counts, np.bincount(keys // buckets, minlength=len(texts))


class _LettersAndDigits(dict[int, str | int]):
    """For `str.translate`: letters, digits and combining marks stay, all else is a space; learned as met."""

    def __missing__(self, code: int) -> str | int:
        kept: str | int = code if unicodedata.category(chr(code))[0] in "LNM" else " "
        self[code] = kept
        return kept


def _spaced_code_points(words: Iterable[Sequence[str]]) -> tuple[Codes, Ints]:
    """All texts as one array: single spaces between words and at both ends; and whose each code is."""
    plain = [f" {' '.join(w)} " if w else "" for w in words]
    codes = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    return codes, np.repeat(np.arange(len(plain)), [len(p) for p in plain])


def _word_features(codes: Codes, text_of: Ints, *, word_pairs: bool) -> list[tuple[Codes, Ints]]:
    inside = codes != _SPACE
    starts = np.flatnonzero(inside & np.concatenate([[True], ~inside[:-1]])[: len(inside)])
    if not len(starts):
        return [(np.zeros(0, np.uint64), np.zeros(0, np.int64))]
    begins = np.zeros(len(codes), np.int64)
    begins[starts] = starts
    place = np.arange(len(codes)) - np.maximum.accumulate(begins)
    terms = np.where(inside, (codes + np.uint64(1)) * _powers(int(place.max()) + 1)[place], np.uint64(0))
    words, owners = np.add.reduceat(terms, starts), text_of[starts]
    features = [(_scrambled(words, _WORD), owners)]
    if word_pairs:
        together = owners[:-1] == owners[1:]
        pairs = _scrambled(words[:-1], _WORD) * _BASE + words[1:]
        features.append((_scrambled(pairs[together], _PAIR), owners[:-1][together]))
    return features


def _char_features(codes: Codes, text_of: Ints, length: int) -> tuple[Codes, Ints]:
    num = max(len(codes) - length + 1, 0)
    total = np.zeros(num, np.uint64)
    for k, power in enumerate(_powers(length)):
        total += (codes[k : k + num] + np.uint64(1)) * power
    one_text = text_of[:num] == text_of[length - 1 : length - 1 + num]
    return _scrambled(total[one_text], _CHARS + length), text_of[:num][one_text]


def _powers(num: int) -> Codes:
    return np.cumprod(np.full(num, _BASE, np.uint64))


def _scrambled(values: Codes, family: int) -> Codes:
    """Spreads every bit over all others, so that the low bits, which choose the bucket, are fair."""
    mixed = values + np.uint64(family * _FAMILY_STEP % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
