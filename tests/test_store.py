"""A run store loses nothing that it said it had, whoever is killed and whoever else opens it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from margins.compare.kept import store_file as module
from margins.compare.kept.store import Look, Merged, RunStore, StoredTrial
from margins.compare.kept.store_file import VERSION
from margins.errors import MarginsError

DESIGN: dict[str, Any] = {"data": {"sha": "f" * 64, "rows": 100}, "recipes": ["a", "b"], "folds": 5}
OTHER_DATA = {**DESIGN, "data": {"sha": "e" * 64, "rows": 100}}

# Version 1 as files of it are, whatever the migrations say today.
VERSION_1 = """
CREATE TABLE trials (key TEXT PRIMARY KEY, spec TEXT NOT NULL, value TEXT, error TEXT, seconds REAL NOT NULL,
  host TEXT NOT NULL);
CREATE TABLE designs (sha TEXT PRIMARY KEY, json TEXT NOT NULL, opened TEXT NOT NULL);
CREATE TABLE looks (id TEXT PRIMARY KEY, design TEXT NOT NULL, what TEXT NOT NULL, time TEXT NOT NULL);
INSERT INTO trials VALUES ('k1', '{"fold":0}', '{"score":0.25}', NULL, 1.5, 'old-host');
INSERT INTO trials VALUES ('k2', '{"fold":1}', NULL, 'it broke', 0.5, 'old-host');
INSERT INTO looks VALUES ('1', 'd', '{"folds":5}', '2024-01-01T00:00:00.000000+00:00');
PRAGMA application_id = 1296519763;
PRAGMA user_version = 1;
"""


def trial(score: float = 0.5, **changes: Any) -> StoredTrial:
    given: dict[str, Any] = {
        "spec": {"fold": 0, "recipe": "a"}, "value": {"score": score}, "error": None, "seconds": 1.25,
        "peak_bytes": 1000, "where": "host",
    }  # fmt: skip
    return StoredTrial(**{**given, **changes})


def failed(text: str = "it broke") -> StoredTrial:
    return trial(value=None, error=text)


def a_store(path: Path, trials: dict[str, StoredTrial], design: dict[str, Any] = DESIGN) -> Path:
    with RunStore.open(path, design=design) as store:
        for key, each in trials.items():
            store.put(key, each)
    return path


def version_1(path: Path, design: dict[str, Any] = DESIGN) -> Path:
    text = json.dumps(design, sort_keys=True, separators=(",", ":"))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)
        db.execute("INSERT INTO designs VALUES ('s', ?, '2024')", (text,))
        db.commit()
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if ".lock" not in p.name}


def asked(path: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def child(body: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `body` with this module's helpers."""
    code = f"import os, signal, sys\nfrom pathlib import Path\nfrom test_store import *\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )  # fmt: skip


PUTS_IN_A_LOOP = """
with RunStore.open(Path(sys.argv[1]), design=DESIGN) as store:
    number = store.num_trials
    while True:
        store.put(f"k{number}", trial(number / 8, spec={"number": number, "text": "x" * 500}))
        print(number, flush=True)
        number += 1
"""


def test_what_is_put_is_there_in_the_next_process_as_it_was(tmp_path: Path):
    path = tmp_path / "deep" / "trials.db"
    with RunStore.open(path, design=DESIGN) as store:
        assert store.get("k") is None
        store.put("k", trial(1 / 3))
        store.put("other", trial(peak_bytes=None))
        store.put("failed", failed("TypeError: ü\nsecond line"))
        assert store.num_trials == 3
    with RunStore.open(path, design=DESIGN) as store:
        assert store.get("k") == trial(1 / 3)
        assert store.get("other") == trial(peak_bytes=None)
        assert store.get("failed") == failed("TypeError: ü\nsecond line")
    with RunStore.read(path) as store:
        assert store.get("k") == trial(1 / 3)
    assert sorted(p.name for p in path.parent.iterdir()) == ["trials.db", "trials.db.lock"]


