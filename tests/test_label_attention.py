"""Attention of labels over tokens, margins of rare labels, and networks whose head reads tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import margins
from margins.data.settings import validated
from margins.encoders import (
    PairEncoder,
    PretrainedTextSettings,
    SmallViT,
    TokenEncoder,
    TransformerTextEncoder,
    TransformerTextSettings,
)
from margins.encoders.images import Images
from margins.encoders.words import WordSequences, word_sequences
from margins.engine import Blockwise
from margins.errors import MarginsError
from margins.heads import ConceptHead, LabelAttention, LinearHead
from margins.losses import BinaryCrossEntropy, label_margins
from margins.report import attended, concept_shares
from margins.targets import Targets
from margins.training import Network, Recipe, TargetSettings
from margins.training.objective import targets_setter
from margins.training.parts.mixing import MixingPlan
from reference.attention import label_attention, label_embedding_attention, ldam_margins, multi_label_ldam

WIDTH, LABELS = 4, 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(num: int = 5, length: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Token states whose padding is NaN, and their mask; the second row has all its tokens."""
    states = torch.randn(num, length, WIDTH, generator=seeded(seed), dtype=torch.float64)
    mask = torch.rand(num, length, generator=seeded(seed + 1)) < 0.6
    mask[:, 2], mask[1] = True, True
    return states.masked_fill(~mask[..., None], torch.nan), mask


def head_of(label_embeddings: Tensor | None = None, seed: int = 0) -> LabelAttention:
    head = LabelAttention(WIDTH, LABELS, label_embeddings=label_embeddings, generator=seeded(seed)).double()
    with torch.no_grad():
        head.bias.normal_(generator=seeded(seed + 1))
    return head


def plain(*tensors: Tensor) -> list[Any]:
    return [t.detach().numpy() for t in tensors]


@pytest.mark.parametrize("is_named", [False, True])
def test_label_attention_equals_the_reference(is_named: bool) -> None:
    states, mask = tokens()
    mask[3] = False
    names = torch.randn(LABELS, 7, generator=seeded(5), dtype=torch.float64) if is_named else None
    head = head_of(names)
    logits, attention = head.explained(states, mask)
    last = plain(head.weight, head.bias)
    for row in range(len(states)):
        if names is not None:
            expected = label_embedding_attention(
                states[row].nan_to_num().numpy(), mask[row], *plain(head.inner.weight, names), *last
            )
        else:
            own = plain(head.inner.weight, head.inner.bias, head.outer.weight, head.outer.bias)
            expected = label_attention(states[row].nan_to_num().numpy(), mask[row], *own, *last)
        np.testing.assert_allclose(logits[row].detach(), expected[0], atol=1e-12)
        np.testing.assert_allclose(attention[row].detach(), expected[1], atol=1e-12)
    assert attention.std() > 0.01, "vacuous: all weights are alike"


def test_attention_adds_up_to_one_over_real_tokens_and_is_zero_at_padding() -> None:
    states, mask = tokens()
    attention = head_of().attention(states, mask)
    torch.testing.assert_close(attention.sum(2), torch.ones(5, LABELS, dtype=torch.float64))
    assert bool((attention.transpose(1, 2)[~mask] == 0).all())
    assert 0 < int(mask.sum()) < mask.numel(), "vacuous: no padding"


def test_attention_that_does_not_look_is_the_mean_under_a_linear_head() -> None:
    states, mask = tokens()
    head = LabelAttention(WIDTH, 1, generator=seeded()).double()
    nn.init.zeros_(head.outer.weight)
    mean = states.nan_to_num().sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(head(states, mask), nn.functional.linear(mean, head.weight, head.bias))
    nn.init.normal_(head.outer.weight, generator=seeded(3))
    assert not torch.allclose(head(states, mask), nn.functional.linear(mean, head.weight, head.bias))


