"""A benchmark of small words: which of a group, put into a caption, matches the image best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.engine.score_rules import unit
from margins.engine.sources import at_least_float32
from margins.errors import MarginsError, describe
from margins.mining.token_swap import NUMBERS, WordGroup


@dataclass(frozen=True, kw_only=True)
class SubstitutionScores:
    """How often the true word matches best.

    Args:
        accuracy: share of items whose own word scores highest; of equal scores each counts for its part, so
            that a model to which all words are one has 1 / words.
        mean_absolute_deviation: of the word that scores highest from the true one, in places of the group (in
            numbers from two to ten, in numbers).
        accuracy_of: the share by true word; words without an item are left out.
        num_items: that were judged.
    """

    accuracy: float
    mean_absolute_deviation: float
    accuracy_of: dict[str, float]
    num_items: int


@carded(
    Card(
        name="CountBench protocol",
        summary="whether a model that matches texts hears a small word: numbers, sides, colours",
        paper="Paiss et al., Teaching CLIP to Count to Ten, 2023, arXiv 2302.12066",
        kind="protocol",
        stations=("after training",),
        targets=("pairs",),
        entry=38,
        tests=(
            "tests/test_counterfactual.py::test_a_model_that_hears_every_word_scores_one",
            "tests/test_counterfactual.py::test_a_model_to_which_all_words_are_one_scores_by_chance",
        ),
        study="counting",
    )
)
@torch.no_grad()
def substitution_benchmark(
    anchors: Float[Tensor, "N d"],
    captions: Sequence[str],
    encode: Callable[[list[str]], Tensor],
    *,
    words: Sequence[str] = NUMBERS,
    texts_at_once: int = 1024,
) -> SubstitutionScores:
    """Puts every word of a group into each caption, and asks which text is nearest to the anchor.

    Use it with the same number of items for each word, else the frequent ones decide. It tells apart hearing
    the word from knowing the scene; it says nothing of the rest of the caption.

    Args:
        anchors: [N, d] embeddings of the images, of any length.
        captions: [N] true captions, each with exactly one of the words.
        encode: texts to embeddings [texts, d].
        words: of the group, for deviations in their order.
        texts_at_once: that `encode` is given.

    Raises:
        MarginsError: a caption without exactly one of the words, or embeddings that do not fit.

    Example:
        >>> table = {"two cats": [1.0, 0.0], "three cats": [0.0, 1.0]}
        >>> encode = lambda texts: torch.tensor([table[text] for text in texts])
        >>> image = torch.tensor([[3.0, 1.0]])
        >>> found = substitution_benchmark(image, ["two cats"], encode, words=["two", "three"])
        >>> found.accuracy, found.mean_absolute_deviation
        (1.0, 0.0)

    References:
        Paiss et al. 2023, arXiv 2302.12066 (540 images, 60 for each number).
    """
    if anchors.ndim != 2 or len(anchors) != len(captions) or not len(captions):
        raise MarginsError(
            "anchors", expected=f"[N, d] with N = {len(captions)} captions >= 1", received=describe(anchors)
        )
    group = WordGroup(words)
    texts, true = _substituted(captions, group)
    parts = [texts[start : start + texts_at_once] for start in range(0, len(texts), texts_at_once)]
    embedded = torch.cat([encode(part) for part in parts])
    if embedded.shape != (len(texts), anchors.shape[1]):
        raise MarginsError(
            "encode", expected=f"embeddings [{len(texts)}, d = {anchors.shape[1]}]",
            received=describe(embedded),
        )  # fmt: skip
    directions = unit(at_least_float32(embedded)).reshape(len(captions), len(group.words), -1)
    scores = (directions * unit(at_least_float32(anchors))[:, None]).sum(2).cpu()
    return _judged(scores, true, group.words)


def _substituted(captions: Sequence[str], group: WordGroup) -> tuple[list[str], Tensor]:
    texts: list[str] = []
    true: list[int] = []
    for place, caption in enumerate(captions):
        slot = group.slot(caption)
        if slot is None:
            raise MarginsError(
                f"captions[{place}]", expected=f"exactly one of {', '.join(group.words)}",
                received=repr(caption), fix="leave it out",
            )  # fmt: skip
        true.append(slot.word)
        texts += [group.replaced(caption, slot, word) for word in range(len(group.words))]
    return texts, torch.tensor(true)


def _judged(scores: Tensor, true: Tensor, words: tuple[str, ...]) -> SubstitutionScores:
    best = (scores == scores.amax(1, keepdim=True)).double()
    share = best / best.sum(1, keepdim=True)
    right = share.gather(1, true[:, None])[:, 0]
    away = (torch.arange(len(words)) - true[:, None]).abs()
    by_word = {word: right[true == number] for number, word in enumerate(words)}
    return SubstitutionScores(
        accuracy=float(right.mean()),
        mean_absolute_deviation=float((share * away).sum(1).mean()),
        accuracy_of={word: float(found.mean()) for word, found in by_word.items() if len(found)},
        num_items=len(true),
    )
