"""Tables with gaps and categories against slow readings of the definition, and precomputed vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from margins.data.columns import InputKind
from margins.data.frame import Frame
from margins.encoders import (
    EmbeddingSettings,
    Numbers,
    NumericEncoder,
    TabularEncoder,
    TabularRows,
    TabularSettings,
    Vectors,
)
from margins.encoders.tabular import embedding_width
from margins.errors import MarginsError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frame_of(**columns: Any) -> Frame:
    return Frame(table=pl.DataFrame(columns), source="made up", fingerprint="0")


def test_without_categories_and_gaps_it_is_the_numeric_encoder_bit_for_bit():
    r = np.random.default_rng(1)
    frame = frame_of(p=r.normal(5, 2, 40), q=r.normal(size=40), k=[7.0] * 40)
    settings = TabularSettings(width=16)
    preparation = settings.prepare(frame, {"p": "numeric", "q": "numeric", "k": "numeric"})
    rows = preparation(frame)
    ours = settings.build(preparation, generator=seeded(3))
    numeric = NumericEncoder(num_columns=3, width=16, dropout=0.2, generator=seeded(3))
    ours.fit(rows)
    numeric.fit(Numbers(rows.numbers))
    assert torch.equal(ours(rows), numeric(Numbers(rows.numbers)))  # in training, dropout too
    assert torch.equal(ours.eval()(rows), numeric.eval()(Numbers(rows.numbers)))
    assert next(iter(ours.parameters())).abs().sum() > 0


def test_a_missing_number_is_the_training_mean_and_sets_its_indicator():
    frame = frame_of(p=[1.0, None, 3.0, 8.0], q=[1, 2, 3, 4])
    settings = TabularSettings(width=8)
    preparation = settings.prepare(frame, {"p": "numeric", "q": "numeric"})
    encoder = settings.build(preparation, generator=seeded()).eval()
    rows = preparation(frame)
    encoder.fit(rows)
    assert encoder.mean.tolist() == [4.0, 2.5]
    assert float(encoder.deviation[0]) == pytest.approx(np.std([1, 3, 8]))
    first = encoder.layers[0]
    assert first.in_features == 3  # two numbers and one indicator: q has no gaps
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(rows)
    assert seen[0][:, 0].tolist()[1] == 0.0
    assert seen[0][:, 2].tolist() == [0.0, 1.0, 0.0, 0.0]
    filled = TabularRows(torch.tensor([[4.0, 2.0]]).double(), rows.categories[:1])
    assert not torch.equal(encoder(filled)[0], encoder(rows)[1])  # the mean itself is not a gap


def test_a_gap_in_a_column_without_gaps_in_training_is_refused_with_its_rows():
    settings = TabularSettings()
    preparation = settings.prepare(frame_of(p=[1.0, 2.0, 3.0]), {"p": "numeric"})
    with pytest.raises(MarginsError, match=r"column 'p'.*as in training, got none in rows 2, 3"):
        preparation(frame_of(p=[1.0, None, float("nan")]))


def test_unknown_and_missing_categories_are_one_and_known_ones_keep_their_place():
    frame = frame_of(c=["b", "a", None, "b", ""])
    settings = TabularSettings(width=8)
    preparation = settings.prepare(frame, {"c": "categorical"})
    assert preparation.vocabularies == {"c": ["a", "b"]}
    assert preparation(frame).categories[:, 0].tolist() == [2, 1, 0, 2, 0]
    new = preparation(frame_of(c=["zzz", "a", None]))
    assert new.categories[:, 0].tolist() == [0, 1, 0]
    encoder = settings.build(preparation, generator=seeded()).eval()
    embedded = encoder(new)
    assert torch.equal(embedded[0], embedded[2])
    assert not torch.equal(embedded[0], embedded[1])
    assert encoder.tables[0].weight[0].abs().sum() == 0


@pytest.mark.parametrize(
    ("trained", "later"),
    [
        ([7, 12, 7], [7.0, None, 12.0]),
        ([7.0, 12.0, None], [7, 99, 12]),
        (["7", "12", "7"], [7, 99, 12]),
        ([True, False, True], ["true", "?", "false"]),
        ([0.5, 1.0, 0.5], ["0.5", "?", "1"]),
    ],
)
def test_a_category_is_the_same_whatever_type_its_column_has(trained: list[Any], later: list[Any]):
    settings = TabularSettings()
    preparation = settings.prepare(frame_of(c=trained), {"c": "categorical"})
    first, then = (preparation(frame_of(c=cells)).categories[:, 0].tolist() for cells in (trained, later))
    assert then[0] == first[0] > 0
    assert then[1] == 0
    assert then[2] == first[1] > 0


@pytest.mark.parametrize(("num", "width"), [(1, 2), (2, 3), (10, 6), (1000, 50), (463, 50), (10**6, 50)])
def test_categories_get_the_width_of_the_formula(num: int, width: int):
    assert embedding_width(num) == width
    encoder = TabularEncoder(num_columns=0, num_categories=[num] if num < 10**5 else [2], generator=seeded())
    assert encoder.tables[0].weight.shape[0] == (num if num < 10**5 else 2) + 1


@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        ([1.0, float("inf")], "numeric", ("column 'c'", "finite", "inf in row 2")),
        ([None, None], "numeric", ("column 'c'", "at least one filled cell", "leave the column out")),
        (["", None], "categorical", ("column 'c'", "at least one filled cell")),
        (["1", "2"], "numeric", ("column 'c'", "numbers", "String")),
        ([[1.0], [2.0, 3.0]], "embedding", ("column 'c'", "one length", "[1, 2]")),
        ([[1.0], None], "embedding", ("column 'c'", "every row", "row 2")),
        ([[1.0], [float("nan")]], "embedding", ("column 'c'", "finite", "row 2")),
    ],
)
def test_cells_that_cannot_be_used_are_refused_with_column_and_row(
    column: list[Any], kind: InputKind, words: tuple[str, ...]
):
    settings = EmbeddingSettings() if kind == "embedding" else TabularSettings()
    with pytest.raises(MarginsError) as refused:
        settings.prepare(frame_of(c=column), {"c": kind})
    for word in words:
        assert word in str(refused.value)


def test_vectors_of_several_columns_are_scaled_each_by_itself_and_lie_side_by_side():
    table = pl.DataFrame(
        {"a": [[3.0, 4.0], [0.0, 0.0]], "b": [[2.0], [-5.0]]},
        schema={"a": pl.Array(pl.Float32, 2), "b": pl.List(pl.Float64)},
    )
    frame = Frame(table=table, source="made up", fingerprint="0")
    kinds: dict[str, InputKind] = {"a": "embedding", "b": "embedding"}
    preparation = EmbeddingSettings().prepare(frame, kinds)
    rows = preparation(frame)
    unit, raw = (
        EmbeddingSettings(normalise=n).build(preparation, generator=seeded())(rows) for n in (True, False)
    )
    assert torch.allclose(unit, torch.tensor([[0.6, 0.8, 1.0], [0.0, 0.0, -1.0]]))
    assert raw.tolist() == [[3.0, 4.0, 2.0], [0.0, 0.0, -5.0]]
    assert torch.equal(rows.values, raw)  # the inputs themselves stay as they were


def test_vectors_of_another_length_than_in_training_are_refused():
    preparation = EmbeddingSettings().prepare(frame_of(v=[[1.0, 2.0]]), {"v": "embedding"})
    with pytest.raises(MarginsError, match=r"column 'v'.*length 2, as in training, got length 3"):
        preparation(frame_of(v=[[1.0, 2.0, 3.0]]))


def test_vectors_are_copied_out_of_the_frame():
    frame = Frame(table=pl.DataFrame({"v": np.ones((2, 3), np.float32)}), source="made up", fingerprint="0")
    rows = EmbeddingSettings().prepare(frame, {"v": "embedding"})(frame)
    assert isinstance(rows, Vectors)
    rows.values[0, 0] = 9.0
    assert frame.table["v"].to_numpy()[0, 0] == 1.0
