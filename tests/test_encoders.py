"""Hashed n-grams against a slow reading of the definition, and what encoders may see and draw from."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

from margins.encoders import Dropout, Numbers, NumericEncoder, TextEncoder, hash_texts, hashing, linear
from margins.errors import MarginsError
from margins.heads import LinearHead

TEXTS = [
    "The card, the CARD!",
    "Karte  verloren",
    "",
    "!?",
    "a",
    "कार्ड खो गया",
    "银行卡",
    "e\u0301te\u0301 \u00e9t\u00e9",
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features_of(words: list[str], chars: tuple[int, int], *, pairs: bool) -> Counter[tuple[str, ...]]:
    """The n-grams of a text by the definition."""
    text = f" {' '.join(words)} " if words else ""
    found = Counter(("word", w) for w in words)
    if pairs:
        found += Counter(("pair", a, b) for a, b in pairwise(words))
    for n in range(chars[0], chars[1] + 1):
        found += Counter(("chars", text[k : k + n]) for k in range(len(text) - n + 1))
    return found


PLAIN = ["ab cd ab", "abc", "", "x", "cd ab", "a b c d e f"]


@pytest.mark.parametrize(("chars", "pairs"), [((3, 5), True), ((2, 2), False), ((1, 7), True)])
def test_hashed_ids_are_the_ngrams_of_the_definition_with_their_counts(chars: tuple[int, int], pairs: bool):
    hashed = hash_texts(PLAIN, buckets=2**40, word_pairs=pairs, chars=chars)
    for row, text in enumerate(PLAIN):
        expected = features_of(text.split(), chars, pairs=pairs)
        own = hashed.take(torch.tensor([row]))
        assert sorted(own.counts.tolist()) == sorted(map(float, expected.values()))
    every = {f for text in PLAIN for f in features_of(text.split(), chars, pairs=pairs)}
    assert len(hashed.ids.unique()) == len(every)


def test_texts_share_exactly_the_ids_of_the_ngrams_they_share():
    hashed = hash_texts(PLAIN, buckets=2**40)
    found = [features_of(t.split(), (3, 5), pairs=True) for t in PLAIN]
    shares = 0
    for i in range(len(PLAIN)):
        for j in range(len(PLAIN)):
            ids = [set(hashed.take(torch.tensor([k])).ids.tolist()) for k in (i, j)]
            assert len(ids[0] & ids[1]) == len(set(found[i]) & set(found[j]))
            shares += i != j and len(ids[0] & ids[1]) > 0
    assert shares > 4


def test_case_punctuation_and_composition_of_accents_do_not_matter():
    hashed = hash_texts(
        ["The card, LOST!", "the card lost", "\u00e9t\u00e9", "e\u0301te\u0301"], buckets=2**40
    )
    rows = [hashed.take(torch.tensor([k])).ids.tolist() for k in range(4)]
    assert rows[0] == rows[1]
    assert rows[2] == rows[3]
    assert rows[0] != rows[2]


def test_every_script_gives_features_and_texts_without_letters_give_none():
    sizes = hash_texts(TEXTS).offsets.diff().tolist()
    assert [size > 0 for size in sizes] == [True, True, False, False, True, True, True, True]
    assert len(hash_texts(["", "?"]).ids) == 0
    assert len(hash_texts([])) == 0


def test_a_text_hashes_the_same_alone_and_among_others():
    together = hash_texts(TEXTS)
    for k, text in enumerate(TEXTS):
        alone, among = hash_texts([text]), together.take(torch.tensor([k]))
        assert torch.equal(alone.ids, among.ids)
        assert torch.equal(alone.counts, among.counts)


def test_texts_hashed_in_parts_equal_texts_hashed_at_once(monkeypatch: pytest.MonkeyPatch):
    at_once = hash_texts(TEXTS)
    parts: list[int] = []
    real = hashing._hashed
    monkeypatch.setattr(hashing, "_PART_CHARS", 12)
    monkeypatch.setattr(
        hashing, "_hashed", lambda texts, *rest: (parts.append(len(texts)), real(texts, *rest))[1]
    )
    in_parts = hash_texts(TEXTS)
    assert sum(parts) == len(TEXTS)
    assert len(parts) > 2
    for name in ("ids", "counts", "offsets"):
        assert torch.equal(getattr(in_parts, name), getattr(at_once, name))


def test_hashes_are_the_same_in_every_process():
    code = "from margins.encoders import hash_texts; print(int(hash_texts(['lost card']).ids.sum()))"
    path = ":".join(sys.path)
    sums = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert sums == {f"{int(hash_texts(['lost card']).ids.sum())}\n"}


def test_buckets_are_used_evenly():
    words = [f"word{k}" for k in range(20000)]
    used = torch.bincount(hash_texts(words, buckets=64, chars=(30, 30)).ids, minlength=64)
    assert used.sum() == 20000
    # Chi-squared with 63 degrees of freedom lies below 110 with probability 0.9998.
    assert float(((used - 312.5) ** 2 / 312.5).sum()) < 110


def test_taking_rows_repeats_and_reorders_them():
    hashed = hash_texts(PLAIN)
    taken = hashed.take(torch.tensor([4, 2, 0, 0]))
    assert taken.offsets.diff().tolist() == hashed.offsets.diff()[[4, 2, 0, 0]].tolist()
    assert torch.equal(taken.take(torch.tensor([2])).ids, hashed.take(torch.tensor([0])).ids)


@pytest.mark.parametrize("asked", [{"buckets": 0}, {"chars": (0, 3)}, {"chars": (4, 3)}])
def test_hashing_refuses_ranges_that_make_no_sense(asked: dict):
    with pytest.raises(MarginsError, match="buckets, chars"):
        hash_texts(["a"], **asked)


def test_the_embedding_is_the_sum_of_ngram_vectors_with_tf_idf_weights_of_length_one():
    texts = hash_texts(["ab ab cd", "cd", "ef"], buckets=256)
    encoder = TextEncoder(buckets=256, width=4, generator=seeded()).eval()
    encoder.fit(texts)
    weight = encoder.bag.weight.detach()
    documents = Counter(i for k in range(3) for i in texts.take(torch.tensor([k])).ids.tolist())
    for k in range(3):
        row = texts.take(torch.tensor([k]))
        raw = {
            i: (1 + math.log(c)) * (math.log(4 / (1 + documents[i])) + 1)
            for i, c in zip(row.ids.tolist(), row.counts.tolist(), strict=True)
        }
        length = math.sqrt(sum(v * v for v in raw.values()))
        expected = sum(v / length * weight[i] for i, v in raw.items())
        assert torch.allclose(encoder(texts)[k], expected, atol=1e-6)


def test_a_text_without_ngrams_embeds_as_zeros_with_a_finite_gradient():
    texts = hash_texts(["", "card"], buckets=64)
    encoder = TextEncoder(buckets=64, width=3, generator=seeded())
    embedded = encoder(texts)
    embedded.sum().backward()
    assert (embedded[0] == 0).all()
    assert (embedded[1] != 0).any()
    assert torch.isfinite(encoder.bag.weight.grad).all()
    assert encoder(hash_texts(["", "?"], buckets=64)).abs().sum() == 0


def test_ngrams_are_dropped_in_training_alone():
    texts = hash_texts(["a text with some words"], buckets=512)
    encoder = TextEncoder(buckets=512, width=8, drop_ngrams=0.5, generator=seeded())
    assert not torch.equal(encoder(texts), encoder(texts))
    encoder.eval()
    assert torch.equal(encoder(texts), encoder(texts))


def test_training_rows_are_standardised_and_other_rows_use_their_numbers():
    train = Numbers(torch.randn(50, 3, generator=seeded(1), dtype=torch.float64) * 7 + 100)
    other = Numbers(torch.full((1, 3), 100.0, dtype=torch.float64))
    encoder = NumericEncoder(num_columns=3, generator=seeded())
    encoder.fit(train)
    rows = encoder.standardised(train)
    assert torch.allclose(rows.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(rows.std(0, correction=0), torch.ones(3), atol=1e-5)
    expected = (100 - train.values.mean(0)) / train.values.std(0, correction=0)
    assert torch.allclose(encoder.standardised(other)[0].double(), expected, atol=1e-5)


def test_a_constant_column_and_large_numbers_stay_finite_and_exact():
    values = torch.tensor([[1e9, 1e12 + 1], [1e9, 1e12 + 3]], dtype=torch.float64)
    encoder = NumericEncoder(num_columns=2, generator=seeded())
    encoder.fit(Numbers(values))
    assert encoder.standardised(Numbers(values)).tolist() == [[0.0, -1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "build",
    [
        lambda g: TextEncoder(buckets=64, width=8, generator=g),
        lambda g: NumericEncoder(num_columns=3, width=8, generator=g),
        lambda g: LinearHead(8, 3, generator=g),
        lambda g: linear(3, 4, generator=g),
    ],
)
def test_first_weights_follow_from_the_generator_and_leave_the_global_one_alone(build):
    before = torch.get_rng_state()
    one, same, other = build(seeded(1)), build(seeded(1)), build(seeded(2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert all(torch.isfinite(w).all() for w in weights)


def test_linear_starts_in_the_range_that_torch_uses():
    ours, torchs = (m.weight.detach() for m in (linear(100, 50, generator=seeded()), nn.Linear(100, 50)))
    assert ours.abs().max() <= 0.1
    assert float(ours.std()) == pytest.approx(float(torchs.std()), rel=0.1)


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    layer = Dropout(0.4, generator=seeded())
    dropped = layer(torch.ones(20000))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.4, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03)
    assert (layer.eval()(torch.ones(5)) == 1).all()
    with pytest.raises(MarginsError, match="probability"):
        Dropout(1.0, generator=seeded())