def test_the_first_trial_of_a_key_stays(tmp_path: Path):
    with RunStore.open(tmp_path / "s", design=DESIGN) as store:
        store.put("k", trial(0.5))
        store.put("k", trial(0.75))
        assert store.get("k") == trial(0.5)
        assert store.num_trials == 1


def test_failed_trials_are_forgotten_so_that_they_run_again(tmp_path: Path):
    with RunStore.open(
        a_store(tmp_path / "s", {"a": trial(), "b": failed(), "c": failed()}), design=DESIGN
    ) as s:
        assert s.forget_failed() == 2
        assert (s.num_trials, s.get("a"), s.get("b")) == (1, trial(), None)
        s.put("b", trial(0.25))
        assert s.get("b") == trial(0.25)
        assert s.forget_failed() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object()])
def test_only_plain_data_with_finite_numbers_is_kept(value: object, tmp_path: Path):
    with RunStore.open(tmp_path / "s", design=DESIGN) as store:
        with pytest.raises(MarginsError, match="value: expected plain JSON data with finite numbers"):
            store.put("k", trial(value={"score": [value]}))
        with pytest.raises(MarginsError, match="spec: expected plain JSON"):
            store.put("k", trial(spec={"score": value}))
        assert store.num_trials == 0


@pytest.mark.parametrize(("value", "error"), [(None, None), ({}, "x")])
def test_a_trial_has_a_value_or_an_error(value: Any, error: Any):
    with pytest.raises(MarginsError, match="a value or an error"):
        trial(value=value, error=error)


# ---- designs and data


def test_every_design_of_the_same_data_is_recorded_once_and_shares_the_trials(tmp_path: Path):
    path = a_store(tmp_path / "s", {"k": trial()})
    turned = dict(reversed(DESIGN.items()))
    more = {**DESIGN, "folds": 10}
    shas = []
    for design in (DESIGN, turned, more, DESIGN):
        with RunStore.open(path, design=design) as store:
            shas.append(store.design)
            assert store.get("k") == trial()
    assert shas[0] == shas[1] == shas[3] != shas[2]
    rows = asked(path, "SELECT sha, json FROM designs ORDER BY opened")
    assert [json.loads(text) for _, text in rows] == [DESIGN, more]
    assert all(sha == hashlib.sha256(text.encode()).hexdigest() for sha, text in rows)


def test_other_data_are_refused_and_nothing_is_changed(tmp_path: Path):
    path = a_store(tmp_path / "s", {"k": trial()})
    before = contents(tmp_path)
    with pytest.raises(MarginsError, match="exists with other data; name another folder, or --force"):
        RunStore.open(path, design=OTHER_DATA)
    assert contents(tmp_path) == before
    with pytest.raises(MarginsError, match="'data'"):
        RunStore.open(path, design={"folds": 1})


def test_force_puts_the_old_store_aside_and_never_overwrites_one(tmp_path: Path):
    path = a_store(tmp_path / "s", {"k": trial(0.1)})
    (tmp_path / "s.2.old").write_bytes(b"somebody's")
    third = {**DESIGN, "data": "third"}
    for design, score in ((OTHER_DATA, 0.2), (third, 0.3)):
        with RunStore.open(path, design=design, force=True) as store:
            assert store.num_trials == 0
            store.put("k", trial(score))
    assert (tmp_path / "s.2.old").read_bytes() == b"somebody's"
    for name, score in (("s.1.old", 0.1), ("s.3.old", 0.2), ("s", 0.3)):
        with RunStore.read(tmp_path / name) as store:
            assert store.get("k") == trial(score)
    with RunStore.open(path, design=third, force=True) as store:  # the same data: nothing to put aside
        assert store.num_trials == 1
    assert not (tmp_path / "s.4.old").exists()


def test_a_store_that_somebody_reads_is_not_put_aside_without_its_log(tmp_path: Path):
    path = a_store(tmp_path / "s", {"k": trial()})
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM trials").fetchall()
        with pytest.raises(MarginsError, match=r"locked; .*close what else has the file open"):
            RunStore.open(path, design=OTHER_DATA, force=True)
    with RunStore.open(path, design=DESIGN) as store:
        assert store.get("k") == trial()