def test_padding_and_the_order_of_tokens_change_no_logit_and_a_row_without_tokens_scores_the_biases() -> None:
    states, mask = tokens()
    head = head_of()
    longer = torch.cat([torch.full((5, 3, WIDTH), torch.inf, dtype=torch.float64), states], 1)
    shown = torch.cat([torch.zeros(5, 3, dtype=torch.bool), mask], 1)
    torch.testing.assert_close(head(longer, shown), head(states, mask))
    order = torch.tensor([4, 0, 3, 5, 1, 2])
    torch.testing.assert_close(head(states[:, order], mask[:, order]), head(states, mask))
    head(states, torch.zeros_like(mask)).sum().backward()
    torch.testing.assert_close(head(states, torch.zeros_like(mask)), head.bias.expand(5, -1))
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in head.parameters())
    assert head(states[:0], mask[:0]).shape == (0, LABELS)


def test_every_weight_of_label_attention_learns_from_finite_gradients_beside_padding() -> None:
    states, mask = tokens()
    given = states.clone().requires_grad_()
    head = head_of()
    head(given, mask).square().sum().backward()
    assert given.grad is not None
    assert bool((given.grad[~mask] == 0).all())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters() if p.ndim > 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LabelAttention(0, 3, generator=seeded()), "width"),
        (lambda: LabelAttention(4, 0, generator=seeded()), "num_labels"),
        (lambda: LabelAttention(4, 3, 0, generator=seeded()), "expansion"),
        (lambda: LabelAttention(4, 3, label_embeddings=torch.zeros(2, 5), generator=seeded()), r"\[3, e\]"),
        (lambda: head_of()(torch.zeros(2, 5), torch.ones(2, 5, dtype=torch.bool)), r"\[B, L, 4\]"),
        (lambda: head_of()(torch.zeros(2, 5, 4), torch.ones(2, 5)), "true for real tokens"),
        (lambda: label_margins(torch.tensor([-1, 2])), "counts"),
        (lambda: label_margins(torch.ones(2, 2)), "counts"),
        (lambda: label_margins(torch.ones(2), strength=-1.0), "strength"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, words: str) -> None:
    with pytest.raises(MarginsError, match=words):
        make()


# --- margins of labels ---------------------------------------------------------------------------------


def test_margins_fall_with_the_fourth_root_of_the_count() -> None:
    counts = torch.tensor([0, 1, 16, 81, 10_000])
    expected = torch.tensor([3.0, 3.0, 1.5, 1.0, 0.3])
    torch.testing.assert_close(label_margins(counts), expected)
    np.testing.assert_allclose(label_margins(counts, strength=2.0), ldam_margins(counts, strength=2.0), 1e-6)


