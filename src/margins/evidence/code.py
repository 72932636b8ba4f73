"""Which files of code took part in a call, and whether they have changed since."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def files_used(call: Callable[[], T], roots: Iterable[Path]) -> tuple[T, set[Path]]:
    """The call's result, and the files under the roots any of whose functions ran in it.

    Code that ran when its module was imported does not count: of constants and declarations alone a file is
    not seen.

    Args:
        call: without arguments.
        roots: folders.
    """
    names: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            names.add(frame.f_code.co_filename)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        result = call()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    folders = [root.resolve() for root in roots]
    paths = {Path(name).resolve() for name in names if name.endswith(".py")}
    return result, {path for path in paths if any(path.is_relative_to(folder) for folder in folders)}


def digests(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """Twelve digits of the sha256 of each file, by its path from the root; "gone" where there is none."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        if path.exists()
        else "gone"
        for path in sorted(paths)
    }


def changed(code: Mapping[str, str], root: Path) -> list[str]:
    """The files whose digests are not those given any more."""
    now = digests([root / name for name in code], root)
    return [name for name, digest in code.items() if now[name] != digest]


def digest_of_all(folders: Iterable[Path], files: Iterable[Path] = ()) -> str:
    """One digest of every Python file below the folders, and of some files."""
    found = hashlib.sha256()
    below = [path for folder in folders for path in folder.rglob("*.py")]
    for path in sorted({*below, *files}):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]