# ---- versions


def test_a_version_1_file_is_migrated_with_its_data(tmp_path: Path):
    path = version_1(tmp_path / "s")
    with RunStore.open(path, design=DESIGN) as store:
        assert store.get("k1") == StoredTrial(
            spec={"fold": 0},
            value={"score": 0.25},
            error=None,
            seconds=1.5,
            peak_bytes=None,
            where="old-host",
        )
        assert store.get("k2").error == "it broke"
        assert store.looks() == [Look(design="d", what={"folds": 5}, time="2024-01-01T00:00:00.000000+00:00")]
        assert store.open_report("x") == 1
        store.put("k3", trial())
        assert store.get("k3").peak_bytes == 1000
    assert asked(path, "PRAGMA user_version") == [(VERSION,)]


def test_a_fresh_store_and_a_migrated_one_have_the_same_form(tmp_path: Path):
    forms = []
    for path in (version_1(tmp_path / "old"), tmp_path / "new"):
        RunStore.open(path, design=DESIGN).close()
        forms.append(
            [asked(path, f"PRAGMA table_info({t})") for t in ("trials", "designs", "looks", "openings")]
        )
    assert forms[0] == forms[1]
    assert all(forms[0])


def test_a_version_1_file_is_read_without_being_migrated(tmp_path: Path):
    path = version_1(tmp_path / "s")
    before = contents(tmp_path)
    with RunStore.read(path) as store:
        assert (store.num_trials, store.openings()) == (2, [])
    assert contents(tmp_path) == before


def test_other_data_are_refused_before_a_migration(tmp_path: Path):
    path = version_1(tmp_path / "s")
    before = contents(tmp_path)
    with pytest.raises(MarginsError, match="other data"):
        RunStore.open(path, design=OTHER_DATA)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", ["killed", "raised"])
def test_a_crash_in_the_middle_of_a_migration_leaves_version_1_whole(how: str, tmp_path: Path, monkeypatch):
    path = version_1(tmp_path / "s")
    if how == "killed":
        process = child(
            "from margins.compare.kept import store_file\n"
            "def broken(db):\n"
            "    store_file._to_version_2(db)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "store_file._MIGRATIONS = (store_file._to_version_1, broken)\n"
            "RunStore.open(Path(sys.argv[1]), design=DESIGN)", path,
        )  # fmt: skip
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    else:

        def broken(db: sqlite3.Connection) -> None:
            module._to_version_2(db)
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(module, "_MIGRATIONS", (module._to_version_1, broken))
            with pytest.raises(MarginsError, match="full"):
                RunStore.open(path, design=DESIGN)
    assert asked(path, "PRAGMA user_version") == [(1,)]
    assert "peak_bytes" not in [row[1] for row in asked(path, "PRAGMA table_info(trials)")]
    assert asked(path, "SELECT count(*) FROM trials") == [(2,)]
    with RunStore.open(path, design=DESIGN) as store:
        assert store.get("k1").value == {"score": 0.25}
        assert store.open_report("x") == 1


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_store_of_a_newer_version_is_refused_and_nothing_is_written(mode: str, tmp_path: Path):
    path = a_store(tmp_path / "s", {"k": trial()})
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.commit()
    (tmp_path / "s.lock").unlink()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    own = RunStore.open(tmp_path.parent / f"own {tmp_path.name}", design=DESIGN)
    with own:
        for use in (
            lambda: RunStore.open(path, design=DESIGN),
            lambda: RunStore.open(path, design=OTHER_DATA, force=True),
            lambda: RunStore.read(path),
            lambda: own.merge(path),
        ):
            with pytest.raises(
                MarginsError, match=r"version 2 at most, got version 3; .*nothing was changed"
            ):
                use()
            assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert list(before) == ["s"]


