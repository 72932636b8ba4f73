"""Pairs of texts that are nearly the same: character trigrams with a Jaccard similarity of 0.9 or more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import polars as pl

Ints = npt.NDArray[np.int64]
NEAR = 0.9
LONGEST = 2000  # characters of a text that are compared
_GRAM = 3
_CANDIDATES = 2_000_000  # pairs looked at at once


class NearTexts:
    """Texts as sets of trigrams, to be searched for pairs that are nearly the same.

    Exact, by prefixes: two sets that share nine tenths share one of their rarest tenth (and one more), so
    only texts that have a rare trigram in common are compared. Of long texts the first 2000 characters
    count.

    Args:
        texts: [N] normalised texts.

    Example:
        >>> import polars as pl
        >>> card = "where is the new card that I ordered"
        >>> texts = NearTexts(pl.Series([card, card + "?", "no"]))
        >>> texts.pairs(np.array([0]), np.array([1, 2]))
        (array([0]), array([1]))
    """

    def __init__(self, texts: pl.Series) -> None:
        self._sets = _Sets(*_gram_sets(texts))

    def pairs(self, first: Ints, second: Ints) -> tuple[Ints, Ints]:
        """Pairs (a row of `first`, a row of `second`) of a Jaccard similarity of at least 0.9."""
        sets = self._sets
        left, right = sets.prefixes(first), sets.prefixes(second)
        width = int(sets.sizes.max(initial=0)) + 2
        order = np.lexsort((sets.sizes[left.owner], left.gram))
        left = _Prefixes(*(part[order] for part in left))
        keys = left.gram * width + sets.sizes[left.owner]
        sizes = sets.sizes[right.owner]
        # A set can only be near one of about its size.
        smallest = np.ceil(NEAR * sizes - 1e-9).astype(np.int64)
        largest = np.minimum(np.floor(sizes / NEAR + 1e-9).astype(np.int64), width - 1)
        starts = np.searchsorted(keys, right.gram * width + smallest, side="left")
        counts = np.searchsorted(keys, right.gram * width + largest, side="right") - starts
        found: list[Ints] = []
        for span in _spans_of_about(counts, _CANDIDATES):
            places = _ranges(starts[span], counts[span])
            mine = np.repeat(np.arange(span.start, span.stop), counts[span])
            may = sets.may_be_near(left, places, right, mine)
            found.append(np.unique(left.owner[places[may]] * len(sets.sizes) + right.owner[mine[may]]))
        pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
        a, b = np.divmod(pairs, len(sets.sizes)) if len(pairs) else (pairs, pairs)
        is_near = sets.are_near(a, b)
        return a[is_near], b[is_near]


class _Prefixes(NamedTuple):
    """The rarest trigrams of some sets: the set, the trigram, and its place in the set."""

    owner: Ints
    gram: Ints
    place: Ints


class _Sets:
    """Sets of numbered trigrams as compressed rows, each set from its rarest trigram on."""

    def __init__(self, offsets: Ints, grams: Ints) -> None:
        self.sizes = np.diff(offsets)
        self.num_grams = int(grams.max(initial=0)) + 1
        rarity = np.argsort(np.argsort(np.bincount(grams, minlength=self.num_grams), kind="stable"))
        owner = np.repeat(np.arange(len(self.sizes)), self.sizes)
        order = np.lexsort((rarity[grams], owner))
        self.offsets, self.grams = offsets, rarity[grams][order]
        self.keys = owner * self.num_grams + self.grams  # ascending

    def prefixes(self, sets: Ints) -> _Prefixes:
        """The rarest trigrams of these sets: one of them is shared if two sets are near."""
        sizes = self.sizes[sets]
        lengths = sizes - np.ceil(NEAR * sizes - 1e-9).astype(np.int64) + (sizes > 0)
        places = _ranges(self.offsets[sets], lengths)
        owner = np.repeat(sets, lengths)
        return _Prefixes(owner, self.grams[places], places - self.offsets[owner])

    def may_be_near(self, a: _Prefixes, i: Ints, b: _Prefixes, j: Ints) -> npt.NDArray[np.bool_]:
        """Whether sets whose first shared trigrams are these leave room for enough others after them."""
        size_a, size_b = self.sizes[a.owner[i]], self.sizes[b.owner[j]]
        most_shared = np.minimum(size_a - a.place[i], size_b - b.place[j])
        return most_shared * (1 + NEAR) >= NEAR * (size_a + size_b) - 1e-9

    def are_near(self, a: Ints, b: Ints) -> npt.NDArray[np.bool_]:
        """Whether each pair of sets has a Jaccard similarity of at least 0.9."""
        sizes = self.sizes[a]
        grams = self.grams[_ranges(self.offsets[a], sizes)]
        keys = np.repeat(b, sizes) * self.num_grams + grams
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        hits = np.concatenate([[0], np.cumsum(self.keys[places] == keys)])
        ends = np.cumsum(sizes)
        shared = hits[ends] - hits[ends - sizes]
        return shared >= NEAR * (sizes + self.sizes[b] - shared) - 1e-9


def _spans_of_about(counts: Ints, size: int) -> Iterator[slice]:
    """Cuts a list so that the counts of each piece sum to about `size`."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + size, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


def _gram_sets(texts: pl.Series) -> tuple[Ints, Ints]:
    """The different trigrams of each text, numbered, as compressed rows; a text is framed by spaces."""
    lengths = np.minimum(texts.str.len_chars().to_numpy().astype(np.int64), LONGEST)
    joined = (" " + texts.str.slice(0, LONGEST) + " ").str.join("").item() if len(texts) else ""
    codes = np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    # Code points have 21 bits, so three fill 63.
    numbers = codes[:-2] << 42 | codes[1:-1] << 21 | codes[2:] if len(codes) > 2 else codes[:0]
    starts = np.cumsum(lengths + 2) - (lengths + 2)
    owner = np.repeat(np.arange(len(lengths)), lengths)  # a framed text of n signs has n trigrams
    grams = np.unique(numbers[_ranges(starts, lengths)], return_inverse=True)[1]
    num = int(grams.max(initial=0)) + 1
    keys = np.unique(owner * num + grams)
    sizes = np.bincount(keys // num, minlength=len(lengths))
    return np.concatenate([[0], np.cumsum(sizes)]), keys % num


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """Places start, start + 1, ... of each range, one range after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
