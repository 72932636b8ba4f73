"""The folder of a run: refused when in use, made late, taken away again when a run leaves it empty."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from margins.errors import MarginsError


def default_folder(stem: str) -> Path:
    """Name `runs/<stem>-<UTC time stamp>`, below the current folder."""
    return Path("runs") / f"{stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def refuse_unusable(folder: Path) -> None:
    """Refuse a folder that holds something already, or that could not be written; create nothing.

    Raises:
        MarginsError: the folder is a file, is not empty, or lies where this user may not write.
    """
    if folder.exists() and not folder.is_dir():
        raise MarginsError(
            "--out", expected="a folder", received=f"the file {folder}", fix="name another folder"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise MarginsError(
            "--out", expected="a new or empty folder", received=f"{folder}, which holds files already",
            fix="name another folder; nothing in it was changed",
        )  # fmt: skip
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise MarginsError(
            "--out",
            expected="a folder that can be created",
            received=f"{folder}, but {existing} is not writable",
            fix="name a folder below one of your own",
        )  # fmt: skip


@contextmanager
def created(folder: Path) -> Generator[Path]:
    """Make the folder; if filling it fails, what is half-written or empty goes again."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        for partial in folder.glob("*.partial"):
            partial.unlink()
        for place in made:
            if any(place.iterdir()):
                break
            place.rmdir()
        raise