def test_a_newer_version_that_stands_only_in_the_log_is_refused_too(tmp_path: Path):
    path = a_store(tmp_path / "s", {"k": trial()})
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.commit()
        assert module.version_in_header(path) == VERSION
        for use in (lambda: RunStore.open(path, design=DESIGN), lambda: RunStore.read(path)):
            with pytest.raises(MarginsError, match="version 3"):
                use()


# ---- one writer


def test_a_second_writer_is_refused_with_the_first_one_s_name_and_changes_nothing(tmp_path: Path):
    path = tmp_path / "s"
    first = child(
        "with RunStore.open(Path(sys.argv[1]), design=DESIGN) as store:\n"
        "    store.put('k', trial())\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()", path,
    )  # fmt: skip
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        before = contents(tmp_path)
        with pytest.raises(MarginsError, match=f"process {first.pid} on {socket.gethostname()} writes"):
            RunStore.open(path, design=DESIGN)
        with pytest.raises(MarginsError, match="no other process writes"):
            RunStore.open(path, design=OTHER_DATA, force=True)
        assert contents(tmp_path) == before
        with RunStore.read(path) as store:  # reading needs no lock
            assert store.get("k") == trial()
    finally:
        first.kill()
        first.communicate()
    # What the killed one told is there still, and does not stand in the way.
    assert (tmp_path / "s.lock.json").exists()
    with RunStore.open(path, design=DESIGN) as store:
        assert store.get("k") == trial()
        assert json.loads((tmp_path / "s.lock.json").read_bytes())["process"] == os.getpid()


@pytest.mark.parametrize("told", [None, b"", b"[1]", b'{"process": 1}'])
def test_a_holder_that_is_not_told_is_refused_all_the_same(told: bytes | None, tmp_path: Path):
    with RunStore.open(tmp_path / "s", design=DESIGN):
        holder = tmp_path / "s.lock.json"
        holder.unlink()
        if told is not None:
            holder.write_bytes(told)
        with pytest.raises(MarginsError, match="got one that a process writes"):
            RunStore.open(tmp_path / "s", design=DESIGN)


def test_a_refused_opening_lets_the_next_one_write(tmp_path: Path):
    path = a_store(tmp_path / "s", {})
    for _ in range(2):
        with pytest.raises(MarginsError, match="other data"):
            RunStore.open(path, design=OTHER_DATA)
    RunStore.open(path, design=DESIGN).close()


def test_every_put_that_returned_survives_kill_9(tmp_path: Path):
    path, draws = tmp_path / "s", random.Random(0)
    returned = -1
    for _ in range(4):
        process = child(PUTS_IN_A_LOOP, path)
        assert process.stdout is not None
        for _ in range(draws.randrange(1, 60)):
            returned = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        lines = rest.split("\n")[:-1]  # a line without its end was not printed whole
        returned = int(lines[-1]) if lines else returned
        with RunStore.read(path) as store:
            for number in range(returned + 1):
                assert store.get(f"k{number}").spec["number"] == number
        assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    assert returned > 4
    with RunStore.open(path, design=DESIGN) as store:
        assert store.num_trials in (returned + 1, returned + 2)  # one may have been put and not told


# ---- looks and openings


def test_looks_and_openings_are_counted_across_processes(tmp_path: Path):
    path = tmp_path / "s"
    for number in (1, 2):
        with RunStore.open(path, design=DESIGN) as store:
            store.looked(store.design, {"folds": 5, "repeats": number})
            assert store.open_report("chosen: a") == number
    with RunStore.read(path) as store:
        assert [look.what for look in store.looks()] == [{"folds": 5, "repeats": n} for n in (1, 2)]
        assert {look.design for look in store.looks()} == {
            sha for (sha,) in asked(path, "SELECT sha FROM designs")
        }
        times = [time for _, time in store.openings()] + [look.time for look in store.looks()]
        assert [what for what, _ in store.openings()] == ["chosen: a"] * 2
    assert all(time.endswith("+00:00") for time in times)


