"""What holds for every family of encoders: state, seeds, rows that do not see each other, none and one."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders import (
    AnyEncoder,
    CombinedSettings,
    EmbeddingSettings,
    Encoder,
    EncoderSettings,
    HashedTextSettings,
    Parts,
    Settings,
    SmallResNetSettings,
    SmallViTSettings,
    TabularSettings,
    TransformerTextSettings,
    default_encoder,
)
from margins.encoders.base import generator_on
from margins.encoders.tabular import TabularPreparation
from margins.errors import MarginsError

NUM = 7
NOTES = ["the card is lost", "", "new card, please", None, "Karte weg", "card", "lost lost lost"]
TITLES = ["lost", "other", "new", "?", "lost", "lost", "new"]


def made_up_frame() -> Frame:
    r = np.random.default_rng(5)
    table = pl.DataFrame(
        {
            "age": [31.0, None, 4.0, 18.0, 77.0, 5.0, 40.0],
            "pay": r.normal(3000, 500, NUM),
            "city": ["Ulm", "Rom", None, "Ulm", "Bari", "Rom", "Ulm"],
            "note": NOTES,
            "title": TITLES,
            "scan": r.integers(0, 256, (NUM, 9, 13), dtype=np.uint8),
            "photo": r.integers(0, 256, (NUM, 12, 10, 3), dtype=np.uint8),
            "vector": r.normal(size=(NUM, 5)).astype(np.float32),
        }
    )
    return Frame(table=table, source="made up", fingerprint="0")


class Family(NamedTuple):
    settings: EncoderSettings
    inputs: dict[str, InputKind]
    width: int


TABLE: dict[str, InputKind] = {"age": "numeric", "city": "categorical", "pay": "numeric"}
PAIR: dict[str, InputKind] = {"note": "text_pair", "title": "text_pair"}
HASHED = HashedTextSettings(width=8, buckets=512)
TRANSFORMER = TransformerTextSettings(width=8, heads=2, buckets=128, max_tokens=6)
RESNET = SmallResNetSettings(width=8, channels=8)
VIT = SmallViTSettings(width=8, heads=2, depth=1)
SMALL_PARTS: dict[str, Any] = {
    "width": 8,
    "tabular": TabularSettings(width=8),
    "text": HASHED,
    "image": RESNET,
}
FAMILIES = {
    "tabular": Family(TabularSettings(width=8), TABLE, 8),
    "tabular without numbers": Family(TabularSettings(width=8, depth=1), {"city": "categorical"}, 8),
    "hashed text": Family(HASHED, {"note": "text"}, 8),
    "hashed texts": Family(HASHED, {"note": "text", "title": "text"}, 8),
    "hashed pair": Family(HASHED, PAIR, 32),
    "transformer": Family(TRANSFORMER, {"note": "text", "title": "text"}, 8),
    "transformer pair": Family(TRANSFORMER, PAIR, 32),
    "transformer, layers": Family(TRANSFORMER.model_copy(update={"pooling": "layers"}), {"note": "text"}, 8),
    "transformer, attention": Family(
        TRANSFORMER.model_copy(update={"pooling": "attention"}), {"note": "text"}, 8
    ),
    "resnet": Family(RESNET, {"scan": "image"}, 8),
    "resnet in colour": Family(RESNET, {"photo": "image"}, 8),
    "vit": Family(VIT, {"photo": "image"}, 8),
    "embeddings": Family(EmbeddingSettings(), {"vector": "embedding"}, 5),
    "deep embeddings": Family(EmbeddingSettings(depth=2, width=8), {"vector": "embedding"}, 8),
    "combined": Family(
        CombinedSettings(**SMALL_PARTS),
        {**TABLE, "note": "text", "photo": "image", "vector": "embedding"},
        8,
    ),
    "combined with a pair": Family(
        CombinedSettings(**(SMALL_PARTS | {"text": TRANSFORMER, "image": VIT})), {**PAIR, "age": "numeric"}, 8
    ),
}
every_family = pytest.mark.parametrize("name", list(FAMILIES))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fitted(name: str, seed: int = 0) -> tuple[Encoder[Any], Any, Any]:
    """An encoder in evaluation mode, the preparation and the inputs of all rows."""
    settings, columns, _ = FAMILIES[name]
    preparation = settings.prepare(made_up_frame(), columns)
    inputs = preparation(made_up_frame())
    encoder = settings.build(preparation, generator=seeded(seed))
    encoder.fit(inputs)
    return encoder.eval(), preparation, inputs


@every_family
def test_state_and_data_in_a_fresh_object_give_the_same_embeddings(name: str):
    encoder, preparation, inputs = fitted(name)
    data = json.loads(json.dumps(preparation.to_data()))
    adapter: TypeAdapter[Any] = TypeAdapter(AnyEncoder)
    settings = adapter.validate_json(adapter.dump_json(FAMILIES[name].settings))
    assert settings == FAMILIES[name].settings
    restored = settings.restore(data)
    fresh = settings.build(restored, generator=seeded(9)).eval()
    expected, again = encoder(inputs), restored(made_up_frame())
    if encoder.state_dict():
        assert not torch.equal(fresh(again), expected)
    fresh.load_state_dict(encoder.state_dict())
    assert torch.equal(fresh(again), expected)
    assert expected.shape == (NUM, FAMILIES[name].width)
    assert encoder.width == fresh.width == FAMILIES[name].width


@every_family
def test_two_builds_from_one_seed_are_equal_bit_for_bit_and_the_global_generator_rests(name: str):
    before = torch.get_rng_state()
    one, _, inputs = fitted(name)
    same, _, _ = fitted(name)
    one.train()
    same.train()
    assert torch.equal(one(inputs), same(inputs))  # what is left out in training is drawn alike too
    assert torch.equal(torch.get_rng_state(), before)
    other, _, _ = fitted(name, seed=1)
    if name != "embeddings":
        assert not torch.equal(other(inputs), one.eval()(inputs))
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])


@every_family
@torch.no_grad()
def test_rows_do_not_see_each_other_and_none_or_one_are_rows_too(name: str):
    encoder, preparation, inputs = fitted(name)
    together = encoder(inputs)
    assert torch.isfinite(together).all()
    for row in range(NUM):
        alone = encoder(inputs.take(torch.tensor([row])))
        assert torch.allclose(alone[0], together[row], atol=1e-5), row
    none = inputs.take(torch.zeros(0, dtype=torch.int64))
    assert encoder(none).shape == (0, encoder.width)
    assert encoder.train()(none).shape == (0, encoder.width)
    assert len(none) == 0
    empty_frame = made_up_frame().take(torch.zeros(0, dtype=torch.int64))
    assert encoder(preparation(empty_frame)).shape == (0, encoder.width)


@every_family
@torch.no_grad()
def test_taking_and_moving_rows_gives_the_rows_of_a_smaller_frame(name: str):
    encoder, preparation, inputs = fitted(name)
    rows = torch.tensor([3, 0, 3, 6])
    taken = inputs.take(rows).to("cpu")
    assert len(taken) == 4
    assert len(inputs) == NUM
    assert torch.allclose(encoder(taken), encoder(preparation(made_up_frame().take(rows))), atol=1e-5)
    assert torch.allclose(encoder(taken), encoder(inputs)[rows], atol=1e-5)


@every_family
def test_every_parameter_learns(name: str):
    encoder, _, inputs = fitted(name)
    embedded = encoder.train()(inputs)
    if not list(encoder.parameters()):
        return
    (embedded * torch.randn(embedded.shape, generator=seeded(3))).sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@torch.no_grad()
def test_every_part_of_a_combined_encoder_is_seen():
    encoder, _, inputs = fitted("combined")
    turned = inputs.take(torch.arange(NUM).flip(0))
    assert set(inputs.parts) == {"tabular", "text", "image", "embeddings"}
    for name in inputs.parts:
        mixed = Parts({**inputs.parts, name: turned.parts[name]})
        assert not torch.allclose(encoder(mixed), encoder(inputs), atol=1e-4), name


@pytest.mark.parametrize("name", ["tabular", "transformer", "resnet", "combined"])
def test_inputs_are_left_as_they_were(name: str):
    encoder, preparation, inputs = fitted(name)
    frame = made_up_frame()
    copy = preparation(made_up_frame())
    encoder.train()(inputs)
    encoder.fit(inputs)
    preparation(frame)
    assert frame.table.equals(made_up_frame().table)
    assert torch.equal(encoder.eval()(inputs), encoder(copy))


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        ({"a": "numeric"}, "tabular"),
        ({"a": "numeric", "b": "categorical"}, "tabular"),
        ({"a": "text", "b": "text"}, "hashed_text"),
        ({"a": "text_pair", "b": "text_pair"}, "hashed_text"),
        ({"a": "image"}, "small_resnet"),
        ({"a": "embedding"}, "embeddings"),
        ({"a": "text", "b": "numeric"}, "combined"),
        ({"a": "text", "b": "text_pair", "c": "text_pair"}, "combined"),
        ({"a": "image", "b": "embedding"}, "combined"),
    ],
)
def test_the_default_encoder_follows_from_the_kinds_alone(inputs: dict[str, InputKind], name: str):
    assert default_encoder(inputs).name == name


def test_no_column_has_no_encoder():
    with pytest.raises(MarginsError, match="at least one column"):
        default_encoder({})


@pytest.mark.parametrize(
    ("settings", "inputs", "words"),
    [
        (TabularSettings(), {"note": "text"}, ("numeric or categorical", "note (text)", "combined")),
        (TabularSettings(), {}, ("inputs", "none")),
        (HASHED, {"age": "numeric"}, ("text or text_pair", "age (numeric)")),
        (HASHED, {"note": "text_pair"}, ("two columns of kind text_pair", "note (text_pair)")),
        (TRANSFORMER, {**PAIR, "city": "text"}, ("two columns", "city (text)", "side by side")),
        (RESNET, {"scan": "image", "photo": "image"}, ("one column of images", "scan, photo")),
        (EmbeddingSettings(), {"note": "text"}, ("embedding", "note (text)")),
        (HASHED, {"noet": "text"}, ("'noet'", "did you mean note?", "made up")),
        (HASHED, {"vector": "text"}, ("column 'vector'", "text", "Array")),
        (TabularSettings(), {"city": "numeric"}, ("column 'city'", "numbers", "String")),
        (TabularSettings(), {"vector": "categorical"}, ("column 'vector'", "categories")),
        (EmbeddingSettings(), {"age": "embedding"}, ("column 'age'", "vectors", "Float64")),
        (RESNET, {"vector": "image"}, ("column 'vector'", "paths of images")),
        (
            RESNET.model_copy(update={"size": (0, 3)}),
            {"scan": "image"},
            ("size", "at least 1", "(0, 3)"),
        ),
        (
            TRANSFORMER.model_copy(update={"chars": (4, 3)}),
            {"note": "text"},
            ("chars", "1 <= shortest"),
        ),
    ],
)
def test_columns_that_an_encoder_cannot_read_are_refused(
    settings: EncoderSettings, inputs: dict[str, InputKind], words: tuple[str, ...]
):
    with pytest.raises(MarginsError) as refused:
        settings.prepare(made_up_frame(), inputs)
    for word in words:
        assert word in str(refused.value)


def test_wrong_settings_are_told_by_name_alone_nested_and_in_data():
    with pytest.raises(MarginsError, match="width: expected greater than or equal to 1, got 0"):
        TabularSettings(width=0)
    with pytest.raises(MarginsError, match=r"text\.hashed_text\.widht: .* did you mean width"):
        CombinedSettings(text={"name": "hashed_text", "widht": 3})  # type: ignore[arg-type]
    with pytest.raises(MarginsError, match="width, heads: expected a width that the heads divide"):
        Family(TransformerTextSettings(width=9, heads=2), {"note": "text"}, 9).settings.build(
            TRANSFORMER.prepare(made_up_frame(), {"note": "text"}), generator=seeded()
        )
    with pytest.raises(ValidationError, match="'tab' found using 'name'"):
        TypeAdapter(AnyEncoder).validate_python({"name": "tab"})
    with pytest.raises(MarginsError, match="vocabularies"):
        TabularPreparation.from_data({"numeric": [], "with_gaps": []})


def test_settings_cannot_be_changed_after_they_are_made():
    class Size(Settings):
        width: int = 3

    size = Size()
    with pytest.raises(ValidationError, match="frozen"):
        size.width = 4


def test_a_combined_preparation_needs_its_settings_to_be_restored():
    _, preparation, _ = fitted("combined")
    with pytest.raises(MarginsError, match=r"CombinedSettings\.restore"):
        type(preparation).from_data(preparation.to_data())
    with pytest.raises(MarginsError, match="'sound'"):
        CombinedSettings().restore({"sound": {}})


def test_a_generator_serves_its_own_device_itself():
    generator = seeded()
    assert generator_on(torch.device("cpu"), generator) is generator
