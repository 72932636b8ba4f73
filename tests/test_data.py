"""Tables from files, folds and roles: what they hold, and every way in which a file can be wrong."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from margins.data import ReportRows, SelectRows, Table, TrainRows, outer_folds, read_table, train_and_select
from margins.encoders import Numbers
from margins.errors import MarginsError

GOOD = "text,size,other,topic\nhello there,1,x,a\nbye,2.5,y,b\nhello you,-3,z,a\n"


def written(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_text_column_is_read_as_text_and_classes_are_numbered_largest_first(tmp_path: Path):
    path = written(tmp_path, GOOD)
    table = read_table(path, ["text"], "topic")
    assert (table.task, table.source, table.target) == ("text", "rows.csv", "topic")
    assert table.texts == ["hello there", "bye", "hello you"]
    assert table.numbers is None
    assert table.classes == ["a", "b"]
    assert table.labels.tolist() == [0, 1, 0]
    assert table.class_counts == {"a": 2, "b": 1}
    assert table.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.warnings == []


def test_classes_of_equal_size_are_numbered_by_name(tmp_path: Path):
    table = read_table(written(tmp_path, "x,y\n1,b\n2,a\n3,c\n4,c\n"), ["x"], "y")
    assert table.classes == ["c", "a", "b"]


def test_numeric_columns_are_read_in_the_order_asked_for(tmp_path: Path):
    table = read_table(written(tmp_path, "a,b,y\n1, 2e1,u\n-0.0,3,v\n"), ["b", "a"], "y")
    assert table.task == "numeric"
    assert table.numbers is not None
    assert table.numbers.tolist() == [[20.0, 1.0], [3.0, 0.0]]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv"])
def test_gzip_is_known_by_its_content(tmp_path: Path, name: str):
    plain = read_table(written(tmp_path, GOOD, "plain.csv"), ["text"], "topic")
    packed = read_table(written(tmp_path, gzip.compress(GOOD.encode()), name), ["text"], "topic")
    assert packed.texts == plain.texts
    assert packed.source_sha256 != plain.source_sha256


def test_quotes_line_breaks_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path):
    content = '\ufefftext,topic\r\n"one, ""two""\nthree",a\r\nÜbung,b\r\n'
    table = read_table(written(tmp_path, content), ["text"], "topic")
    assert table.texts == ['one, "two"\nthree', "Übung"]


def test_blank_rows_are_left_out_and_told(tmp_path: Path):
    table = read_table(written(tmp_path, "\nx,y\n1,a\n\n,\n2,b\n\n"), ["x"], "y")
    assert len(table) == 2
    assert any("blank rows were left out" in w for w in table.warnings)


def test_rows_with_an_empty_text_are_kept_and_counted(tmp_path: Path):
    table = read_table(written(tmp_path, 'text,y\nhi,a\n"",b\n   ,a\n'), ["text"], "y")
    assert len(table) == 3
    assert [w for w in table.warnings if "2 of 3 rows have an empty text in column 'text'" in w]


def test_a_constant_column_is_told(tmp_path: Path):
    table = read_table(written(tmp_path, "p,q,y\n1,5,a\n2,5,b\n"), ["p", "q"], "y")
    assert [w for w in table.warnings if w.endswith(": q.")]


def test_exact_inputs_number_equal_rows_alike(tmp_path: Path):
    texts = read_table(written(tmp_path, "x,y\nhi,a\nho,b\nhi,b\nHi,a\n"), ["x"], "y").exact_inputs()
    assert texts[0] == texts[2]
    assert len(set(texts.tolist())) == 3
    numbers = read_table(
        written(tmp_path, "p,q,y\n0,1,a\n-0.0,1.0,b\n1,0,a\n"), ["p", "q"], "y"
    ).exact_inputs()
    assert numbers[0] == numbers[1]
    assert len(set(numbers.tolist())) == 2


HEAD = "x,z,t,u,y\n"
BAD_FILES = {
    "empty file": ("", ["x"], "y", ("rows.csv", "an empty file")),
    "spaces only": ("\n \n", ["x"], "y", ("rows.csv", "an empty file")),
    "header only": (HEAD, ["x"], "y", ("rows.csv", "rows below the header", "only the header x, z, t, u, y")),
    "not UTF-8": (b"x,y\n1,a\n2,\xe9t\xe9\n", ["x"], "y", ("UTF-8", "0xe9 in line 3", "save the file")),
    "too many cells": ("x,y\n1,a\n1,2,a\n", ["x"], "y", ("as many in each row", "quote cells")),
    "unknown target": (HEAD + "1,2,a,b,c\n", ["x"], "Y", ("target", "'Y'", "did you mean y?", "rows.csv")),
    "unknown input": ("text,topic\nhi,a\n", ["txt"], "topic", ("input", "did you mean text?")),
    "other separator": ("text;topic\nhi;a\n", ["text"], "topic", ("input", "known: text;topic")),
    "no input": (HEAD + "1,2,a,b,c\n", [], "y", ("input", "at least one column")),
    "target among inputs": (HEAD + "1,2,a,b,c\n", ["x", "y"], "y", ("'y'", "take the target out")),
    "input twice": (HEAD + "1,2,a,b,c\n", ["x", "x"], "y", ("'x' twice",)),
    "name twice in header": ("x,x,y\n1,2,a\n3,4,b\n", ["x"], "y", ("occurs once", "'x' 2 times", "rename")),
    "one class": ("x,y\n1,a\n2,a\n", ["x"], "y", ("at least two classes", "'a' in every row")),
    "missing targets": (
        "x,y\n1,a\n2,\n3,b\n4, \n",
        ["x"],
        "y",
        ("target 'y'", "empty cell in rows 2, 4", "label or drop"),
    ),
    "not finite": ("x,y\n1,a\ninf,b\n", ["x"], "y", ("column 'x'", "'inf' in row 2", "finite number")),
    "NaN": ("x,z,y\n1,2,a\n1,2,b\n1,nan,b\n", ["x", "z"], "y", ("column 'z'", "'nan' in row 3")),
    "missing number": ("x,z,y\n1,2,a\n,2,b\n", ["x", "z"], "y", ("column 'x'", "an empty cell in row 2")),
    "word among numbers": ("x,y\n1,a\n2,b\nn/a,b\n4,a\n", ["x"], "y", ("column 'x'", "'n/a' in row 3")),
    "many wrong numbers": (
        "x,y\n" + "1,a\n" * 9 + "?,b\n" * 7,
        ["x"],
        "y",
        ("'?' in rows 10, 11, 12, 13, 14 and 2 more",),
    ),
    "text and numbers": (
        HEAD + "1,2,a,b,c\n2,3,d,e,f\n",
        ["x", "t"],
        "y",
        ("together (text: t)", "choose one"),
    ),
    "several texts": (
        HEAD + "1,2,a,b,c\n2,3,d,e,f\n",
        ["t", "u"],
        "y",
        ("several text columns (text: t, u)",),
    ),
}


@pytest.mark.parametrize("case", list(BAD_FILES))
def test_a_file_that_cannot_be_used_is_refused_with_what_where_and_how(case: str, tmp_path: Path):
    content, inputs, target, words = BAD_FILES[case]
    path = written(tmp_path, content)
    before = path.read_bytes()
    with pytest.raises(MarginsError) as refused:
        read_table(path, inputs, target)
    for word in words:
        assert word in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.csv.gz", gzip.compress(GOOD.encode() * 50)[:-20], ("cut.csv.gz", "broken", "copy it again")),
        ("bent.csv.gz", b"\x1f\x8b" + bytes(40), ("bent.csv.gz", "broken")),
        ("plain.csv.gz", GOOD.encode(), ("plain.csv.gz", "take .gz off")),
        ("void.csv.gz", b"", ("void.csv.gz", "an empty file")),
    ],
)
def test_a_gzip_file_that_cannot_be_unpacked_is_refused(name: str, content: bytes, words, tmp_path: Path):
    with pytest.raises(MarginsError) as refused:
        read_table(written(tmp_path, content, name), ["text"], "topic")
    for word in words:
        assert word in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(MarginsError, match="no such file"):
        read_table(tmp_path / "none.csv", ["x"], "y")
    with pytest.raises(MarginsError, match="a folder"):
        read_table(tmp_path, ["x"], "y")


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


def test_report_rows_count_their_openings():
    rows = ReportRows(Numbers(torch.ones(2, 1)), torch.tensor([0, 1]))
    assert rows.openings == 0
    rows.open()
    rows.open()
    assert rows.openings == 2


@pytest.mark.parametrize("role", [TrainRows, SelectRows])
def test_a_role_needs_as_many_labels_as_inputs_and_at_least_one(role):
    with pytest.raises(MarginsError, match="2 and 1"):
        role(Numbers(torch.ones(2, 1)), torch.tensor([0]))
    with pytest.raises(MarginsError, match="at least one"):
        role(Numbers(torch.ones(0, 1)), torch.tensor([], dtype=torch.int64))


def test_a_table_without_polars_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(MarginsError, match=r"polars.*pip install 'margins\[compare\]'"):
        read_table(written(tmp_path, GOOD), ["text"], "topic")


def test_the_length_of_a_table_is_its_number_of_rows():
    table = Table(
        source="s", source_sha256="0", task="text", inputs=["x"], target="y", texts=["a", "b"],
        labels=np.array([0, 1]), classes=["p", "q"],
    )  # fmt: skip
    assert len(table) == 2
