"""Columns and pairs of texts, words as tokens, the transformer over them, and pooling."""

from __future__ import annotations

import math

import polars as pl
import pytest
import torch

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders import (
    HashedTextSettings,
    PairEncoder,
    TextEncoder,
    TransformerTextEncoder,
    TransformerTextSettings,
    hash_texts,
    new_pooling,
)
from margins.encoders.attention import TransformerBlocks
from margins.encoders.hashing import hash_words
from margins.encoders.pooling import AttentionPooling, LayerPooling
from margins.encoders.words import WordSequences, word_sequences
from margins.errors import MarginsError

TITLES, BODIES = ["card lost", "", "card"], ["the card is lost", "lost card", ""]
HASHED = HashedTextSettings(width=6, buckets=256)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_up_frame() -> Frame:
    return Frame(table=pl.DataFrame({"title": TITLES, "body": BODIES}), source="made up", fingerprint="0")


def hashed(kinds: dict[str, InputKind], seed: int = 0):
    preparation = HASHED.prepare(made_up_frame(), kinds)
    encoder = HASHED.build(preparation, generator=seeded(seed))
    inputs = preparation(made_up_frame())
    encoder.fit(inputs)
    return encoder.eval(), inputs


def alone(texts: list[str], fit: list[str], generator: torch.Generator) -> torch.Tensor:
    encoder = TextEncoder(width=6, buckets=256, generator=generator).eval()
    encoder.fit(hash_texts(fit, buckets=256))
    return encoder(hash_texts(texts, buckets=256))


def test_one_column_of_text_is_the_plain_text_encoder():
    encoder, inputs = hashed({"body": "text"})
    assert isinstance(encoder, TextEncoder)
    assert torch.equal(encoder(inputs), alone(BODIES, BODIES, seeded()))


def test_several_columns_are_the_sum_of_encoders_of_their_own():
    encoder, inputs = hashed({"title": "text", "body": "text"})
    generator = seeded()
    expected = alone(TITLES, TITLES, generator) + alone(BODIES, BODIES, generator)
    assert torch.allclose(encoder(inputs), expected, atol=1e-6)
    swapped, _ = hashed({"body": "text", "title": "text"})
    assert not torch.allclose(swapped(inputs), expected, atol=1e-3)


def test_a_pair_is_both_embeddings_their_distance_and_their_product():
    encoder, inputs = hashed({"title": "text_pair", "body": "text_pair"})
    assert isinstance(encoder, PairEncoder)
    u, v = (alone(texts, TITLES + BODIES, seeded()) for texts in (TITLES, BODIES))
    assert torch.allclose(encoder(inputs), torch.cat([u, v, (u - v).abs(), u * v], 1), atol=1e-6)
    both = encoder.both(inputs)
    assert torch.equal(both[0], encoder(inputs)[:, :6])
    assert both[1].abs().sum() > 0


def test_words_keep_their_order_and_are_cut_and_held_once():
    texts = word_sequences([["b a b c", "", "a"]], buckets=2**40, chars=(3, 4), max_tokens=3)
    assert texts.words.tolist() == [0, 1, 0, 1]
    assert texts.offsets.tolist() == [0, 3, 3, 4]
    assert len(texts.ids) == 2  # c lies beyond the third word


def test_word_ids_and_ngrams_are_those_of_hashed_texts():
    ids, ngrams, sizes = hash_words(["card", "a"], buckets=2**40, chars=(3, 5))
    known = set(hash_texts(["card"], buckets=2**40, word_pairs=False).ids.tolist())
    assert {int(ids[0]), *ngrams[: sizes[0]].tolist()} == known
    assert sizes.tolist() == [4 + 3 + 2, 1]
    assert len(known) == 10


def words_of_row(texts: WordSequences, row: int) -> list[tuple[int, list[int]]]:
    own = texts.words[texts.offsets[row] : texts.offsets[row + 1]]
    starts = texts.ngram_offsets
    return [(int(texts.ids[w]), texts.ngrams[starts[w] : starts[w + 1]].tolist()) for w in own]


def test_taking_and_joining_texts_keeps_each_words_id_and_ngrams():
    every = ["never taken", *TITLES, *BODIES]
    texts = word_sequences([every], buckets=2**40, chars=(3, 5), max_tokens=9)
    taken = texts.take(torch.tensor([4, 2, 1]))
    for place, row in enumerate([4, 2, 1]):
        assert words_of_row(taken, place) == words_of_row(texts, row)
    assert len(taken.ids) == len(texts.ids) - 2
    joined = taken.joined(texts)
    for place, row in enumerate([4, 2, 1, 0, 1, 2, 3, 4]):
        assert words_of_row(joined, place) == words_of_row(texts, row)
    assert len(words_of_row(texts, 4)) == 4


def transformer(pooling: str = "mean", dropout: float = 0.0) -> TransformerTextEncoder:
    encoder = TransformerTextEncoder(
        buckets=64,
        max_tokens=12,
        width=8,
        depth=2,
        heads=2,
        dropout=dropout,
        pooling=pooling,
        generator=seeded(),
    )  # type: ignore[arg-type]
    for parameter in encoder.pooling.parameters():
        torch.nn.init.normal_(parameter, generator=seeded(4))
    return encoder