def _label_sets(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    scores = torch.randn(6, 5, generator=seeded(seed), dtype=torch.float64, requires_grad=True)
    sets = (torch.rand(6, 5, generator=seeded(seed + 1)) < 0.4).double()
    return scores, sets, torch.tensor([500, 90, 12, 1, 0])


@pytest.mark.parametrize("is_blockwise", [False, True])
def test_margins_on_positives_are_the_reference_under_every_evaluator(is_blockwise: bool) -> None:
    scores, sets, counts = _label_sets()
    targets = Targets.of_label_sets([row.nonzero()[:, 0].tolist() for row in sets], 5)
    targets = targets.margin(candidates=label_margins(counts).double(), on="positives")
    loss = BinaryCrossEntropy(reduction="none")
    if is_blockwise:  # scores as embeddings against unit vectors
        found = loss.on_candidates(scores, torch.eye(5).double(), targets, evaluator=Blockwise(block_size=2))
    else:
        found = loss(scores, targets)
    every, nothing = np.ones((6, 5)), np.zeros((6, 5))
    expected = multi_label_ldam(scores.detach(), sets, every > 0, every, nothing, counts=counts)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    shifted = scores.detach() - sets * label_margins(counts)
    torch.testing.assert_close(gradient, shifted.sigmoid() - sets)
    assert 3 < sets.sum() < 27, "vacuous: no positives, or nothing else"


def test_no_margin_is_binary_cross_entropy() -> None:
    scores, sets, counts = _label_sets()
    targets = Targets.of_scores(sets)
    margin = label_margins(counts, strength=0.0).double()
    found = BinaryCrossEntropy()(scores, targets.margin(candidates=margin, on="positives"))
    torch.testing.assert_close(found, nn.functional.binary_cross_entropy_with_logits(scores, sets))
    larger = label_margins(counts).double()
    assert BinaryCrossEntropy()(scores, targets.margin(candidates=larger, on="positives")) > found + 0.1


def test_scores_that_margins_train_stand_for_the_odds_that_the_documentation_says() -> None:
    score, share, delta = torch.zeros((), dtype=torch.float64, requires_grad=True), 0.2, 1.3
    for _ in range(300):
        loss = share * nn.functional.softplus(-(score - delta)) + (1 - share) * nn.functional.softplus(score)
        (slope,) = torch.autograd.grad(loss, score)
        score = (score - slope).detach().requires_grad_()
    score = score.detach()
    odds = torch.sigmoid(score) / torch.sigmoid(delta - score)
    assert float(odds) == pytest.approx(share / (1 - share), rel=1e-6)
    assert torch.sigmoid(score) > share + 0.02, "vacuous: the margin changes nothing"


def test_a_recipe_of_label_sets_sets_these_margins_and_one_of_classes_its_own() -> None:
    settings, counts = TargetSettings(class_margins=3.0), torch.tensor([81, 16])
    sets = targets_setter(settings, counts, 100)(Targets.of_label_sets([[0, 1], [1]], 2))
    margin = sets.margin_of(0, 2)
    assert margin is not None
    torch.testing.assert_close(margin, torch.tensor([[1.0, 1.5], [0.0, 1.5]]))
    classes = targets_setter(settings, counts)(Targets.of_classes(torch.tensor([0, 1]), 2))
    margin = classes.margin_of(0, 2)
    assert margin is not None
    torch.testing.assert_close(margin, torch.tensor([[2.0, 0.0], [0.0, 3.0]]))


# --- encoders that give tokens ---------------------------------------------------------------------------


def sequences(texts: list[str]) -> WordSequences:
    return word_sequences([texts], buckets=64, chars=(3, 5), max_tokens=12)


def transformer(width: int = 8) -> TransformerTextEncoder:
    return TransformerTextEncoder(
        buckets=64, max_tokens=12, width=width, depth=1, heads=2, generator=seeded()
    ).eval()


@torch.no_grad()
def test_the_mean_of_the_tokens_of_an_encoder_is_its_embedding() -> None:
    encoder, texts = transformer(), sequences(["a lost card", "", "new card now please"])
    states, mask = encoder.tokens(texts)
    assert isinstance(encoder, TokenEncoder)
    assert mask.sum(1).tolist() == [4, 1, 5]
    mean = states.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(mean, encoder(texts))
    assert encoder.tokens(texts.take(torch.zeros(0, dtype=torch.long)))[0].shape == (0, 1, 8)

    images = Images(torch.randint(256, (3, 1, 9, 5), generator=seeded(), dtype=torch.uint8))
    vit = SmallViT(size=(9, 5), patch=3, width=8, depth=1, heads=2, shift=1, generator=seeded()).eval()
    states, mask = vit.tokens(images)
    assert vit.grid == (3, 2)
    assert states.shape == (3, 6, 8)
    assert bool(mask.all())
    torch.testing.assert_close(states.mean(1), vit(images))
    assert vit.tokens(images.take(torch.zeros(0, dtype=torch.long)))[0].shape == (0, 6, 8)
    assert states.std() > 0.1


def test_a_network_gives_its_head_the_tokens_and_the_row_their_mean() -> None:
    encoder, texts = transformer(), sequences(["a lost card", "card", "new card now please"])
    network = Network(encoder, LabelAttention(8, 2, generator=seeded(1)))
    scores, embeddings = network(texts)
    torch.testing.assert_close(scores, network.head(*encoder.tokens(texts)))
    torch.testing.assert_close(embeddings, encoder(texts))
    assert torch.equal(network.embeddings(texts), embeddings)
    with pytest.raises(MarginsError, match="none with a head that reads tokens"):
        network(texts, MixingPlan(torch.tensor([1, 2, 0]), torch.full((3,), 0.5)))


def test_a_head_of_tokens_behind_an_encoder_without_them_is_refused() -> None:
    pair = PairEncoder(transformer())
    assert not isinstance(pair, TokenEncoder)
    with pytest.raises(MarginsError, match="encoder: expected one that gives tokens, for LabelAttention"):
        Network(pair, LabelAttention(32, 2, generator=seeded()))
    Network(pair, LinearHead(32, 2, generator=seeded()))


# --- recipes and trained models --------------------------------------------------------------------------

SMALL = {"name": "transformer_text", "width": 16, "depth": 1, "heads": 2, "buckets": 512}
HEAD = {"name": "label_attention"}
PLAIN = {
    "task": "label_sets", "encoder": SMALL, "head": HEAD, "metric": "macro_f1",
    "objective": {"loss": "binary_cross_entropy"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": {"name": "hashed_text"}}, "encoder: expected with head label_attention: one that gives"),
        ({"encoder": {"name": "pretrained_text", "model": "x"}}, "encoder: .*mode finetune or lora"),
        ({"encoder": {**SMALL, "pooling": "cls"}}, "encoder.pooling: .*mean.*got cls"),
        ({"mix": {"name": "feature_mixup"}}, "mix: .*none.*feature_mixup"),
        ({"evaluator": "blockwise"}, "head: expected with evaluator blockwise: linear"),
        ({"head": {"name": "concepts"}, "encoder": {"name": "tabular"}}, "with head concepts: one that"),
        ({"head": {"name": "concepts", "num_concepts": 0}}, "num_concepts"),
        (
            {"task": "matches", "metric": "map@r", "objective": {"loss": "sup_con"}},
            "task: expected with head label_attention: classes, label_sets or values",
        ),
        (
            {"objective": {"loss": "binary_focal", "targets": {"class_margins": 1.0}}},
            "class_margins: expected the loss binary_cross_entropy.*got binary_focal",
        ),
    ],
)
def test_what_does_not_go_with_a_head_of_tokens_is_told_by_the_recipe(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(MarginsError, match=words):
        validated(Recipe, {**PLAIN, **changes}, what="recipe")


PHRASES = {"rain": "heavy rain", "wind": "strong wind", "fog": "dense fog"}


def weather(num: int = 260, seed: int = 0) -> dict[str, list[str]]:
    draws = np.random.default_rng(seed)
    texts, tags = [], []
    for _ in range(num):
        labels = [label for label in PHRASES if draws.random() < 0.4]
        parts = [f"word{k}" for k in draws.integers(30, size=6)] + [PHRASES[label] for label in labels]
        texts.append(" ".join(draws.permutation(parts)))
        tags.append("|".join(labels))
    return {"text": texts, "tags": tags}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe = {
        "encoder": SMALL, "head": HEAD, "max_epochs": 12, "min_steps": 60, "batch_size": 16,
        "optimizer": {"learning_rate": 5e-3}, "objective": {"targets": {"class_margins": 1.0}},
    }  # fmt: skip
    roles = {"target": "tags", "target_kind": "label_set", "kinds": {"text": "text"}}
    return margins.train(weather(), recipe=recipe, out=tmp_path_factory.mktemp("runs") / "r", **roles)


def test_a_recipe_with_label_attention_learns_and_is_loaded_as_it_was_saved(run: Any) -> None:
    assert run.scores["report"]["macro_f1"] > 0.9
    again = margins.load(run.folder)
    rows = {"text": weather(seed=3)["text"][:40]}
    assert torch.equal(again.scores(rows), run.model.scores(rows))
    assert again.predict(rows) == run.model.predict(rows)
    assert again.embed(rows).shape == (40, 16)
    assert again.recipe.head.name == "label_attention"


def test_the_words_that_a_label_looked_at_are_told(run: Any) -> None:
    text = "word1 word2 Heavy RAIN, word3 word4"
    (row,) = attended(run.model, [text], labels=["rain", "fog"], top=None)
    assert [found.label for found in row] == ["rain", "fog"]
    for found in row:
        words = ["<start>", "word1", "word2", "heavy", "rain", "word3", "word4"]
        assert [words[place] for place in found.places] == list(found.tokens)
        assert sorted(found.places) == list(range(7))
        assert sum(found.weights) == pytest.approx(1, abs=1e-5)
        assert list(found.weights) == sorted(found.weights, reverse=True)
    (given,) = attended(run.model, [text], top=2)
    assert [found.label for found in given] == ["rain"]
    assert set(given[0].tokens) & {"heavy", "rain"}
    many = [text, "word1"] * 70  # more than one part
    assert [r[0] for r in attended(run.model, many, labels=["rain"], top=2)[::2]] == [given[0]] * 70
    with pytest.raises(MarginsError, match="did you mean rain"):
        attended(run.model, [text], labels=["rains"])
    with pytest.raises(MarginsError, match="top"):
        attended(run.model, [text], top=0)
    with pytest.raises(MarginsError, match="one with the head concepts, got one with label_attention"):
        concept_shares(run.model, [text])


def images(num: int = 60) -> pl.DataFrame:
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, size=(num, 8, 6)).astype(np.uint8)
    return pl.DataFrame(
        {
            "image": pl.Series(pixels, dtype=pl.Array(pl.UInt8, (8, 6))),
            "label": [f"k{k % 3}" for k in range(num)],
        }
    )


VIT = {"name": "small_vit", "width": 16, "depth": 1, "heads": 2, "patch": 4}


@pytest.mark.parametrize("name", [pytest.param("label_attention", marks=pytest.mark.slow), "concepts"])
def test_images_go_through_heads_of_tokens_and_out_to_other_runtimes(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    head = {"name": name, **({"num_patch_concepts": 5} if name == "concepts" else {})}
    recipe = {"encoder": VIT, "head": head, "max_epochs": 2, "min_steps": 2}
    model = margins.train(images(), target="label", recipe=recipe).model
    margins.export_onnx(model, tmp_path / "m.onnx", data=images().head(7))  # compares scores itself
    saved = margins.load(model.save(tmp_path / "m"))
    assert torch.equal(saved.scores(images()), model.scores(images()))
    if name == "label_attention":
        (row,) = attended(model, images().head(1), labels=["k1"], top=None)
        assert set(row[0].tokens) == {
            "row 1, column 1",
            "row 1, column 2",
            "row 2, column 1",
            "row 2, column 2",
        }
        return
    assert isinstance(model.network.head, ConceptHead)
    shares = concept_shares(model, images())
    assert {k: (len(v), v[0].shape) for k, v in shares.items()} == {
        "whole": (60, (10,)),
        "patches": (60, (4, 5)),
    }
    np.testing.assert_allclose([s.sum() for s in shares["whole"]], 1, rtol=1e-5)


def test_pairs_of_texts_have_no_tokens_and_the_run_says_so() -> None:
    table = {"a": ["x y", "z w"] * 30, "b": ["x", "z"] * 30, "label": ["same", "other"] * 30}
    kinds: Any = {"a": "text_pair", "b": "text_pair"}
    with pytest.raises(MarginsError, match="encoder: expected one that gives tokens"):
        margins.train(table, target="label", kinds=kinds, recipe={"encoder": SMALL, "head": HEAD})


def test_settings_of_encoders_say_whether_they_build_one_with_tokens() -> None:
    assert TransformerTextSettings().has_tokens
    assert not PretrainedTextSettings(model="x").has_tokens
    assert PretrainedTextSettings(model="x", mode="lora").has_tokens