def test_an_opening_is_on_the_disk_when_it_returns(tmp_path: Path):
    process = child(
        "store = RunStore.open(Path(sys.argv[1]), design=DESIGN)\n"
        "print(store.open_report('x'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "s",
    )  # fmt: skip
    assert process.communicate(timeout=60)[0] == "1\n"
    assert process.returncode == -signal.SIGKILL
    with RunStore.open(tmp_path / "s", design=DESIGN) as store:
        assert store.open_report("x") == 2


# ---- merging


def test_merging_takes_over_what_is_missing_and_is_idempotent(tmp_path: Path):
    a = a_store(tmp_path / "a", {"both": trial(0.5), "own": trial(), "clash": trial(0.1)})
    b = a_store(tmp_path / "b", {"both": trial(0.5, seconds=9.0), "new": trial(0.7), "clash": trial(0.2)})
    with RunStore.open(b, design={**DESIGN, "folds": 2}) as store:
        store.looked(store.design, {"folds": 2})
        store.open_report("b")
    with RunStore.open(a, design=DESIGN) as store:
        store.open_report("a")
        before = contents(tmp_path)["b"]
        assert store.merge(b) == Merged(added=1, same=1, different=1)
        once = list(store._db.iterdump())
        assert store.merge(b) == Merged(added=0, same=2, different=1)
        assert list(store._db.iterdump()) == once
        assert (store.get("both"), store.get("clash"), store.get("new")) == (
            trial(0.5),
            trial(0.1),
            trial(0.7),
        )
        assert [what for what, _ in store.openings()] == ["b", "a"]
        assert [look.what for look in store.looks()] == [{"folds": 2}]
        assert len(store._rows("SELECT * FROM designs")) == 2
    assert contents(tmp_path)["b"] == before


def test_the_order_of_merges_does_not_change_the_keys(tmp_path: Path):
    parts = [
        a_store(tmp_path / "1", {"a": trial(), "b": failed()}),
        a_store(tmp_path / "2", {"b": trial(0.2), "c": failed()}),
        a_store(tmp_path / "3", {"c": trial(0.3), "a": trial()}),
    ]
    found = []
    for name, order in (("x", parts), ("y", parts[::-1])):
        with RunStore.open(tmp_path / name, design=DESIGN) as store:
            for part in order:
                store.merge(part)
            found.append({key: store.get(key) for key in "abc"})
            assert store.num_trials == 3
    assert found[0] == found[1] == {"a": trial(), "b": trial(0.2), "c": trial(0.3)}


def test_a_failed_trial_never_displaces_a_finished_one_and_gives_way_to_one(tmp_path: Path):
    a = a_store(tmp_path / "a", {"x": trial(), "y": failed("own"), "z": failed("own")})
    b = a_store(tmp_path / "b", {"x": failed(), "y": trial(0.9), "z": failed("other")})
    with RunStore.open(a, design=DESIGN) as store:
        assert store.merge(b) == Merged(added=1, same=2, different=0)
        assert [store.get(key) for key in "xyz"] == [trial(), trial(0.9), failed("own")]


def test_an_older_store_is_merged_without_being_changed(tmp_path: Path):
    old = version_1(tmp_path / "old")
    before = old.read_bytes()
    with RunStore.open(tmp_path / "s", design=DESIGN) as store:
        assert store.merge(old) == Merged(added=2, same=0, different=0)
        assert store.get("k1").value == {"score": 0.25}
    assert old.read_bytes() == before
    assert not list(tmp_path.glob("old-*"))


def test_a_store_is_merged_while_another_process_writes_it(tmp_path: Path):
    with (
        RunStore.open(tmp_path / "b", design=DESIGN) as writer,
        RunStore.open(tmp_path / "a", design=DESIGN) as s,
    ):
        writer.put("k", trial())
        assert (tmp_path / "b-wal").stat().st_size
        assert s.merge(tmp_path / "b").added == 1
        writer.put("l", trial())
        assert s.merge(tmp_path / "b") == Merged(added=1, same=1, different=0)


