"""The folder of a run: refused when in use, made late, taken away again when a run leaves it empty."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path


def default_folder(stem: str) -> Path:
    """Name `runs/<stem>-<UTC time stamp>`, below the current folder."""
    return Path("runs") / f"{stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


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
