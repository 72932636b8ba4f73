"""The file of a run store: its form and how older forms become it, its lock, and what is refused."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

from margins.errors import MarginsError
from margins.training.checkpoint import write_atomically

_APPLICATION = 0x4D475253  # in the header of every run store, so that no other database is taken for one


def _to_version_1(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(
        "CREATE TABLE trials (key TEXT PRIMARY KEY, spec TEXT NOT NULL, value TEXT, error TEXT,"
        " seconds REAL NOT NULL, host TEXT NOT NULL)"
    )
    db.execute("CREATE TABLE designs (sha TEXT PRIMARY KEY, json TEXT NOT NULL, opened TEXT NOT NULL)")
    db.execute(
        "CREATE TABLE looks (id TEXT PRIMARY KEY, design TEXT NOT NULL, what TEXT NOT NULL,"
        " time TEXT NOT NULL)"
    )


def _to_version_2(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE trials ADD COLUMN peak_bytes INTEGER")
    db.execute("CREATE TABLE openings (id TEXT PRIMARY KEY, what TEXT NOT NULL, time TEXT NOT NULL)")


# In order; a new form of the file is a function more, and those that stand here are never changed.
_MIGRATIONS = (_to_version_1, _to_version_2)
VERSION = len(_MIGRATIONS)


def connected(path: Path, mode: str) -> sqlite3.Connection:
    """The file as it lies there, its transactions begun and ended by whoever asks."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)


@contextmanager
def transaction(db: sqlite3.Connection) -> Generator[None]:
    """All inside is written, or nothing is."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk ends it by itself
            db.execute("ROLLBACK")
        raise


def migrate(db: sqlite3.Connection) -> None:
    """Each step whole or not at all."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for number, step in enumerate(_MIGRATIONS[version:], version + 1):
        with transaction(db):
            step(db)
            db.execute(f"PRAGMA user_version = {number}")


def data_of(db: sqlite3.Connection) -> str | None:
    """What identifies the data; None before a design is there."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'designs'").fetchone():
        return None
    row = db.execute("SELECT json FROM designs LIMIT 1").fetchone()
    return None if row is None else plain_json("design", json.loads(row[0])["data"])


def put_aside(path: Path, db: sqlite3.Connection, *, force: bool) -> None:
    """Gives a store of other data another name, if that is wanted."""
    if not force:
        raise MarginsError(
            str(path), expected="a run folder of the same data", received="one that exists with other data",
            fix="name another folder, or --force to put the old store aside and begin anew",
        )  # fmt: skip
    db.execute("PRAGMA journal_mode = DELETE")  # all of it is in the one file then; fails while others read
    db.close()
    names = (path.with_name(f"{path.name}.{number}.old") for number in count(1))
    path.rename(next(name for name in names if not name.exists()))


def copy_of(path: Path) -> sqlite3.Connection:
    """A store as it is at this moment, in memory and in the form of this version."""
    version = version_in_header(path)
    refuse_newer(path, version)
    if not version:
        raise MarginsError(str(path), expected="a run store", received="none there", fix="check the path")
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    # Opened to write, SQLite tidies up behind itself. Where nobody can write, a log counts if it is there.
    mode = "rw" if writable else "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with told(path):
            with closing(connected(path, mode)) as db:
                check(path, db)
                db.backup(copy)
            migrate(copy)
    except BaseException:
        copy.close()
        raise
    return copy


def plain_json(argument: str, value: object) -> str:
    """One text for equal data, whatever the order of their keys."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MarginsError(
            argument, expected="plain JSON data with finite numbers", received=str(error)
        ) from None


def version_in_header(path: Path) -> int:
    """As it stands in the file, which is only read: SQLite itself would leave files beside one of its own."""
    with told(path):
        if not path.exists():
            return 0
        with path.open("rb") as file:
            header = file.read(100)
    if header and not (len(header) == 100 and header.startswith(b"SQLite format 3\0")):
        raise _broken(path, "no SQLite file")
    return int.from_bytes(header[60:64], "big")


def refuse_newer(path: Path, version: int) -> None:
    """Raises MarginsError for a file that this version cannot know."""
    if version > VERSION:
        raise MarginsError(
            str(path), expected=f"a run store of version {VERSION} at most", received=f"version {version}",
            fix="use the newer margins that wrote it; nothing was changed",
        )  # fmt: skip


def check(path: Path, db: sqlite3.Connection) -> None:
    """Refuses a newer version, a database of something else, and a file of which parts are missing."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (num_tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != (_APPLICATION if version else 0) or (num_tables and not version):
        raise _broken(path, "a database of something else")
    refuse_newer(path, version)
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise _broken(path, found)


def _broken(path: Path, reason: object) -> MarginsError:
    what = " ".join(str(reason).split())
    return MarginsError(
        str(path), expected="a run store", received=f"a file that is broken or of another kind ({what})",
        fix="put a copy of it back or name another folder; nothing was changed",
    )  # fmt: skip


@contextmanager
def told(path: Path) -> Generator[None]:
    """What the disk or the file does not allow, in one line."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise MarginsError(
            str(path), expected="a disk with room, that this process may write", received=str(error),
            fix="free space there, close what else has the file open, or name another folder",
        ) from None  # fmt: skip
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise  # not the file, but the call
        raise _broken(path, error) from None


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One writer at a time, by a lock on a file beside it that the system releases however the holder ends.

    Who holds it stands in a file of its own, which tells and does not lock.
    """
    holder = path.with_name(f"{path.name}.lock.json")
    lock = sqlite3.connect(path.with_name(f"{path.name}.lock"), timeout=0, isolation_level=None)
    with closing(lock):
        try:
            lock.execute("PRAGMA journal_mode = MEMORY")
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            raise MarginsError(
                str(path), expected="a run store that no other process writes", received=_told_by(holder),
                fix="wait until it ends or name another folder; nothing was changed",
            ) from None  # fmt: skip
        write_atomically(holder, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink()


def _told_by(holder: Path) -> str:
    try:
        told = json.loads(holder.read_text(encoding="utf-8"))
        return f"one that process {told['process']} on {told['host']} writes"
    except (OSError, ValueError, LookupError, TypeError):
        return "one that a process writes"
