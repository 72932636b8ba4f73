"""Divisions into roles, what they keep in balance, and rows that stand in two roles."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from margins.data import (
    Columns,
    Division,
    Frame,
    choose_columns,
    compared_how,
    divide,
    fit_coding,
    overlap,
    read_frame,
)
from margins.data.near_texts import NearTexts
from margins.errors import MarginsError
from margins.targets import Targets

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PLAIN = Columns(inputs={"x": "numeric"})


def frame_of(num: int, **columns) -> Frame:
    table = pl.DataFrame({"x": np.arange(num), **columns})
    return Frame(table=table, source="data frame", fingerprint="")


def uneven_classes(num: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.choice(6, size=num, p=[0.5, 0.25, 0.15, 0.05, 0.03, 0.02])


def of_classes(labels: np.ndarray) -> Targets:
    return Targets.of_classes(torch.from_numpy(labels), int(labels.max()) + 1)


def of_sets(num: int, num_labels: int, seed: int = 0) -> tuple[Targets, np.ndarray]:
    generator = np.random.default_rng(seed)
    share = 0.4 / np.arange(1, num_labels + 1)
    has = generator.random((num, num_labels)) < share
    rows, columns = np.nonzero(has)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num))])
    return Targets.of_label_sets((torch.from_numpy(offsets), torch.from_numpy(columns)), num_labels), has


def check_covers(division: Division, num: int) -> None:
    roles = division.roles.values()
    assert sorted(np.concatenate(list(roles)).tolist()) == list(range(num))
    for rows in roles:
        assert rows.dtype == np.int64
        assert len(rows)
        assert (np.diff(rows) > 0).all()


def test_classes_keep_their_shares_and_a_row_to_train():
    labels = np.concatenate([uneven_classes(2000), [6, 7, 7, 8, 8, 8]])
    division = divide(frame_of(2006), PLAIN, of_classes(labels), seed=0)
    check_covers(division, 2006)
    counts = np.bincount(labels)
    train, report = (np.bincount(labels[rows], minlength=9) for rows in (division.train, division.report))
    assert (train >= 1).all()
    assert train[6] == 1
    assert (np.abs(report - 0.15 * counts) <= 1).all()
    assert (np.abs(train - 0.7 * counts) <= 2).all()
    assert len(division.report) == pytest.approx(301, abs=1)


def test_a_division_follows_from_its_seed_alone():
    labels = of_classes(uneven_classes(300))
    first, again, other = (divide(frame_of(300), PLAIN, labels, seed=s) for s in (5, 5, 6))
    assert (first.report == again.report).all()
    assert (first.select == again.select).all()
    assert set(first.report) != set(other.report)


def test_label_sets_are_balanced_better_than_by_chance():
    targets, has = of_sets(3000, 40)
    division = divide(frame_of(3000), PLAIN, targets, seed=0)
    check_covers(division, 3000)
    counts = has.sum(0)
    assert counts.min() >= 10

    def distance(rows: np.ndarray) -> float:
        return float(np.abs(has[rows].sum(0) / counts - 0.15).mean())

    chance = np.random.default_rng(1).permutation(3000)[: len(division.report)]
    assert distance(division.report) < 0.5 * distance(chance)
    assert len(division.report) == pytest.approx(450, abs=30)


def test_dealing_a_label_at_once_equals_dealing_its_rows_one_by_one():
    from margins.data.strata import _dealt

    generator = np.random.default_rng(0)
    for _ in range(50):
        lack, total = generator.random(3) * 9, generator.random(3) * 99
        num = int(generator.integers(0, 12))
        left, slow = lack.copy(), np.zeros(3, int)
        for _ in range(num):
            role = int(left.argmax())
            slow[role] += 1
            left[role] -= 1
        assert _dealt(lack, total, num, generator).tolist() == slow.tolist()


def test_values_are_spread_over_their_quantiles():
    values = np.random.default_rng(0).lognormal(size=1000)
    division = divide(frame_of(1000), PLAIN, Targets.of_values(torch.from_numpy(values)), seed=0)
    check_covers(division, 1000)
    tenths = np.searchsorted(np.quantile(values, np.arange(1, 10) / 10), values)
    assert np.bincount(tenths[division.report]).tolist() == [15] * 10


@pytest.mark.parametrize("num_groups", [12, 300])
def test_no_group_is_in_two_roles_and_classes_stay_near_their_shares(num_groups: int):
    labels = uneven_classes(3000)
    groups = np.random.default_rng(2).integers(0, num_groups, 3000)
    columns = Columns(inputs={"x": "numeric"}, group="g")
    division = divide(frame_of(3000, g=groups), columns, of_classes(labels), seed=0)
    check_covers(division, 3000)
    sets = [set(groups[rows]) for rows in division.roles.values()]
    assert sum(map(len, sets)) == len(set.union(*sets)) == len(np.unique(groups))
    assert [len(r) / 3000 for r in division.roles.values()] == pytest.approx([0.7, 0.15, 0.15], abs=0.04)
    if num_groups == 300:
        share = np.bincount(labels[division.report]) / np.bincount(labels)
        assert share == pytest.approx(0.15, abs=0.04)


def test_by_time_the_oldest_rows_train_and_rows_of_one_time_stay_together():
    time = np.random.default_rng(0).integers(0, 50, 400)
    columns = Columns(inputs={"x": "numeric"}, time="t")
    division = divide(frame_of(400, t=time), columns, of_classes(uneven_classes(400)), seed=0)
    check_covers(division, 400)
    assert time[division.train].max() < time[division.select].min()
    assert time[division.select].max() < time[division.report].min()
    dates = [f"20{10 + t // 12}-{1 + t % 12:02d}-01" for t in time]
    texts = divide(frame_of(400, t=dates), columns, of_classes(uneven_classes(400)), seed=0)
    assert (texts.report == division.report).all()


def test_the_split_column_rules_and_a_missing_role_is_drawn_from_its_training_rows():
    words = np.array(["Train", "training", "val", "dev", "test "])[np.arange(500) % 5]
    columns = Columns(inputs={"x": "numeric"}, split="s")
    labels = of_classes(uneven_classes(500))
    division = divide(frame_of(500, s=words), columns, labels, seed=0)
    check_covers(division, 500)
    assert (division.report % 5 == 4).all()
    assert len(division.select) == 200
    lacking = np.where(np.char.lower(words) == "val", "train", words)
    lacking = np.where(lacking == "dev", "train", lacking)
    drawn = divide(frame_of(500, s=lacking), columns, labels, seed=0)
    assert (drawn.report == division.report).all()
    assert len(drawn.select) == 60
    assert [s for s in drawn.sentences if s.startswith("It has no rows for select:")]


def test_classes_without_a_training_row_are_told():
    columns = Columns(inputs={"x": "numeric"}, split="s")
    labels = of_classes(np.array([0, 1, 0, 1, 2]))
    words = ["train", "train", "val", "test", "test"]
    assert [
        s for s in divide(frame_of(5, s=words), columns, labels, seed=0).sentences if "1 of 3 classes" in s
    ]


LABELS = of_classes(np.arange(30) % 2)
BAD = [
    ({}, {"select_share": 0.0}, LABELS, "select_share: expected a share"),
    ({}, {"report_share": 0.9}, LABELS, "a sum below 1"),
    ({}, {}, of_classes(np.arange(29) % 2), "one for each of the 30 rows, got 29"),
    ({}, {}, of_classes(np.arange(30)), "none left to select and report"),
    ({"split": ["train"] * 29 + ["tset"]}, {}, LABELS, "'tset' in row 30; did you mean test?"),
    ({"split": ["train"] * 29 + [None]}, {}, LABELS, "an empty cell in row 30"),
    ({"split": ["test"] * 30}, {}, LABELS, "only report"),
    ({"group": [1] * 15 + [2] * 15}, {}, LABELS, "at least 3 groups, one for each role, got 2"),
    ({"group": [None] + [2] * 29}, {}, LABELS, "an empty cell in row 1"),
    ({"time": ["1.2.2024"] * 30}, {}, LABELS, "'1.2.2024' in rows 1"),
    ({"time": [float("nan")] * 30}, {}, LABELS, "finite numbers"),
    ({"time": [1] * 30}, {}, LABELS, "none left to select and report"),
]


@pytest.mark.parametrize(("column", "asked", "targets", "words"), BAD)
def test_rows_that_cannot_be_divided_are_refused(column, asked, targets, words: str):
    columns = Columns(inputs={"x": "numeric"}, **{role: role for role in column})
    with pytest.raises(MarginsError) as refused:
        divide(frame_of(30, **column), columns, targets, seed=0, **asked)
    assert words in str(refused.value)


WORDS = re.findall(
    r"\w+", "ask card money lost bank new old send wait pay open close help why when how much more less now"
)


def made_up_texts(num: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, 12)) + f" {generator.integers(10**9)}" for _ in range(num)]


def halves(num: int) -> Division:
    third = num // 3
    rows = np.arange(num)
    return Division(rows[:third], rows[third : 2 * third], rows[2 * third :], [])


def test_planted_exact_and_near_texts_are_found_with_their_disagreement():
    texts = made_up_texts(300, seed=0)
    texts[250] = f"  {texts[3].upper()} "
    texts[251] = texts[4] + "?"
    texts[150] = texts[5]
    frame = read_frame({"text": texts, "label": ["a", "b"] * 150})
    columns, _ = choose_columns(frame)
    found = {(o.first, o.second, o.kind): o for o in overlap(frame, columns, halves(300))}
    assert set(found) == {
        ("train", "report", "exact"),
        ("train", "report", "near"),
        ("train", "select", "exact"),
    }
    exact = found["train", "report", "exact"]
    assert (exact.pairs, exact.num_rows, exact.share, exact.num_disagreeing) == (((3, 250),), 1, 0.01, 1)
    assert found["train", "report", "near"].pairs == ((4, 251),)
    assert "rows 4 and 251" in exact.sentence
    assert "with another target" in exact.sentence


def test_near_texts_are_those_that_a_slow_search_finds():
    generator = np.random.default_rng(3)
    texts = made_up_texts(60, seed=1)
    for k in range(40, 60):  # from almost the same to rather different
        cut = list(texts[k - 40])
        for place in generator.integers(0, len(cut), 1 + k % 2):
            cut[place] = "z"
        texts[k] = "".join(cut)
    for k in range(20):  # whole texts with a rare end: all that is shared lies behind the rare beginning
        texts.append(texts[k] + "qxjvwkyzb"[: 2 + k % 7])
    frame = read_frame({"text": texts, "label": ["a", "b"] * 40})
    columns, _ = choose_columns(frame)
    division = Division(np.arange(40), np.arange(40, 60), np.arange(60, 80), [])
    found = {
        o.second: o.num_rows
        for o in overlap(frame, columns, division)
        if o.kind == "near" and o.first == "train"
    }

    def grams(text: str) -> set[str]:
        framed = f" {text} "
        return {framed[k : k + 3] for k in range(len(framed) - 2)}

    sets = [grams(t) for t in texts]
    slow = [k for k in range(40, 80) if max(len(sets[k] & s) / len(sets[k] | s) for s in sets[:40]) >= 0.9]
    assert 3 < len(slow) < 37
    assert found == {"select": sum(k < 60 for k in slow), "report": sum(k >= 60 for k in slow)}


def test_disjoint_texts_and_empty_ones_do_not_fire():
    frame = read_frame({"text": made_up_texts(600, seed=2), "label": ["a", "b"] * 300})
    columns, _ = choose_columns(frame)
    assert overlap(frame, columns, halves(600)) == []


def planted(kind: str) -> tuple[dict, str]:
    rng = np.random.default_rng(0)
    if kind == "embedding":
        rows = rng.normal(size=(90, 16))
        rows[80] = rows[2] * 3  # the same direction
        return {"e": rows}, "near"
    if kind == "image":
        images = rng.integers(0, 255, (90, 5, 5, 3), dtype=np.uint8)
        images[80] = images[2]
        images[81] = images[3]
        images[81, 4, 4, 2] ^= 128
        return {"e": images}, "exact"
    numbers = rng.normal(size=90)
    numbers[80] = numbers[2]
    return {"e": numbers, "f": [k % 3 for k in range(90)]}, "exact"


@pytest.mark.parametrize("kind", ["embedding", "image", "numbers"])
def test_planted_rows_of_other_kinds_are_found_and_no_others(kind: str):
    columns, how = planted(kind)
    frame = read_frame({**columns, "label": ["a", "b"] * 45})
    chosen, _ = choose_columns(frame)
    (found,) = overlap(frame, chosen, halves(90))
    assert (found.pairs, found.kind, found.num_disagreeing) == (((2, 80),), how, 0)
    assert ("exactly only" in compared_how(chosen)) == (kind != "embedding")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_real_sets_are_divided_in_balance():
    frame = read_frame(SHARED / "goemotions" / "train.jsonl.gz")
    columns, _ = choose_columns(frame)
    targets = fit_coding(frame.table[columns.target], "label_set").targets(frame.table[columns.target])
    division = divide(frame, columns, targets, seed=0)
    positives = targets.positives()
    labels, in_report = positives.columns.numpy(), np.isin(positives.rows.numpy(), division.report)
    counts = np.bincount(labels)
    share = np.bincount(labels[in_report], minlength=28) / counts
    assert share == pytest.approx(0.15, abs=0.02)
    full = read_frame(SHARED / "clinc150" / "full.csv.gz")
    chosen, told = choose_columns(full)
    assert "target: column 'label' (151 classes)" in told
    names = fit_coding(full.table["label"], "label")
    by_split = divide(full, chosen, names.targets(full.table["label"]), seed=0)
    assert [len(r) for r in by_split.roles.values()] == [15100, 3100, 5500]


def test_a_pair_at_exactly_nine_tenths_is_near_and_one_below_is_not():
    whole = "abcdefghijklmnopqrstuvwxyz01"  # 28 trigrams; one sign more shares 27 of 30
    texts = NearTexts(pl.Series([whole, whole + "#", whole[:-1], whole[:-1] + "#"]))
    assert [p.tolist() for p in texts.pairs(np.array([0, 2]), np.array([1, 3]))] == [[0], [1]]
