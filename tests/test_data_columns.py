"""The roles of columns, and targets as codings: what is guessed, what is asked, what is refused."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch

from margins.data import (
    ClassCoding,
    Columns,
    LabelSetCoding,
    PathCoding,
    ValueCoding,
    choose_columns,
    coding_from_data,
    fit_coding,
    read_frame,
    weights,
)
from margins.errors import MarginsError

NUM = 60


def sentences() -> list[str]:
    return [f"this is the sentence of number {k}" for k in range(NUM)]


def cells(**columns):
    """A frame of sixty rows whose columns look like what they are named after."""
    made = {
        "text": sentences(), "note": [s.upper() for s in sentences()], "size": [k / 7 for k in range(NUM)],
        "count": [k % 7 for k in range(NUM)], "colour": ["red", "green", "blue"] * (NUM // 3),
        "code": [f"x-{k}" for k in range(NUM)], "number": list(range(NUM)), "label": ["a", "b"] * (NUM // 2),
        "labels": [["a"], []] * (NUM // 2), "embedding": np.random.default_rng(0).normal(size=(NUM, 3)),
        "image": [f"{k}.png" for k in range(NUM)], "none": [None] * NUM,
    }  # fmt: skip
    return read_frame({name: made[kind] if isinstance(kind, str) else kind for name, kind in columns.items()})


GUESSED = [
    ({"text": "text", "label": "label"}, {"text": "text"}, "label", "label"),
    ({"anything": "text", "topic": "label"}, {"anything": "text"}, "topic", "label"),
    ({"a": "size", "b": "count", "c": "colour", "y": "label"},
     {"a": "numeric", "b": "numeric", "c": "categorical"}, "y", "label"),
    ({"e": "embedding", "labels": "labels"}, {"e": "embedding"}, "labels", "label_set"),
    ({"file": "image", "class": "count"}, {"file": "image"}, "class", "label"),
    ({"text": "text", "domain": "colour", "size": "size", "label": "label"},
     {"text": "text"}, "label", "label"),
    ({"x": "size", "target": "size"}, {"x": "numeric"}, "target", "value"),
    ({"x": "size", "code": "code", "number": "number", "void": "none", "y": "label"},
     {"x": "numeric"}, "y", "label"),
    ({"a": "text", "b": "note"}, {"a": "text_pair", "b": "text_pair"}, None, None),
    ({"x": "size", "y": ["a|b", "c|d"] * (NUM // 2)}, {"x": "numeric"}, "y", "label_set"),
    ({"x": "size", "y": ["a > b", "a > c"] * (NUM // 2)}, {"x": "numeric"}, "y", "path"),
    ({"x": "size", "y": [True, False] * (NUM // 2)}, {"x": "numeric"}, "y", "label"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "inputs", "target", "kind"), GUESSED)
def test_what_is_beyond_doubt_is_guessed_and_told(columns, inputs, target, kind):
    chosen, told = choose_columns(cells(**columns))
    assert (dict(chosen.inputs), chosen.target, chosen.target_kind) == (inputs, target, kind)
    assert all(any(repr(name) in sentence for sentence in told) for name in columns)


def test_roles_are_guessed_by_their_exact_names_only():
    extra = {"id": "code", "split": ["train", "dev", "test"] * 20, "weight": "size", "group": "count"}
    chosen, told = choose_columns(cells(text="text", label="label", **extra))
    assert (chosen.id, chosen.split, chosen.weight, chosen.group) == ("id", "split", "weight", "group")
    assert "split: column 'split', by its name" in told
    chosen, _ = choose_columns(cells(text="text", label="label", groups="count", Weight="size"))
    assert (chosen.group, chosen.weight) == (None, None)


def test_what_the_user_names_wins():
    frame = cells(text="text", note="note", number="number", label="label", y="colour", id="code")
    chosen, _ = choose_columns(
        frame, inputs=["number", "note", "id"], target="y", kinds={"number": "categorical"}, group="label"
    )
    assert chosen.inputs == {"number": "categorical", "note": "text", "id": "text"}
    assert (chosen.target, chosen.group, chosen.id) == ("y", "label", None)
    pair, _ = choose_columns(frame, kinds={"text": "text_pair", "note": "text_pair"}, target="y")
    assert list(pair.inputs) == ["text", "note"]
    path, _ = choose_columns(cells(x="size", y=["a/b", "a/c"] * 30), target_kind="path", separator="/")
    assert (path.target_kind, path.separator) == ("path", "/")


REFUSED = [
    ({"text": "text", "label": "label", "y": "label"}, {}, "got label, y; say which with target="),
    ({"text": "text", "outcome1": "label"}, {}, "say which with target="),
    ({"a": "text", "b": "note", "y": "label"}, {}, "'a' (text), 'b' (text); say which with inputs="),
    ({"x": "size", "y": [k % 51 for k in range(NUM)]}, {}, "target_kind='label' or target_kind='value'"),
    ({"x": "size", "y": [float(k % 2) for k in range(NUM)]}, {}, "target_kind='label' or"),
    ({"x": "size", "y": ["a|b", "c", "d"] * 20}, {}, "'label' or target_kind='label_set'"),
    ({"x": "size", "y": "text"}, {}, "60 different texts in 60 rows"),
    ({"x": "size", "y": "none"}, {}, "nothing but empty ones"),
    ({"code": "code", "y": "label"}, {}, "'code': it names rows"),
    ({"none": "none", "y": "label"}, {}, "'none': it is empty"),
    ({"text": "text", "label": "label"}, {"target": "lable"}, "did you mean label?"),
    ({"text": "text", "label": "label"}, {"inputs": ["txt"]}, "did you mean text?"),
    ({"text": "text", "label": "label"}, {"weight": "w"}, "weight: expected a column"),
    ({"text": "text", "label": "label"}, {"kinds": {"t": "text"}}, "inputs: expected a column"),
    ({"text": "text", "label": "label"}, {"inputs": ["text", "label"], "target": "label"}, "only copy it"),
    ({"text": "text", "label": "label"}, {"inputs": ["text", "text"]}, "'text' twice"),
    (
        {"text": "text", "y": "label", "w": "size"},
        {"inputs": ["w"], "weight": "w"},
        "'w' for inputs and weight",
    ),
    ({"text": "text", "y": "label"}, {"target": "y", "split": "y"}, "one role"),
    (
        {"colour": "colour", "y": "label"},
        {"kinds": {"colour": "numeric"}},
        "expected numbers, got 'red' in rows",
    ),
    ({"x": "size", "y": "label"}, {"kinds": {"x": "image"}}, "expected paths of images"),
    ({"none": "none", "y": "label"}, {"inputs": ["none"]}, "nothing but empty cells"),
    ({"labels": "labels", "y": "label"}, {"inputs": ["labels"], "target": "y"}, "got lists"),
    ({"x": [1.5] * 58 + [np.nan, np.inf], "y": "label"}, {}, "finite numbers, or empty cells"),
    ({"x": "size", "y": "label", "weight": [1.0] * 59 + [-1.0]}, {}, "at least 0, got -1 in row 60"),
    ({"text": "text", "y": "label"}, {"kinds": {"text": "text_pair"}}, "two columns of kind text_pair"),
]


@pytest.mark.parametrize(("columns", "asked", "words"), REFUSED)
def test_what_is_open_or_wrong_is_refused_with_the_option_that_settles_it(columns, asked, words: str):
    with pytest.raises(MarginsError) as refused:
        choose_columns(cells(**columns), **asked)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1.0, None, 2.0], "an empty cell in row 2"),
        ([1.0, float("nan"), 2.0], "nan in row 2"),
        ([1.0, float("inf"), 2.0], "inf in row 2"),
        ([0, -1, -2], "-1 in rows 2, 3"),
        ([0, 0, 0], "0 in every row"),
        (["a", "b", "c"], "expected numbers"),
    ],
)
def test_weights_that_weigh_nothing_sensible_are_refused(given, words: str):
    with pytest.raises(MarginsError) as refused:
        weights(read_frame({"w": given}), Columns(inputs={}, weight="w"))
    assert words in str(refused.value)


def test_weights_are_the_column_in_memory_of_its_own():
    frame = read_frame({"w": [1, 0, 3]})
    found = weights(frame, Columns(inputs={}, weight="w"))
    assert found is not None
    found += 1
    assert frame.table["w"].to_list() == [1, 0, 3]
    assert weights(frame, Columns(inputs={})) is None


def test_classes_are_numbered_by_frequency_then_name_and_numbers_become_names():
    coding = fit_coding(pl.Series("y", [3, 1, 3, 2, 1, 10]), "label")
    assert coding.names == ("1", "3", "10", "2")
    targets = coding.targets(pl.Series("y", [10, 1]))
    assert targets.positives().columns.tolist() == [2, 0]
    assert [n for n in coding.notes if n.startswith("2 of 4 classes have a single row")]
    assert fit_coding(pl.Series("y", [True, False, True]), "label").names == ("true", "false")
    assert fit_coding(pl.Series("y", [1.0, 2.0, 1.0]), "label").names == ("1", "2")


def test_names_that_differ_in_case_only_are_noted():
    coding = fit_coding(pl.Series("y", ["Sport", "sport", "Sport", "sport"]), "label")
    assert [n for n in coding.notes if "'Sport' and 'sport'" in n]


@pytest.mark.parametrize(
    "given", [["a | b", "b", "", None, "b|b"], [["a", "b"], ["b"], [], None, ["b", "b"]]]
)
def test_label_sets_may_be_empty_and_count_each_label_once(given):
    coding = fit_coding(pl.Series("y", given), "label_set")
    assert coding.names == ("b", "a")
    assert "2 of 5 rows have no label." in coding.notes
    grades = coding.targets(pl.Series("y", given)).block(0, 2).grades
    assert grades.tolist() == [[1, 1], [1, 0], [0, 0], [0, 0], [1, 0]]


def test_paths_are_sets_of_the_nodes_they_pass_and_names_may_repeat_in_other_places():
    given = pl.Series("y", ["pet > dog", "pet>other", "plant > other", "pet"])
    coding = fit_coding(given, "path", separator=">")
    assert isinstance(coding, PathCoding)
    assert coding.names == ("pet", "pet > dog", "pet > other", "plant", "plant > other")
    assert coding.targets(given).block(0, 5).grades.tolist() == [
        [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 1], [1, 0, 0, 0, 0],
    ]  # fmt: skip
    assert [coding.names[k] for k in coding.leaves] == ["pet > dog", "pet > other", "plant > other"]
    lists = pl.Series("y", [["pet", "dog"], ["pet", "other"], ["plant", "other"], ["pet"]])
    assert fit_coding(lists, "path").names == coding.names


def test_values_are_standardised_by_the_training_rows_and_restored():
    given = pl.Series("y", [1.0, 3.0, 100.0])
    coding = fit_coding(given, "value", train=np.array([0, 1]))
    assert isinstance(coding, ValueCoding)
    assert (coding.mean, coding.deviation) == (2.0, 1.0)
    standard = coding.targets(given).block(0, 1).grades[:, 0]
    assert standard.tolist() == [-1.0, 1.0, 98.0]
    assert torch.equal(coding.restored(standard), torch.tensor([1.0, 3.0, 100.0]))


CODED = [
    (["a", "b", "a"], "label"), (["a|b", "b", ""], "label_set"), (["a|b", "a|c", "b"], "path"),
    ([1.5, 2.5, 4.0], "value"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kind"), CODED)
def test_a_coding_survives_json(given, kind):
    column = pl.Series("y", given)
    coding = fit_coding(column, kind)
    again = coding_from_data(json.loads(json.dumps(coding.to_data())))
    assert again == coding
    assert type(again) is type(coding)
    shape = (0, coding.num_outputs)
    assert torch.equal(
        again.targets(column).block(*shape).grades, coding.targets(column).block(*shape).grades
    )


BAD_CELLS = [
    (["a", None, " "], "label", "an empty cell in rows 2, 3"),
    (["a", "a"], "label", "'a' in every row"),
    ([["a"], ["b"]], "label", "target_kind='label_set'"),
    ([["a"], [None]], "label_set", "an empty label in row 2"),
    (["", None], "label_set", "no label in any row"),
    (["a", "a"], "label_set", "'a' in every row"),
    (["a > b", None], "path", "an empty cell in row 2"),
    (["a|b", "a||c"], "path", "an empty step in row 2"),
    (["a|b", "a|b"], "path", "in every row"),
    ([1.0, None], "value", "an empty cell in row 2"),
    ([1.0, float("nan")], "value", "nan in row 2"),
    ([1.0, 2.0, float("inf")], "value", "inf in row 3"),
    ([5.0, 5.0], "value", "5 in every row"),
    (["1", "x"], "value", "String cells"),
]


@pytest.mark.parametrize(("given", "kind", "words"), BAD_CELLS)
def test_cells_that_make_no_targets_are_refused_with_their_rows(given, kind, words: str):
    with pytest.raises(MarginsError) as refused:
        fit_coding(pl.Series("y", given), kind)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("coding", "given", "words"),
    [
        (ClassCoding(("sport", "news")), ["news", "sprot"], "'sprot' in row 2; did you mean sport?"),
        (LabelSetCoding(("joy", "anger")), ["joy", "joy|angr"], "'angr' in row 2; did you mean anger?"),
        (PathCoding.fit(pl.Series("y", ["a > b", "a > c"])), ["a > b", "a > d"], "'a > d' in row 2"),
    ],
)
def test_an_unknown_name_is_refused_with_its_row_and_the_nearest_known_one(coding, given, words: str):
    with pytest.raises(MarginsError) as refused:
        coding.targets(pl.Series("y", given))
    assert words in str(refused.value)


def test_data_of_no_known_coding_are_refused():
    with pytest.raises(MarginsError, match="kind among label"):
        coding_from_data({"kind": "labels"})
    with pytest.raises(MarginsError, match="deviation above 0"):
        coding_from_data({"kind": "value", "name": "y", "mean": 0, "deviation": 0})
