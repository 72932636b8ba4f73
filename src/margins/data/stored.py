"""The bytes of a file, plain or gzipped, with every way in which getting them can fail told plainly."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from margins.errors import MarginsError

_GZIP_MAGIC = b"\x1f\x8b"


def stored_bytes(path: Path, *, expected: str = "a file") -> bytes:
    """The file as it lies on disk.

    Raises:
        MarginsError: it is missing, a folder or not to be read.
    """
    if path.is_dir():
        raise MarginsError(str(path), expected=expected, received="a folder", fix="name a file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise MarginsError(
            str(path), expected=expected, received="no such file", fix="check the path"
        ) from None
    except OSError as error:
        raise MarginsError(
            str(path), expected="a file that can be read", received=error.strerror or str(error)
        ) from error


def unpacked(path: Path, stored: bytes) -> bytes:
    """The content, unpacked where it begins as a gzip file does, whatever the name says.

    Raises:
        MarginsError: a broken gzip file, or other content under a name that ends in .gz.
    """
    is_packed = stored.startswith(_GZIP_MAGIC)
    if path.suffix == ".gz" and stored and not is_packed:
        raise MarginsError(
            path.name,
            expected="a gzip file",
            received="other content",
            fix="take .gz off its name if it is plain",
        )
    if not is_packed:
        return stored
    try:
        return gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise MarginsError(
            path.name, expected="a whole gzip file", received=f"a broken one ({error})", fix="copy it again"
        ) from error


def decoded(path: Path, content: bytes, *, line: int = 0) -> str:
    """The content as text: UTF-8 with or without byte order mark; `line` lines of the file stand before it.

    Raises:
        MarginsError: a byte that is no UTF-8, with its line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start) + 1
        raise MarginsError(
            path.name,
            expected="UTF-8 text",
            received=f"byte 0x{content[error.start]:02x} in line {line}",
            fix="save the file as UTF-8 (in a spreadsheet: 'CSV UTF-8')",
        ) from error


def suffix_of(path: Path) -> str:
    """The ending that says what a file is, in small letters and without .gz.

    Example:
        >>> suffix_of(Path("rows.JSONL.gz"))
        '.jsonl'
    """
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix
