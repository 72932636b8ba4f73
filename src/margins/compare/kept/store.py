"""The run store: every trial of a comparison in one file that stays sound however its process ends.

SQLite with a write-ahead log and synchronous=FULL. Without the fsync of FULL a `put` that returned would
survive `kill -9`, but no power cut; it costs milliseconds where a trial takes seconds or hours.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from margins.compare.kept.store_file import (
    check,
    connected,
    copy_of,
    data_of,
    locked,
    migrate,
    plain_json,
    put_aside,
    refuse_newer,
    told,
    transaction,
    version_in_header,
)
from margins.errors import MarginsError

_TRIAL = "key, spec, value, error, seconds, peak_bytes, host"


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """One trial that ended.

    Args:
        spec: what was run, as plain JSON data.
        value: what came out, as JSON data with finite numbers; None when it failed.
        error: why it failed; None when it did not.
        seconds: it took.
        peak_bytes: of memory that its process held; None where that is not known.
        where: name of the host.

    Raises:
        MarginsError: neither a value nor an error, or both.
    """

    spec: dict[str, Any]
    value: dict[str, Any] | None
    error: str | None
    seconds: float
    peak_bytes: int | None
    where: str

    def __post_init__(self) -> None:
        if (self.value is None) == (self.error is None):
            raise MarginsError(
                "trial", expected="a value or an error", received="neither" if self.value is None else "both"
            )


@dataclass(frozen=True, kw_only=True)
class Look:
    """Results that were shown.

    Args:
        design: sha256 of the design, or the key of what was shown.
        what: it rested on, such as the numbers of folds and repeats.
        time: in UTC, ISO 8601.
    """

    design: str
    what: dict[str, Any]
    time: str


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge did with the trials of the other store.

    Args:
        added: taken over: new keys, and finished ones in place of own failed ones.
        same: nothing to take over, nothing contradicts.
        different: finished in both, with different values; the own ones stay.
    """

    added: int
    same: int
    different: int


