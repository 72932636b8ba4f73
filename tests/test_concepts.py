"""Predictions through concepts: slots, attention over them, streams, what shares are trained for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from margins.errors import MarginsError
from margins.heads import ConceptAttention, ConceptHead, SlotMemory
from margins.losses import AttributionEntropy, ConceptExplanation
from reference.attention import (
    attribution_entropy,
    cross_attention,
    explanation_loss,
    masked_softmax,
    slot_attention_step,
)

WIDTH = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(num: int = 3, length: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Token states whose padding is NaN, and their mask; the first row has all its tokens."""
    states = torch.randn(num, length, WIDTH, generator=seeded(seed), dtype=torch.float64)
    mask = torch.arange(length) < torch.tensor([5, 2, 3, 1])[:num, None]
    return states.masked_fill(~mask[..., None], torch.nan), mask


def head_of(**changes: Any) -> ConceptHead:
    settings = {"num_concepts": 3, **changes}
    head = ConceptHead(WIDTH, 2, generator=seeded(), **settings).double().eval()
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name.endswith(("pool", "out.bias", "norm.weight")):  # from where they are plain
                parameter.add_(torch.randn(parameter.shape, generator=seeded(7), dtype=torch.float64))
    return head


def plain(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


def test_a_step_of_the_slots_equals_the_reference() -> None:
    memory = SlotMemory(WIDTH, 3, iterations=2, generator=seeded()).double().eval()
    for number, norm in enumerate((memory.token_norm, memory.slot_norm)):
        torch.nn.init.normal_(norm.weight, generator=seeded(number))
        torch.nn.init.normal_(norm.bias, generator=seeded(number + 5))
    states, mask = tokens()
    found, shares = memory(states.nan_to_num(), mask)
    weights = [plain(layer.weight) for layer in (memory.key, memory.value, memory.query)]
    cell = memory.cell
    gru = [plain(p) for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]
    norms = [(plain(norm.weight), plain(norm.bias)) for norm in (memory.token_norm, memory.slot_norm)]
    for row in range(3):
        slots: Any = plain(memory.mean + memory.places)
        real = states[row][mask[row]].numpy()
        for _ in range(2):
            slots, attention = slot_attention_step(real, slots, *weights, gru, norms=norms)
        np.testing.assert_allclose(plain(found[row]), slots, atol=1e-10)
        np.testing.assert_allclose(plain(shares[row][mask[row]]), attention, atol=1e-10)
    assert bool((shares[~mask] == 0).all())
    torch.testing.assert_close(shares.sum(1), torch.ones(3, 3, dtype=torch.float64))
    assert found.std(0).max() > 1e-3, "vacuous: slots do not depend on the tokens"


def test_without_slots_it_is_the_cross_attention_of_a_concept_transformer() -> None:
    head = head_of(num_concepts=0, num_patch_concepts=3, slots=False)
    states, mask = tokens()
    logits, attribution = head.explained(states, mask)
    stream: Any = head.streams["patches"]
    attention = stream.attention
    weights = [
        plain(part.weight) for part in (attention.query, attention.key, attention.value, attention.out)
    ]
    for row in range(3):
        each, shares = cross_attention(
            states[row][mask[row]].numpy(), plain(stream.concepts), *weights, num_heads=2,
            biases=(None, None, None, plain(attention.out.bias)),
        )  # fmt: skip
        np.testing.assert_allclose(plain(logits[row]), np.mean(each, axis=0), atol=1e-12)
        np.testing.assert_allclose(plain(attribution["patches"][row][mask[row]]), shares, atol=1e-12)
    assert attribution["patches"].std() > 0.01


def test_the_query_of_the_whole_is_a_softmax_mean_of_the_tokens() -> None:
    head = head_of(slots=False)
    states, mask = tokens()
    logits, attribution = head.explained(states, mask)
    stream: Any = head.streams["whole"]
    for row in range(3):
        real = states[row].nan_to_num()
        weights = masked_softmax(plain(real @ stream.pool), mask[row])
        query = (torch.tensor(weights, dtype=torch.float64) @ real)[None, None]
        expected, shares = stream.attention(query, stream.concepts[None])
        torch.testing.assert_close(logits[row], expected[0, 0])
        torch.testing.assert_close(attribution["whole"][row], shares[0, 0])


@pytest.mark.parametrize("slots", [True, False])
def test_attributions_add_up_to_one(slots: bool) -> None:
    states, mask = tokens()
    head = head_of(num_patch_concepts=4, num_free_concepts=2, slots=slots)
    _, attribution = head.explained(states, mask)
    assert {name: tuple(a.shape) for name, a in attribution.items()} == {
        "whole": (3, 3), "patches": (3, 5, 4), "free": (3, 2),
    }  # fmt: skip
    for name, shares in attribution.items():
        expected = mask.double() if name == "patches" else torch.ones(3, dtype=torch.float64)
        torch.testing.assert_close(shares.sum(-1), expected)
        assert shares.min() >= 0


def test_the_order_of_tokens_moves_the_attributions_of_patches_alone() -> None:
    states, mask = tokens()
    head = head_of(num_patch_concepts=4, num_free_concepts=2)
    order = torch.tensor([3, 0, 4, 2, 1])
    logits, attribution = head.explained(states, mask)
    other, moved = head.explained(states[:, order], mask[:, order])
    torch.testing.assert_close(other, logits)
    torch.testing.assert_close(moved["whole"], attribution["whole"])
    torch.testing.assert_close(moved["free"], attribution["free"])
    torch.testing.assert_close(moved["patches"], attribution["patches"][:, order])
    assert not torch.allclose(moved["patches"], attribution["patches"], atol=1e-3)


def test_logits_of_streams_are_added_and_linear_in_the_shares() -> None:
    states, mask = tokens()
    head = head_of(num_patch_concepts=4, num_free_concepts=2)
    parts = [stream(head.real(states, mask), mask)[0] for stream in head.streams.values()]
    torch.testing.assert_close(head(states, mask), torch.stack(parts).sum(0))
    attention = ConceptAttention(WIDTH, 2, num_heads=1, generator=seeded()).double()
    concepts = torch.randn(1, 3, WIDTH, generator=seeded(2), dtype=torch.float64)
    logits, shares = attention(torch.randn(1, 6, WIDTH, generator=seeded(3)).double(), concepts)
    said = attention.value(concepts) @ attention.out.weight.T  # [1, 3, 2] of each concept
    torch.testing.assert_close(logits, shares @ said + attention.out.bias)


def test_noise_is_drawn_in_training_alone_from_the_generator_of_the_head() -> None:
    states, mask = tokens()
    generator = seeded(3)
    head = ConceptHead(WIDTH, 2, num_concepts=3, generator=generator).double()
    before = torch.get_rng_state()
    generator.manual_seed(1)
    first, second = head(states, mask), head(states, mask)
    assert not torch.equal(first, second)
    generator.manual_seed(1)
    assert torch.equal(head(states, mask), first)
    assert torch.equal(torch.get_rng_state(), before)
    head.eval()
    assert torch.equal(head(states, mask), head(states, mask))


@pytest.mark.parametrize("slots", [True, False])
def test_every_weight_of_a_concept_head_learns_and_padding_gets_no_gradient(slots: bool) -> None:
    states, mask = tokens()
    given = states.clone().requires_grad_()
    head = head_of(num_patch_concepts=2, slots=slots).train()
    head(given, mask).square().sum().backward()
    assert given.grad is not None
    assert bool((given.grad[~mask] == 0).all())
    lazy = [n for n, p in head.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert lazy == []
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters() if p.grad is not None)
    alone = head.eval()(states, torch.zeros_like(mask))
    assert bool(alone.isfinite().all()), "a row without tokens"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_concepts": 0}, "num_concepts"),
        ({"num_patch_concepts": -1}, "at least 0"),
        ({"num_heads": 3}, "divisor of the width 4"),
        ({"iterations": 0}, "iterations"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(MarginsError, match=words):
        head_of(**changes)


# --- losses of shares ------------------------------------------------------------------------------------


def shares_of(*shape: int, seed: int = 0) -> Tensor:
    scores = torch.randn(*shape, generator=seeded(seed), dtype=torch.float64, requires_grad=True)
    return scores.softmax(-1)


def concepts_of(*shape: int, seed: int = 1) -> Tensor:
    given = torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)
    given = torch.where(given > 0.5, 3 * given, 0.0)
    given[0], given[1, ..., 0] = 0.0, torch.nan  # nothing there, and nobody said
    return given


@pytest.mark.parametrize("shape", [(6, 4), (5, 3, 4)])
def test_the_explanation_loss_equals_the_reference(shape: tuple[int, ...]) -> None:
    shares, concepts = shares_of(*shape), concepts_of(*shape)
    found = ConceptExplanation()(shares, concepts)
    assert float(found.detach()) == pytest.approx(explanation_loss(plain(shares), concepts), rel=1e-12)
    assert found > 0.05
    num_valid = int((concepts.sum(-1) > 0).sum())
    torch.testing.assert_close(ConceptExplanation(reduction="sum")(shares, concepts), num_valid * found)
    torch.testing.assert_close(ConceptExplanation()(shares, concepts, denominator=2.0), num_valid * found / 2)
    assert torch.autograd.gradcheck(lambda s: ConceptExplanation()(s.softmax(-1), concepts), (_raw(shape),))


def _raw(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=seeded(9), dtype=torch.float64, requires_grad=True)


def test_shares_equal_to_the_concepts_cost_nothing_and_even_ones_what_the_card_says() -> None:
    concepts = torch.eye(5).double()[[0, 3, 3]]
    assert float(ConceptExplanation()(concepts, 7 * concepts)) == 0.0
    even = torch.full((3, 5), 0.2).double()
    assert float(ConceptExplanation()(even, concepts)) == pytest.approx(1 - 1 / 5)
    assert float(AttributionEntropy()(even)) == pytest.approx(np.log(5) / 5, rel=1e-6)
    assert float(AttributionEntropy()(concepts)) == pytest.approx(0, abs=1e-8)


def test_rows_without_concepts_give_an_exact_zero_on_the_graph_and_are_counted() -> None:
    shares = shares_of(3, 4)
    rows = ConceptExplanation().rows(shares, torch.full((3, 4), torch.nan))
    assert rows.num_degenerate == 3
    found = rows.reduce("mean")
    assert float(found.detach()) == 0.0
    found.backward()


def test_the_entropy_of_attributions_equals_the_reference() -> None:
    shares = shares_of(5, 3, 4)
    found = AttributionEntropy()(shares)
    assert float(found.detach()) == pytest.approx(attribution_entropy(plain(shares)), rel=1e-12)
    mask = torch.rand(5, 3, generator=seeded(2)) < 0.5
    assert 0 < int(mask.sum()) < 15
    masked = AttributionEntropy()(shares, mask=mask)
    assert float(masked.detach()) == pytest.approx(attribution_entropy(plain(shares[mask])), rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: AttributionEntropy()(s.softmax(-1)), (_raw((3, 4)),))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_shares_compute_half_precision_in_float32(dtype: torch.dtype) -> None:
    shares = shares_of(6, 4).detach().to(dtype)
    for found, expected in (
        (
            ConceptExplanation()(shares, concepts_of(6, 4)),
            ConceptExplanation()(shares.float(), concepts_of(6, 4)),
        ),
        (AttributionEntropy()(shares), AttributionEntropy()(shares.float())),
    ):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: ConceptExplanation()(torch.zeros(2, 3), torch.zeros(2, 4)), r"concepts: expected \[2, 3\]"),
        (lambda: ConceptExplanation()(torch.zeros(3), torch.zeros(3)), "attribution"),
        (lambda: AttributionEntropy()(torch.zeros(2, 0)), "S >= 1"),
        (lambda: AttributionEntropy()(torch.full((2, 3), torch.nan)), "attribution"),
        (lambda: AttributionEntropy()(torch.zeros(2, 3), mask=torch.ones(3, dtype=torch.bool)), "mask"),
    ],
)
def test_shares_that_make_no_sense_are_refused(use: Any, words: str) -> None:
    with pytest.raises(MarginsError, match=words):
        use()