@pytest.mark.parametrize("what", ["other data", "missing", "broken"])
def test_what_cannot_be_merged_is_refused_and_changes_nothing(what: str, tmp_path: Path):
    other = tmp_path / "b"
    if what == "other data":
        a_store(other, {"k": trial()}, OTHER_DATA)
    elif what == "broken":
        other.write_bytes(b"no database" * 100)
    with RunStore.open(tmp_path / "a", design=DESIGN) as store:
        before = list(store._db.iterdump())
        with pytest.raises(MarginsError, match=str(other)):
            store.merge(other)
        assert list(store._db.iterdump()) == before
    assert other.exists() == (what != "missing")


# ---- what the disk does


@pytest.mark.parametrize("damage", ["text", "short", "cut", "overwritten", "another database"])
def test_a_broken_file_is_told_in_one_line_and_left_as_it_is(damage: str, tmp_path: Path):
    path = a_store(tmp_path / "s", {f"k{n}": trial(spec={"text": "x" * 900}) for n in range(50)})
    whole = path.read_bytes()
    if damage == "another database":
        path.unlink()
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE mine (x)")
    else:
        middle = len(whole) // 2
        path.write_bytes(
            {
                "text": b"fold,score\n" * 200, "short": whole[:50], "cut": whole[: middle // 4096 * 4096],
                "overwritten": whole[:8192] + b"\x55" * 8192 + whole[16384:],
            }[damage]
        )  # fmt: skip
    damaged = path.read_bytes()
    for use in (
        lambda: RunStore.open(path, design=DESIGN),
        lambda: RunStore.open(path, design=OTHER_DATA, force=True),
        lambda: RunStore.read(path),
    ):
        with pytest.raises(MarginsError, match="expected a run store") as told:
            use()
        assert "\n" not in str(told.value)
        assert path.read_bytes() == damaged


def test_an_empty_file_is_a_new_store_to_write_and_none_to_read(tmp_path: Path):
    path = tmp_path / "s"
    path.touch()  # what a process leaves that is killed before it wrote anything
    with pytest.raises(MarginsError, match="none there"):
        RunStore.read(path)
    RunStore.open(path, design=DESIGN).close()
    with pytest.raises(MarginsError, match="none there"):
        RunStore.read(tmp_path / "missing")


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path):
    with RunStore.open(tmp_path / "s", design=DESIGN) as store:
        store.put("k", trial())
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(MarginsError, match="full; free space there"):
            store.put("big", trial(spec={"text": "x" * 100_000}))
        store._db.execute("PRAGMA max_page_count = 100000")
        store.put("l", trial())
        assert (store.num_trials, store.get("big")) == (2, None)


def test_a_store_that_is_read_cannot_be_written(tmp_path: Path):
    with RunStore.read(a_store(tmp_path / "s", {"k": trial()})) as store:
        for write in (lambda: store.put("l", trial()), store.forget_failed, lambda: store.open_report("x")):
            with pytest.raises(MarginsError, match="this process may write"):
                write()
        assert store.num_trials == 1


def test_a_store_is_extended_without_another_design_and_only_where_there_is_one(tmp_path: Path):
    with RunStore.open(tmp_path / "a.db", design=DESIGN) as store:
        sha = store.design
    with RunStore.extend(tmp_path / "a.db") as store:
        assert store.design == sha
        assert len(store._rows("SELECT * FROM designs")) == 1
    with pytest.raises(MarginsError, match="none there"):
        RunStore.extend(tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()


def test_a_folder_that_cannot_be_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(MarginsError, match="file"):
        RunStore.open(tmp_path / "file" / "s", design=DESIGN)


@pytest.mark.parametrize("log", [True, False], ids=["with a log", "without"])
def test_where_nobody_can_write_a_store_is_read_with_its_log(log: bool, tmp_path: Path, monkeypatch):
    path = tmp_path / "s ü?#"
    writer = RunStore.open(path, design=DESIGN)
    writer.put("k", trial())
    if not log:
        writer.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with RunStore.read(path) as store:
        assert store.get("k") == trial()
    writer.close()
