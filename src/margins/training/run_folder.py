"""The folder of a training run: what lies where, and what it was asked to do."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from margins.errors import MarginsError
from margins.training.checkpoint import write_atomically

REQUEST, RECIPE, LOG, RESULTS = "run.json", "recipe.yaml", "log.jsonl", "results.json"


@dataclass(frozen=True)
class RunFolder:
    """A folder with `run.json`, `recipe.yaml`, `log.jsonl`, a checkpoint, and at last results and a model."""

    path: Path

    @classmethod
    def new(cls, path: str | Path) -> RunFolder:
        """A folder that nothing is in yet; it is made when the first file is written.

        Raises:
            MarginsError: it is a file, holds something, or lies where this user may not write.
        """
        folder = Path(path)
        refuse_unusable(folder)
        return cls(folder)

    @classmethod
    def of_run(cls, path: str | Path) -> RunFolder:
        """The folder of a run that has begun.

        Raises:
            MarginsError: no run began there.
        """
        folder = cls(Path(path))
        if not (folder.path / REQUEST).is_file():
            raise MarginsError(
                str(path), expected=f"the folder of a run, with {REQUEST}", received="none there",
                fix="name the folder that margins train wrote",
            )  # fmt: skip
        return folder

    def write_json(self, name: str, content: Any) -> None:
        """Writes plain data, whole or not at all."""
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomically(self.path / name, text.encode())

    def write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Writes rows of plain data, one line each."""
        write_atomically(self.path / name, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads plain data.

        Raises:
            MarginsError: no such file, or a broken one.
        """
        path = self.path / name
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MarginsError(str(path), expected="a file of the run", received=str(error)) from None
        return content

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / RESULTS).is_file()


def refuse_unusable(folder: Path) -> None:
    """Refuses a folder that holds something already, or that could not be written; creates nothing.

    Raises:
        MarginsError: it is a file, is not empty, or lies where this user may not write.
    """
    if folder.exists() and not folder.is_dir():
        raise MarginsError(
            "out", expected="a folder", received=f"the file {folder}", fix="name another folder"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise MarginsError(
            "out", expected="a new or empty folder", received=f"{folder}, which holds files already",
            fix="name another folder, or delete it; nothing in it was changed",
        )  # fmt: skip
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise MarginsError(
            "out", expected="a folder that can be created",
            received=f"{folder}, but {existing} is not writable", fix="name a folder below one of your own",
        )  # fmt: skip
