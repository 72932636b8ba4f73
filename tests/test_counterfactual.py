"""The counterfactual pair, the texts that are made for it, and the benchmark of small words."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from margins.errors import MarginsError
from margins.losses import CounterfactualPair, InfoNCE
from margins.mining import NUMBERS, TokenSwapNegatives, WordGroup
from margins.retrieval import substitution_benchmark


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(num: int, seed: int, dim: int = 5) -> Tensor:
    return torch.randn(num, dim, generator=draws(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_equal_texts_cost_log_two(temperature: float):
    images, texts = vectors(6, 0), vectors(6, 1)
    found = CounterfactualPair(temperature).on_triples(images, texts, 3 * texts)
    assert found.item() == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_the_two_texts(temperature: float):
    images, texts, others = (vectors(7, k).requires_grad_() for k in range(3))
    found = CounterfactualPair(temperature).on_triples(images, texts, others)
    cosines = torch.stack([functional.cosine_similarity(images, t) for t in (texts, others)], 1)
    expected = functional.cross_entropy(cosines / temperature, torch.zeros(7, dtype=torch.long))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    grads = [torch.autograd.grad(loss, (images, texts, others)) for loss in (found, expected)]
    for own, by_hand in zip(*grads, strict=True):
        torch.testing.assert_close(own, by_hand)
        assert own.abs().max() > 1e-3, "vacuous: no gradient"


def test_the_least_loss_at_temperature_one_is_that_of_opposite_texts():
    image = torch.tensor([[1.0, 0.0]])
    found = CounterfactualPair().on_triples(image, 2 * image, -image)
    assert found.item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-6)


def test_anchors_without_a_counterfactual_do_not_count():
    images, texts, others = (vectors(8, k) for k in range(3))
    has = torch.tensor([True, False] * 4)
    images.requires_grad_()
    found = CounterfactualPair().on_triples(images, texts, others, has_counterfactual=has)
    torch.testing.assert_close(found, CounterfactualPair().on_triples(images[has], texts[has], others[has]))
    (grad,) = torch.autograd.grad(found, images)
    assert bool((grad[~has] == 0).all())
    assert bool((grad[has] != 0).any(1).all())
    none = CounterfactualPair().on_triples(images, texts, others, has_counterfactual=has & False)
    assert none.item() == 0
    assert bool((torch.autograd.grad(none, images)[0] == 0).all())


def test_the_denominator_of_a_step_makes_parts_add_up():
    images, texts, others = (vectors(9, k) for k in range(3))
    loss = CounterfactualPair(0.3)
    whole = loss.on_triples(images, texts, others)
    parts = [
        loss.on_triples(images[part], texts[part], others[part], denominator=9.0)
        for part in (slice(0, 4), slice(4, 9))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_it_is_added_to_a_contrastive_loss():
    images, texts, others = (vectors(6, k).requires_grad_() for k in range(3))
    total = InfoNCE(0.1).on_pairs(images, texts) + 1.0 * CounterfactualPair().on_triples(
        images, texts, others
    )
    grads = torch.autograd.grad(total, (images, texts, others))
    assert all(bool(torch.isfinite(g).all()) and g.abs().max() > 1e-4 for g in grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_are_compared_in_float32(dtype: torch.dtype):
    images, texts, others = (100 * vectors(6, k).to(dtype) for k in range(3))
    found = CounterfactualPair(0.01).on_triples(images, texts, others)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, CounterfactualPair(0.01).on_triples(images.float(), texts.float(), others.float())
    )


def test_texts_of_another_shape_are_refused_by_name():
    with pytest.raises(MarginsError, match="counterfactuals"):
        CounterfactualPair().on_triples(vectors(3, 0), vectors(3, 1), vectors(2, 2))
    with pytest.raises(MarginsError, match="temperature"):
        CounterfactualPair(0.0)


def test_a_swap_never_gives_the_word_that_was_there():
    swap, generator = TokenSwapNegatives(), draws()
    for word in NUMBERS:
        found = swap([f"a photo of {word} dogs"] * 40, generator=generator)
        assert bool(found.swapped.all())
        words = {text.split()[3] for text in found.texts}
        assert word not in words
        assert words <= set(NUMBERS)
        assert len(words) > 5, "vacuous: always the same"
        assert {text.replace(text.split()[3], word) for text in found.texts} == {f"a photo of {word} dogs"}


def test_every_other_word_is_as_likely():
    found = TokenSwapNegatives([["a", "b", "c", "d"]])(["x b"] * 3000, generator=draws(1))
    counts = [sum(text == f"x {word}" for text in found.texts) for word in "abcd"]
    assert counts[1] == 0
    assert all(abs(counts[k] - 1000) < 5 * math.sqrt(3000 * 2 / 9) for k in (0, 2, 3))


@pytest.mark.parametrize(
    "text",
    ["a photo of dogs", "two of three dogs", "a network of often", "twofold", "one dog", "", "12 dogs"],
)
def test_texts_without_exactly_one_word_of_a_group_are_left_out(text: str):
    found = TokenSwapNegatives()([text, "two dogs"], generator=draws())
    assert found.texts[0] == text
    assert found.swapped.tolist() == [False, True]


def test_a_text_with_words_of_several_groups_has_one_of_them_changed():
    swap = TokenSwapNegatives([["two", "three"], ["left", "right"]])
    found = swap(["Two cats on the left, please"] * 50, generator=draws())
    assert set(found.texts) == {"Three cats on the left, please", "Two cats on the right, please"}
    # Several words of one group: that group is left out, the other is not.
    both = swap(["two or three cats on the left"] * 10, generator=draws())
    assert set(both.texts) == {"two or three cats on the right"}


def test_longer_words_are_found_before_those_inside_them():
    ages = WordGroup(["twenty", "twenty one", "c++"])
    slot = ages.slot("Twenty one years")
    assert slot is not None
    assert ages.replaced("Twenty one years", slot, 0) == "Twenty years"
    other = ages.slot("in c++, mostly")
    assert other is not None
    assert ages.replaced("in c++, mostly", other, 0) == "in twenty, mostly"


@pytest.mark.parametrize("groups", [[], [["two"]], [["two", "Two"]], [["a", "b"], ["b", "c"]], [["a", " "]]])
def test_groups_that_cannot_be_swapped_are_refused(groups: list[list[str]]):
    with pytest.raises(MarginsError, match=r"groups|words"):
        TokenSwapNegatives(groups)


def _hearing(texts: list[str]) -> Tensor:
    """One direction a number word."""
    places = [
        next((k for k, word in enumerate(NUMBERS) if word in text.lower().split()), 9) for text in texts
    ]
    return torch.eye(10)[places]


CAPTIONS = [f"{word} dogs" for word in NUMBERS] + ["Ten cats"]


def test_a_model_that_hears_every_word_scores_one():
    found = substitution_benchmark(5 * _hearing(CAPTIONS), CAPTIONS, _hearing, texts_at_once=7)
    assert found.accuracy == 1
    assert found.mean_absolute_deviation == 0
    assert found.accuracy_of == dict.fromkeys(NUMBERS, 1.0)
    assert found.num_items == 10


def test_a_model_to_which_all_words_are_one_scores_by_chance():
    found = substitution_benchmark(
        _hearing(CAPTIONS[:9]), CAPTIONS[:9], lambda texts: torch.ones(len(texts), 10)
    )
    assert found.accuracy == pytest.approx(1 / 9)
    assert found.mean_absolute_deviation == pytest.approx(
        sum(abs(a - b) for a in range(9) for b in range(9)) / 81
    )


def test_a_model_that_is_always_one_off_deviates_by_one():
    wrong = _hearing([f"{NUMBERS[(k + 1) % 9]} dogs" for k in range(9)])
    found = substitution_benchmark(wrong[:8], CAPTIONS[:8], _hearing)
    assert found.accuracy == 0
    assert found.mean_absolute_deviation == pytest.approx(1.0)


def test_a_caption_without_the_word_is_refused_with_its_place():
    with pytest.raises(MarginsError, match=r"captions\[1\]"):
        substitution_benchmark(torch.ones(2, 10), ["two dogs", "a dog"], _hearing)
    with pytest.raises(MarginsError, match="encode"):
        substitution_benchmark(torch.ones(1, 3), ["two dogs"], _hearing)
    with pytest.raises(MarginsError, match="anchors"):
        substitution_benchmark(torch.ones(2, 10), ["two dogs"], _hearing)
