"""The name of a run's folder where a user gives none."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


def default_folder(stem: str) -> Path:
    """Name `runs/<stem>-<UTC time stamp>`, below the current folder."""
    return Path("runs") / f"{stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
