"""A text file in pieces of whole lines, so that memory does not grow with its length."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from margins.data.stored import stored_bytes
from margins.errors import MarginsError

_BLOCK = 4 * 2**20
_LONGEST = 64 * 2**20  # bytes of one row; more means a quote that was never closed


def line_blocks(path: Path, *, quoted: bool, size: int = _BLOCK) -> Iterator[tuple[int, bytes]]:
    """Pieces of about `size` bytes, each of whole rows, with the number of lines before it.

    Args:
        path: the file, plain or gzipped.
        quoted: whether line breaks between quotes belong to a row (CSV).
        size: bytes that are read at once.

    Raises:
        MarginsError: the file is missing, a folder, a broken gzip file, or holds a row beyond 64 MB.
    """
    if path.is_dir() or not path.exists():
        stored_bytes(path)
    line, rest = 0, b""
    for piece in _pieces(path, size):
        content = rest + piece
        cut = _last_row_end(content) if quoted else content.rfind(b"\n") + 1
        if cut:
            yield line, content[:cut]
            line += content.count(b"\n", 0, cut)
        rest = content[cut:]
        if len(rest) > _LONGEST:
            raise MarginsError(
                path.name,
                expected="rows of less than 64 MB",
                received=f"a longer one from line {line + 1} on",
                fix="close the quotes in this line" if quoted else "break it into lines",
            )
    if rest.strip():
        yield line, rest


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as plain:
        is_packed = plain.read(2) == b"\x1f\x8b"
    if path.suffix == ".gz" and not is_packed and path.stat().st_size:
        raise MarginsError(
            path.name,
            expected="a gzip file",
            received="other content",
            fix="take .gz off its name if it is plain",
        )
    try:
        with gzip.open(path, "rb") if is_packed else path.open("rb") as file:
            while piece := file.read(size):
                yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise MarginsError(
            path.name, expected="a whole gzip file", received=f"a broken one ({error})", fix="copy it again"
        ) from error


def _last_row_end(content: bytes) -> int:
    """The place after the last line break that no quotes surround; 0 when there is none."""
    cut = content.rfind(b"\n")
    while cut >= 0 and content.count(b'"', 0, cut) % 2:
        cut = content.rfind(b"\n", 0, content.rfind(b'"', 0, cut))
    return cut + 1
