"""Tables from files, folds and roles: what they hold, and every way in which a file can be wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from margins.compare.problem.rows import ComparedRows, compared_rows
from margins.data import (
    Columns,
    Frame,
    ReportRows,
    SelectRows,
    TrainRows,
    outer_folds,
    read_frame,
    train_and_select,
)
from margins.data.row_keys import row_keys
from margins.data.splits import group_ids, outer_folds_of, train_and_select_of
from margins.encoders import Numbers
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.request import Roles

GOOD = "text,size,other,topic\nhello there,1,x,a\nbye,2.5,y,b\nhello you,-3,z,a\n"


def written(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, inputs: list[str], target: str) -> ComparedRows:
    """A file as `compare` reads it."""
    return compared_rows(read_frame(path), Roles(inputs=inputs, target=target), report_share=0)


def test_a_text_column_is_read_as_text_and_classes_are_numbered_largest_first(tmp_path: Path):
    rows = read(written(tmp_path, GOOD), ["text"], "topic")
    assert (rows.columns.inputs, rows.columns.target) == ({"text": "text"}, "topic")
    assert rows.frame.source == "rows.csv"
    assert rows.frame.table["text"].to_list() == ["hello there", "bye", "hello you"]
    assert rows.names == ["a", "b"]
    assert rows.targets.positives().columns.tolist() == [0, 1, 0]
    assert rows.class_counts == {"a": 2, "b": 1}
    assert rows.counts.tolist() == [2, 1]
    assert len(rows) == 3


def test_classes_of_equal_size_are_numbered_by_name(tmp_path: Path):
    rows = read(written(tmp_path, "x,y\n1,b\n2,a\n3,c\n4,c\n"), ["x"], "y")
    assert rows.names == ["c", "a", "b"]


def test_numeric_columns_are_read_in_the_order_asked_for(tmp_path: Path):
    rows = read(written(tmp_path, "a,b,y\n1, 2e1,u\n-0.0,3,v\n"), ["b", "a"], "y")
    assert rows.columns.inputs == {"b": "numeric", "a": "numeric"}
    assert rows.frame.only(list(rows.columns.inputs)).table.rows() == [(20.0, 1.0), (3.0, 0.0)]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv"])
def test_gzip_is_known_by_its_content(tmp_path: Path, name: str):
    plain = read(written(tmp_path, GOOD, "plain.csv"), ["text"], "topic")
    packed = read(written(tmp_path, gzip.compress(GOOD.encode()), name), ["text"], "topic")
    assert packed.frame.table.equals(plain.frame.table)
    assert packed.frame.fingerprint == plain.frame.fingerprint


def test_quotes_line_breaks_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path):
    content = '\ufefftext,topic\r\n"one, ""two""\nthree",a\r\nÜbung,b\r\n'
    rows = read(written(tmp_path, content), ["text"], "topic")
    assert rows.frame.table["text"].to_list() == ['one, "two"\nthree', "Übung"]


def test_blank_rows_are_left_out_and_told(tmp_path: Path):
    rows = read(written(tmp_path, "\nx,y\n1,a\n\n,\n2,b\n\n"), ["x"], "y")
    assert len(rows) == 2
    assert any("blank rows were left out" in note for note in rows.notes)


def test_rows_with_an_empty_text_are_kept_and_counted(tmp_path: Path):
    roles = Roles(inputs=["text"], target="y", kinds={"text": "text"})
    frame = read_frame(written(tmp_path, 'text,y\nhi,a\n"",b\n   ,a\n'))
    rows = compared_rows(frame, roles, report_share=0)
    assert len(rows) == 3
    assert [note for note in rows.notes if "2 of 3 rows have an empty text in column 'text'" in note]


def test_a_constant_column_is_told(tmp_path: Path):
    rows = read(written(tmp_path, "p,q,y\n1,5,a\n2,5,b\n"), ["p", "q"], "y")
    assert [note for note in rows.notes if note.endswith(": q.")]


def test_what_the_reader_found_odd_is_among_the_notes(tmp_path: Path):
    rows = read(written(tmp_path, "x;z;y\n1;1;a\n2;2;b\nn/a;3;b\n4;4;a\n"), ["x"], "y")
    assert any("looks numeric but row 3 holds 'n/a'; it is read as text" in note for note in rows.notes)
    assert any("separated by semicolons" in note for note in rows.notes)
    assert rows.columns.inputs["x"] != "numeric"


def test_row_keys_number_equal_rows_alike(tmp_path: Path):
    rows = read(written(tmp_path, "x,y\nhi you,a\nho you,b\nhi you,b\nHi  you,a\n"), ["x"], "y")
    keys = row_keys(rows.frame, Columns(inputs={"x": "text"}))
    assert keys[0] == keys[2] == keys[3]
    assert len(set(keys.tolist())) == 2
    rows = read(written(tmp_path, "p,q,y\n0,1.5,a\n-0.0,1.5,b\n1,0,a\n"), ["p", "q"], "y")
    keys = row_keys(rows.frame, rows.columns)
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 2


HEAD = "x,z,t,u,y\n"
BAD_FILES = {
    "empty file": ("", ["x"], "y", ("rows.csv", "an empty file")),
    "spaces only": ("\n \n", ["x"], "y", ("rows.csv", "an empty file")),
    "header only": (HEAD, ["x"], "y", ("rows.csv", "rows below the header", "only the header x, z, t, u, y")),
    "not UTF-8": (b"x,y\n1,a\n2,\xe9t\xe9\n", ["x"], "y", ("UTF-8", "0xe9 in line 3", "save the file")),
    "too many cells": (
        "x,y\n1,a\n1,2,a\n",
        ["x"],
        "y",
        ("as many cells in each row", "3 in line 3", "quote cells"),
    ),
    "unknown target": (HEAD + "1,2,a,b,c\n", ["x"], "Y", ("target", "'Y'", "did you mean y?", "rows.csv")),
    "unknown input": ("text,topic\nhi,a\n", ["txt"], "topic", ("inputs", "did you mean text?")),
    "no input": (HEAD + "1,2,a,b,c\n", [], "y", ("inputs", "at least one column")),
    "target among inputs": (HEAD + "1,2,a,b,c\n", ["x", "y"], "y", ("'y'", "take the target out")),
    "input twice": (HEAD + "1,2,a,b,c\n", ["x", "x"], "y", ("'x' twice",)),
    "name twice in header": ("x,x,y\n1,2,a\n3,4,b\n", ["x"], "y", ("occur once", "'x' 2 times", "rename")),
    "one class": ("x,y\n1,a\n2,a\n", ["x"], "y", ("at least two classes", "'a' in every row")),
    "missing targets": (
        "x,y\n1,a\n2,\n3,b\n4, \n",
        ["x"],
        "y",
        ("target 'y'", "empty cell in rows 2, 4", "label or drop"),
    ),
    "not finite": ("x,y\n1,a\ninf,b\n", ["x"], "y", ("column 'x'", "inf in row 2", "finite numbers")),
    "NaN": ("x,z,y\n1,2,a\n1,2,b\n1,nan,b\n", ["x", "z"], "y", ("column 'z'", "nan in row 3")),
    "no filled cell": ("x,z,y\n1,,a\n2,,b\n", ["x", "z"], "y", ("column 'z'", "nothing but empty cells")),
}


@pytest.mark.parametrize("case", list(BAD_FILES))
def test_a_file_that_cannot_be_used_is_refused_with_what_where_and_how(case: str, tmp_path: Path):
    content, inputs, target, words = BAD_FILES[case]
    path = written(tmp_path, content)
    before = path.read_bytes()
    with pytest.raises(MarginsError) as refused:
        read(path, inputs, target)
    for word in words:
        assert word in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "cut.csv.gz",
            gzip.compress(GOOD.encode() * 50, mtime=0)[:-20],
            ("cut.csv.gz", "broken", "copy it again"),
        ),
        ("bent.csv.gz", b"\x1f\x8b" + bytes(40), ("bent.csv.gz", "broken")),
        ("plain.csv.gz", GOOD.encode(), ("plain.csv.gz", "take .gz off")),
        ("void.csv.gz", b"", ("void.csv.gz", "an empty file")),
    ],
)
def test_a_gzip_file_that_cannot_be_unpacked_is_refused(name: str, content: bytes, words, tmp_path: Path):
    with pytest.raises(MarginsError) as refused:
        read(written(tmp_path, content, name), ["text"], "topic")
    for word in words:
        assert word in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(MarginsError, match="no such file"):
        read(tmp_path / "none.csv", ["x"], "y")
    with pytest.raises(MarginsError, match="images"):
        read(tmp_path, ["x"], "y")


def uneven_labels() -> np.ndarray:
    return np.repeat([0, 1, 2], [60, 25, 10])


def test_every_row_is_tested_once_in_each_repeat_and_never_outside_its_fold():
    folds = outer_folds(uneven_labels(), num_folds=5, num_repeats=3, seed=1)
    assert len(folds) == 15
    for repeat in range(3):
        of_repeat = [f for f in folds if f.repeat == repeat]
        assert sorted(np.concatenate([f.test for f in of_repeat])) == list(range(95))
    for fold in folds:
        assert not set(fold.test) & set(fold.outside)
        assert np.bincount(uneven_labels()[fold.test]).tolist() == [12, 5, 2]


def test_folds_follow_from_the_seed_alone_and_repeats_differ():
    first, again, other = (
        outer_folds(uneven_labels(), num_folds=5, num_repeats=2, seed=s) for s in (1, 1, 2)
    )
    assert all((a.test == b.test).all() for a, b in zip(first, again, strict=True))
    assert any((a.test != b.test).any() for a, b in zip(first, other, strict=True))
    assert any((first[k].test != first[k + 5].test).any() for k in range(5))


@pytest.mark.parametrize(
    ("labels", "asked", "words"),
    [
        ([0, 0, 1, 1], {"num_folds": 1}, ("folds", "at least 2", "got 1")),
        ([0, 0, 1, 1], {"num_folds": 2, "num_repeats": 0}, ("repeats", "at least 1", "got 0")),
        (
            [0] * 9 + [1, 1] + [2],
            {"num_folds": 3, "classes": ["a", "b", "c"]},
            ("at least 3 rows in every class", "b (2), c (1)", "fewer folds"),
        ),
        (list(range(14)), {"num_folds": 2}, ("class 0 (1)", "and 4 more")),
    ],
)
def test_folds_that_cannot_be_made_are_refused(labels: list[int], asked: dict, words: tuple[str, ...]):
    with pytest.raises(MarginsError) as refused:
        outer_folds(np.array(labels), **asked)
    for word in words:
        assert word in str(refused.value)


def test_train_and_select_share_no_row_cover_all_and_keep_every_class_in_training():
    labels = np.repeat([0, 1, 2, 3], [50, 7, 2, 1])
    train, select = train_and_select(labels, generator=np.random.default_rng(3))
    assert sorted([*train, *select]) == list(range(60))
    assert np.bincount(labels[select], minlength=4).tolist() == [10, 1, 1, 0]
    assert np.bincount(labels[train]).tolist() == [40, 6, 1, 1]


def test_train_and_select_refuse_rows_that_cannot_be_divided():
    with pytest.raises(MarginsError, match="one row a class"):
        train_and_select(np.array([0, 1]), generator=np.random.default_rng(0))
    with pytest.raises(MarginsError, match="select_share"):
        train_and_select(np.array([0, 0]), select_share=1.0, generator=np.random.default_rng(0))


def grouped() -> tuple[np.ndarray, np.ndarray]:
    """120 rows in 40 groups of three; most groups hold one class, the last class is rare."""
    groups = np.repeat(np.arange(40), 3)
    labels = np.where(groups < 24, 0, np.where(groups < 36, 1, 2))
    labels[::7] = 0
    return labels, np.random.default_rng(0).permutation(40)[groups]


def test_no_group_is_in_two_outer_folds_and_classes_stay_balanced():
    labels, groups = grouped()
    folds = outer_folds(labels, num_folds=4, num_repeats=2, seed=1, groups=groups)
    for repeat in range(2):
        of_repeat = [f for f in folds if f.repeat == repeat]
        assert sorted(np.concatenate([f.test for f in of_repeat])) == list(range(120))
    for fold in folds:
        assert not set(groups[fold.test]) & set(groups[fold.outside])
        assert sorted([*fold.test, *fold.outside]) == list(range(120))
        counts = np.bincount(labels[fold.test], minlength=3)
        assert (np.abs(counts - np.bincount(labels) / 4) <= 4).all()
    # A guard: without groups, groups are torn apart.
    torn = outer_folds(labels, num_folds=4, seed=1)[0]
    assert set(groups[torn.test]) & set(groups[torn.outside])


def test_groups_keep_together_in_train_and_select_and_every_class_trains():
    labels, groups = grouped()
    for seed in range(20):
        train, select = train_and_select(labels, generator=np.random.default_rng(seed), groups=groups)
        assert sorted([*train, *select]) == list(range(120))
        assert not set(groups[train]) & set(groups[select])
        assert set(labels[train]) == {0, 1, 2}
        assert 12 <= len(select) <= 36
    # Class 1 is in one group: it trains, whatever the draw.
    labels = np.array([0, 0, 0, 0, 1, 1])
    for seed in range(20):
        draws = np.random.default_rng(seed)
        train, select = train_and_select(labels, generator=draws, groups=np.array([0, 1, 2, 3, 4, 4]))
        assert {4, 5} <= set(train)
        assert len(select)


def test_groups_that_cannot_be_divided_are_refused():
    labels, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 3, 4])
    with pytest.raises(MarginsError, match=r"at least 3 groups in every class.*fewer in b \(2\)"):
        outer_folds(labels, num_folds=3, groups=groups, classes=["a", "b"])
    with pytest.raises(MarginsError, match="one group a class"):
        train_and_select(np.array([0, 0, 1]), generator=np.random.default_rng(0), groups=np.array([0, 0, 1]))


def test_groups_are_numbered_and_a_row_without_one_is_refused():
    frame = read_frame({"user": ["b", "a", None, "b"], "site": [3, 1, 3, 3]})
    assert group_ids(frame, Columns(inputs={}, group="site")).tolist() == [1, 0, 1, 1]
    assert group_ids(frame, Columns(inputs={})) is None
    with pytest.raises(
        MarginsError, match="group 'user': expected a value in every row, got an empty cell in row 3"
    ):
        group_ids(frame, Columns(inputs={}, group="user"))


def test_report_rows_count_their_openings():
    rows = ReportRows(Numbers(torch.ones(2, 1)), Targets.of_classes(torch.tensor([0, 1]), 2))
    assert rows.openings == 0
    rows.open()
    rows.open()
    assert rows.openings == 2


@pytest.mark.parametrize("role", [TrainRows, SelectRows])
def test_a_role_needs_as_many_labels_as_inputs_and_at_least_one(role):
    with pytest.raises(MarginsError, match="2 and 1"):
        role(Numbers(torch.ones(2, 1)), Targets.of_classes(torch.tensor([0]), 1))
    with pytest.raises(MarginsError, match="at least one"):
        role(Numbers(torch.ones(0, 1)), Targets.of_classes(torch.tensor([], dtype=torch.int64), 1))


def test_reading_without_polars_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(MarginsError, match=r"polars.*pip install 'margins\[tool\]'"):
        read(written(tmp_path, GOOD), ["text"], "topic")


def test_the_length_of_a_frame_is_its_number_of_rows():
    frame = read_frame({"x": ["a", "b"], "y": ["p", "q"]})
    assert isinstance(frame, Frame)
    assert len(frame) == 2


def label_sets(num: int = 200, num_labels: int = 6) -> Targets:
    """Sets of which label k is in about a row of 2 + k."""
    draws = np.random.default_rng(0)
    given = draws.random((num, num_labels)) < 1 / (2 + np.arange(num_labels))
    offsets = np.concatenate([[0], np.cumsum(given.sum(1))])
    return Targets.of_label_sets(
        (torch.from_numpy(offsets), torch.from_numpy(np.nonzero(given)[1])), num_labels
    )


def test_outer_folds_of_label_sets_part_the_rows_and_keep_every_label_in_balance():
    targets = label_sets()
    given = targets.positive(0, 6).numpy()
    folds = outer_folds_of(targets, num_folds=5, num_repeats=2, seed=3)
    assert len(folds) == 10
    for repeat in (folds[:5], folds[5:]):
        assert np.sort(np.concatenate([fold.test for fold in repeat])).tolist() == list(range(200))
    for fold in folds:
        assert sorted([*fold.outside, *fold.test]) == list(range(200))
        assert np.abs(given[fold.test].sum(0) - given.sum(0) / 5).max() <= 2
    torn = np.array_split(np.random.default_rng(1).permutation(200), 5)
    assert max(np.abs(given[part].sum(0) - given.sum(0) / 5).max() for part in torn) > 2, "vacuous"
    again = outer_folds_of(targets, num_folds=5, num_repeats=2, seed=3)
    assert all((a.test == b.test).all() for a, b in zip(folds, again, strict=True))
    assert any(
        (a.test != b.test).any()
        for a, b in zip(folds[:5], folds[5:], strict=True)
        if len(a.test) == len(b.test)
    )


def test_outer_folds_of_values_spread_small_and_large_ones_and_groups_stay_whole():
    values = torch.linspace(0, 1, 100)
    for fold in outer_folds_of(Targets.of_values(values), num_folds=4):
        assert len(fold.test) == 25
        assert float(values[torch.from_numpy(fold.test)].mean()) == pytest.approx(0.5, abs=0.06)
    groups = np.arange(200) // 4
    for fold in outer_folds_of(label_sets(), num_folds=4, groups=groups):
        assert not set(groups[fold.test]) & set(groups[fold.outside])
        train, select = train_and_select_of(
            label_sets().take(torch.from_numpy(fold.outside)), generator=np.random.default_rng(0),
            groups=groups[fold.outside],
        )  # fmt: skip
        assert not set(groups[fold.outside][train]) & set(groups[fold.outside][select])
        assert len(train) + len(select) == len(fold.outside)


def test_too_few_rows_or_groups_for_the_folds_are_refused_with_how_many_are_needed():
    few = label_sets(9)
    with pytest.raises(
        MarginsError, match=r"rows: expected at least 10, two for each of 5 outer folds, got 9"
    ):
        outer_folds_of(few, num_folds=5)
    with pytest.raises(MarginsError, match="groups: expected at least 10"):
        outer_folds_of(label_sets(40), num_folds=5, groups=np.arange(40) // 8)