def sequences(texts: list[str]) -> WordSequences:
    return word_sequences([texts], buckets=64, chars=(3, 5), max_tokens=12)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "attention", "layers"])
@torch.no_grad()
def test_the_length_of_padding_changes_nothing(pooling: str):
    encoder = transformer(pooling).double()
    short, long = "lost card", "a very long text with many more words than that"
    alone, padded = encoder(sequences([short, ""])), encoder(sequences([short, "", long]))
    assert torch.allclose(alone, padded[:2], atol=1e-12)
    assert not torch.allclose(padded[0], padded[2], atol=1e-3)


@torch.no_grad()
def test_the_order_of_words_matters_and_so_do_their_ngrams():
    encoder = transformer("cls")
    one, turned, other = encoder(sequences(["lost card", "card lost", "lost cards"]))
    assert not torch.allclose(one, turned, atol=1e-4)
    assert not torch.allclose(one, other, atol=1e-4)


@torch.no_grad()
def test_a_word_is_its_own_vector_plus_the_mean_of_its_ngrams():
    encoder, texts = transformer(), sequences(["card lost"])
    expected = [
        encoder.words[i] + encoder.ngrams[torch.tensor(grams)].mean(0) for i, grams in words_of_row(texts, 0)
    ]
    states, mask = encoder._padded(texts)
    assert mask.tolist() == [[True, True, True]]
    assert torch.allclose(states[0, 1:], torch.stack(expected) + encoder.places[1:3], atol=1e-6)


def test_dropout_of_the_transformer_is_drawn_from_its_generator_in_training_alone():
    encoder, texts = transformer(dropout=0.5), sequences(["lost card"])
    before = torch.get_rng_state()
    assert not torch.equal(encoder(texts), encoder(texts))
    assert torch.equal(torch.get_rng_state(), before)
    encoder.eval()
    assert torch.equal(encoder(texts), encoder(texts))


def test_several_columns_of_a_transformer_are_read_one_after_another():
    settings = TransformerTextSettings(width=8, heads=2, buckets=64)
    preparation = settings.prepare(made_up_frame(), {"title": "text", "body": "text"})
    joined = [f"{title} {body}" for title, body in zip(TITLES, BODIES, strict=True)]
    assert torch.equal(preparation(made_up_frame()).words, sequences(joined).words)


def test_attention_equals_its_definition():
    blocks = TransformerBlocks(width=4, depth=1, heads=2, generator=seeded())
    block, states = blocks.blocks[0], torch.randn(1, 3, 4, generator=seeded(1))
    shown = torch.tensor([[True, True, False]])
    normal = block.attention_norm(states)
    queries, keys, values = block.incoming(normal).split(4, dim=-1)
    heads = []
    for k in (0, 1):
        q, key, v = (x[0, :, 2 * k : 2 * k + 2] for x in (queries, keys, values))
        weights = (q @ key.T / math.sqrt(2)).masked_fill(~shown, -math.inf).softmax(1)
        heads.append(weights @ v)
    middle = states[0] + block.outgoing(torch.cat(heads, 1))
    expected = blocks.norm(middle + block.hidden(block.hidden_norm(middle)))
    layers = blocks(states, shown)
    assert torch.allclose(layers[-1][0], expected, atol=1e-5)
    assert torch.equal(layers[0], states)


STATES = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [90.0, 90.0]], [[90.0, 90.0], [5.0, 6.0], [7.0, 8.0]]])
MASK = torch.tensor([[True, True, False], [False, True, True]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [[2.0, 3.0], [6.0, 7.0]]),
        ("cls", [[1.0, 2.0], [5.0, 6.0]]),
        ("last", [[3.0, 4.0], [7.0, 8.0]]),
        ("attention", [[2.0, 3.0], [6.0, 7.0]]),
        ("layers", [[1.0, 1.5], [3.0, 3.5]]),
    ],
)
def test_pooling_sees_real_tokens_alone_on_whichever_side_the_padding_stands(name, expected):
    pooling = new_pooling(name, width=2, num_layers=2)
    spoilt = STATES.masked_fill(~MASK[..., None], math.nan)
    for states in (STATES, spoilt):
        pooled = pooling([torch.zeros_like(STATES), states], MASK)
        assert torch.allclose(pooled, torch.tensor(expected))
    empty = pooling([torch.zeros(1, 3, 2), STATES[:1]], torch.zeros(1, 3, dtype=torch.bool))
    assert empty.tolist() == [[0.0, 0.0]]


def test_learned_poolings_equal_their_formulas():
    attention = AttentionPooling(2)
    attention.query.data = torch.tensor([0.5, -1.0])
    scores = torch.tensor([(0.5 * a - b) / math.sqrt(2) for a, b in ((1.0, 2.0), (3.0, 4.0))])
    expected = scores.softmax(0) @ STATES[0, :2]
    assert torch.allclose(attention([STATES], MASK)[0], expected)
    layers = LayerPooling(2)
    layers.logits.data = torch.tensor([0.0, math.log(3.0)])
    assert torch.allclose(layers([4 * STATES, STATES], MASK)[0], torch.tensor([2.0, 3.0]) * (0.25 * 4 + 0.75))
    with pytest.raises(MarginsError, match="2 layers"):
        layers([STATES], MASK)
