"""Vectors of texts on disk, so that a frozen model sees each text once."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from margins.errors import MarginsError

_FILE = "vectors.sqlite"
_QUERY_KEYS = 500


class VectorCache:
    """One file in a folder; a vector is found by what made it and its text.

    Several processes may use it at once. Nothing in it is ever executed: keys and float32 bytes alone.

    Args:
        folder: made when it is not there.
        maker: names the model and all that the vectors depend on.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = VectorCache(Path(folder), maker="model a")
        ...     cache.add({"hello": torch.tensor([1.0, 2.0])})
        ...     found = VectorCache(Path(folder), maker="model a").find(["hello", "new"])
        ...     other = VectorCache(Path(folder), maker="model b").find(["hello"])
        >>> found, other
        ({'hello': tensor([1., 2.])}, {})
    """

    def __init__(self, folder: Path, *, maker: str) -> None:
        self.path, self.maker = folder / _FILE, maker

    def find(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The vectors of those texts that have one."""
        text_of = {self._key(text): text for text in texts}
        keys, found = list(text_of), dict[str, Tensor]()
        with self._open() as file:
            for start in range(0, len(keys), _QUERY_KEYS):
                part = keys[start : start + _QUERY_KEYS]
                marks = ",".join("?" * len(part))
                rows = file.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part)  # noqa: S608
                for key, stored in rows:
                    found[text_of[key]] = torch.from_numpy(np.frombuffer(stored, "<f4").astype(np.float32))
        return found

    def add(self, vectors: Mapping[str, Tensor]) -> None:
        """Stores vectors of texts; those that are there already stay."""
        rows = [(self._key(text), v.numpy().astype("<f4").tobytes()) for text, v in vectors.items()]
        with self._open() as file, file:
            file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    def _key(self, text: str) -> bytes:
        content = f"{self.maker}\0{text}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(content).digest()

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as file:
                file.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"
                )
                yield file
        except (OSError, sqlite3.Error) as error:
            raise MarginsError(
                f"cache {self.path.parent}",
                expected="a folder to write vectors to, or one written before",
                received=str(error),
                fix=f"choose another folder, or delete {_FILE} in it",
            ) from error