class RunStore:
    """The trials of comparisons on the same data, by key; made by `open` or `read`, used as a context.

    A key says all that a trial depends on, so designs that differ share the trials that they have in common.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "trials.db"
        >>> trial = StoredTrial(
        ...     spec={"fold": 0}, value={"score": 0.5}, error=None, seconds=1.0, peak_bytes=None, where="here"
        ... )
        >>> with RunStore.open(path, design={"data": "a fingerprint", "folds": 5}) as store:
        ...     store.put("0123", trial)
        >>> with RunStore.read(path) as store:
        ...     store.num_trials, store.get("0123") == trial
        (1, True)
        >>> folder.cleanup()
    """

    def __init__(self, path: Path, db: sqlite3.Connection, *, held: ExitStack, design: str | None) -> None:
        self.path = path
        self.design = design  # the sha256 of the one it was opened with; None in a store that is read
        self._db = db
        self._held = held

    @classmethod
    def open(cls, path: Path, *, design: Mapping[str, Any], force: bool = False) -> Self:
        """Opens or creates a store to write; one process at a time may.

        A store of an older version is brought to this one. Another design is recorded beside those that are
        there; other data are refused.

        Args:
            path: of the file.
            design: what the comparison is, as plain JSON data; `data` in it identifies the data.
            force: puts a store of other data aside, as `<name>.<n>.old`, and begins a new one.

        Raises:
            MarginsError: other data, another writer, a newer version, a broken file, or a disk that is full
                or not to be written. What is there stays as it is.
        """
        text = plain_json("design", design)
        if "data" not in design:
            raise MarginsError("design", expected="a part 'data' that identifies the data", received="none")
        refuse_newer(path, version_in_header(path))
        with told(path), ExitStack() as held:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path))
            db = held.enter_context(closing(connected(path, "rwc")))
            check(path, db)
            if data_of(db) not in (None, plain_json("design", design["data"])):
                put_aside(path, db, force=force)
                db = held.enter_context(closing(connected(path, "rwc")))
            migrate(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            sha = hashlib.sha256(text.encode()).hexdigest()
            with transaction(db):
                db.execute("INSERT OR IGNORE INTO designs VALUES (?, ?, ?)", (sha, text, _now()))
            return cls(path, db, held=held.pop_all(), design=sha)

    @classmethod
    def extend(cls, path: Path) -> Self:
        """Opens a store that is there, to take others over; no design is added to it.

        Raises:
            MarginsError: no such file, another writer, a newer version or a broken file.
        """
        with cls.read(path) as store:
            row = store._rows("SELECT json FROM designs ORDER BY opened LIMIT 1")  # noqa: SLF001 - its own
        if not row:
            raise MarginsError(str(path), expected="a store that holds a comparison", received="an empty one")
        return cls.open(path, design=json.loads(row[0][0]))

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a store holds now, whoever writes it; nothing can be written, and no file is changed.

        Raises:
            MarginsError: no such file, a newer version or a broken file.
        """
        with ExitStack() as held:
            db = held.enter_context(closing(copy_of(path)))
            db.execute("PRAGMA query_only = ON")
            return cls(path, db, held=held.pop_all(), design=None)

    def close(self) -> None:
        """Lets the next process write; nothing can be asked any more."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def num_trials(self) -> int:
        """Trials in the store, finished and failed."""
        return self._rows("SELECT count(*) FROM trials")[0][0]

    def get(self, key: str) -> StoredTrial | None:
        """The trial of a key; None when there is none."""
        for row in self._rows(f"SELECT {_TRIAL} FROM trials WHERE key = ?", key):  # noqa: S608 - a constant
            _, spec, value, error, seconds, peak_bytes, host = row
            return StoredTrial(
                spec=json.loads(spec), value=None if value is None else json.loads(value), error=error,
                seconds=seconds, peak_bytes=peak_bytes, where=host,
            )  # fmt: skip
        return None

    def put(self, key: str, trial: StoredTrial) -> None:
        """Keeps a trial; it lies on the disk when this returns. The first one of a key stays.

        Raises:
            MarginsError: a value that is no plain JSON data with finite numbers, or a full disk.
        """
        value = None if trial.value is None else plain_json("value", trial.value)
        spec, how = (
            plain_json("spec", trial.spec),
            (trial.error, trial.seconds, trial.peak_bytes, trial.where),
        )
        with self._writing() as db:
            _insert_trial(db, "IGNORE", (key, spec, value, *how))

    def forget_failed(self) -> int:
        """Removes the failed trials, so that they run again; gives their number."""
        with self._writing() as db:
            return db.execute("DELETE FROM trials WHERE value IS NULL").rowcount

    def looked(self, design: str, what: Mapping[str, Any]) -> None:
        """Records that results were shown: repeats that are added later were added by who knew them.

        Args:
            design: its sha256, or the key of what was shown.
            what: it rested on, such as the numbers of folds and repeats, as plain JSON data.
        """
        row = (uuid.uuid4().hex, design, plain_json("what", what), _now())
        with self._writing() as db:
            db.execute("INSERT INTO looks VALUES (?, ?, ?, ?)", row)

    def looks(self) -> list[Look]:
        """All that was shown, in the order of time."""
        rows = self._rows("SELECT design, what, time FROM looks ORDER BY time, id")
        return [Look(design=design, what=json.loads(what), time=time) for design, what, time in rows]

    def open_report(self, what: str) -> int:
        """Records that report rows are about to be opened; the record lies on the disk when this returns.

        Args:
            what: they are opened for.

        Returns:
            How often they have been opened, this time included.
        """
        with self._writing() as db:
            db.execute("INSERT INTO openings VALUES (?, ?, ?)", (uuid.uuid4().hex, what, _now()))
        return self._rows("SELECT count(*) FROM openings")[0][0]

    def openings(self) -> list[tuple[str, str]]:
        """What report rows were opened for and when, in the order of time."""
        return self._rows("SELECT what, time FROM openings ORDER BY time, id")

    def merge(self, other: Path) -> Merged:
        """Takes over trials, designs, looks and openings of another store of the same data.

        All or nothing; a second time it changes nothing. The other file stays as it is.

        Raises:
            MarginsError: other data, a newer version, a broken file or none.
        """
        with closing(copy_of(other)) as theirs:
            data = data_of(theirs)
            if data not in (None, data_of(self._db)):
                raise MarginsError(
                    str(other), expected=f"a store of the data of {self.path}", received="one of other data",
                    fix="merge only stores of comparisons on the same data",
                )  # fmt: skip
            with self._writing() as db:
                for table in ("designs", "looks", "openings"):
                    _copy_rows(theirs, db, table)
                return _merge_trials(theirs, db)

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with told(self.path):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with told(self.path), transaction(self._db):
            yield self._db


def _insert_trial(db: sqlite3.Connection, otherwise: str, row: tuple[Any, ...]) -> None:
    db.execute(f"INSERT OR {otherwise} INTO trials ({_TRIAL}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608


def _merge_trials(theirs: sqlite3.Connection, db: sqlite3.Connection) -> Merged:
    counts = {"added": 0, "same": 0, "different": 0}
    for row in theirs.execute(f"SELECT {_TRIAL} FROM trials"):  # noqa: S608 - a constant
        key, _, value, *_ = row
        own = db.execute("SELECT value FROM trials WHERE key = ?", (key,)).fetchone()
        if own is None or (own[0] is None and value is not None):
            _insert_trial(db, "REPLACE", row)
            counts["added"] += 1
        else:
            counts["same" if value is None or value == own[0] else "different"] += 1
    return Merged(**counts)


def _copy_rows(theirs: sqlite3.Connection, db: sqlite3.Connection, table: str) -> None:
    for row in theirs.execute(f"SELECT * FROM {table}"):  # noqa: S608 - a name of this module
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608 - the same


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
