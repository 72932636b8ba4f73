"""Hard negative texts: the same text with one decisive word changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError

NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
"""The number words of the published benchmark."""


@dataclass(frozen=True)
class Slot:
    """Where a text has a word that can be changed.

    Args:
        word: number of the word in its group.
        start: first character of it.
        stop: first character after it.
    """

    word: int
    start: int
    stop: int


class WordGroup:
    """Words of which one may stand for another: numbers, sides, colours.

    Words are found whole and in any case; a replacement begins with a capital where the word did.

    Args:
        words: at least two, all different.

    Example:
        >>> sides = WordGroup(["left", "right"])
        >>> sides.replaced("Left of the house", sides.slot("Left of the house"), 1)
        'Right of the house'
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        lowered = [word.lower() for word in self.words]
        if len(set(lowered)) < max(len(lowered), 2) or not all(word.strip() for word in lowered):
            raise MarginsError("words", expected="at least two different words", received=str(self.words))
        self._number = {word: number for number, word in enumerate(lowered)}
        # The longest first: "twenty one" before "twenty".
        choice = "|".join(map(re.escape, sorted(lowered, key=len, reverse=True)))
        self._pattern = re.compile(rf"(?<!\w)(?:{choice})(?!\w)", re.IGNORECASE)

    def slot(self, text: str) -> Slot | None:
        """The place of the word; None when the text has none of the group, or more than one."""
        found = list(self._pattern.finditer(text))
        if len(found) != 1:
            return None
        return Slot(self._number[found[0].group().lower()], found[0].start(), found[0].end())

    def replaced(self, text: str, slot: Slot, word: int) -> str:
        """The text with another word of the group in that place."""
        fresh = self.words[word]
        if text[slot.start].isupper():
            fresh = fresh[0].upper() + fresh[1:]
        return text[: slot.start] + fresh + text[slot.stop :]


@dataclass(frozen=True, eq=False)
class SwappedTexts:
    """Counterfactual texts.

    Args:
        texts: one for each text given; the same one where nothing could be changed.
        swapped: [B] where a word was changed.
    """

    texts: list[str]
    swapped: Bool[Tensor, "B"]


@carded(
    Card(
        name="Token-swap negatives",
        summary="texts whose meaning hangs on a word of a small group: negatives that differ by it alone",
        paper="Paiss et al., Teaching CLIP to Count to Ten, 2023, arXiv 2302.12066",
        kind="negatives",
        stations=("gather candidates",),
        targets=("pairs",),
        entry=38,
        tests=(
            "tests/test_counterfactual.py::test_a_swap_never_gives_the_word_that_was_there",
            "tests/test_counterfactual.py::test_texts_without_exactly_one_word_of_a_group_are_left_out",
            "tests/test_counterfactual.py::test_every_other_word_is_as_likely",
        ),
        study="counting",
    )
)
class TokenSwapNegatives:
    """Replaces the one word of a group that a text holds by another of it, all others as likely.

    Use it to make counterfactual captions for `losses.CounterfactualPair`. A text with no word of any group,
    or with several of each it has, is left out: which of them matters is not known. The words must be true of
    the anchors: for numbers, keep a caption only when a detector finds as many objects, and thin out those
    that are frequent, or the model learns how often they are said.

    Args:
        groups: of words that may stand for each other; no word in two groups.

    Raises:
        MarginsError: a group of fewer than two words, or a word twice.

    Example:
        >>> swap = TokenSwapNegatives([["two", "three"], ["left", "right"]])
        >>> found = swap(["Two dogs", "a dog", "two of three dogs"], generator=torch.Generator())
        >>> found.texts, found.swapped.tolist()
        (['Three dogs', 'a dog', 'two of three dogs'], [True, False, False])

    References:
        Paiss et al. 2023, arXiv 2302.12066.
    """

    def __init__(self, groups: Sequence[Sequence[str]] = (NUMBERS,)) -> None:
        self.groups = tuple(WordGroup(words) for words in groups)
        words = [word.lower() for group in self.groups for word in group.words]
        if not words or len(set(words)) < len(words):
            raise MarginsError(
                "groups", expected="at least one group, and no word in two", received=str(list(groups))
            )

    def __call__(self, texts: Sequence[str], *, generator: torch.Generator) -> SwappedTexts:
        """A counterfactual of every text that has one.

        Args:
            texts: [B].
            generator: draws the words, and the group where a text has a word of several.
        """
        changed = [self._changed(text, generator) for text in texts]
        swapped = torch.tensor([new is not None for new in changed], dtype=torch.bool)
        return SwappedTexts(
            [old if new is None else new for old, new in zip(texts, changed, strict=True)], swapped
        )

    def _changed(self, text: str, generator: torch.Generator) -> str | None:
        found = [(group, slot) for group in self.groups if (slot := group.slot(text)) is not None]
        if not found:
            return None
        group, slot = found[_drawn(len(found), generator)]
        step = 1 + _drawn(len(group.words) - 1, generator)
        return group.replaced(text, slot, (slot.word + step) % len(group.words))


def _drawn(num: int, generator: torch.Generator) -> int:
    return int(torch.randint(num, (), generator=generator)) if num > 1 else 0
