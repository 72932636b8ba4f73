"""Checkpoints: nested state in one file, written whole or not at all, read without running anything.

A file is in the safetensors format: tensors as they are, everything else as JSON in its header. Nothing that
is read can make objects or run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from margins.data.extras import extra
from margins.errors import MarginsError

_FORMAT = "margins-checkpoint-1"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes nested dicts, lists and tuples of tensors, numbers, texts, booleans and None.

    The file appears under its name only when all of it lies on the disk; until then the old one stays.

    Raises:
        MarginsError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    with extra("tool"):
        from safetensors.torch import save
    tensors: dict[str, Tensor] = {}
    structure = _packed(state, tensors)
    header = {"format": _FORMAT, "structure": json.dumps(structure)}
    write_atomically(path, save(tensors, metadata=header))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote.

    Raises:
        MarginsError: no such file, or it is broken or of another kind.
    """
    with extra("tool"):
        from safetensors import SafetensorError, safe_open
    if not path.is_file():
        raise MarginsError(str(path), expected="a checkpoint", received="no such file", fix="check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise MarginsError(
            str(path), expected="a whole checkpoint", received=f"a file that cannot be read ({error})",
            fix="resume from another copy, or start the run anew",
        ) from None  # fmt: skip
    if header.get("format") != _FORMAT:
        raise MarginsError(
            str(path), expected=f"a file of the format {_FORMAT}", received=str(header.get("format"))
        )
    try:
        state = _unpacked(json.loads(header["structure"]), tensors)
    except (ValueError, TypeError, LookupError) as error:
        raise changed(path, error) from error
    if not isinstance(state, dict):
        raise changed(path, "no mapping in it")
    return cast("dict[str, Any]", state)


def changed(path: Path, reason: object) -> MarginsError:
    """The error for a checkpoint whose parts do not fit together."""
    return MarginsError(
        str(path), expected="a checkpoint as it was written",
        received=f"one that was changed ({(str(reason).splitlines() or [''])[0][:200]})",
        fix="resume from another copy, or start the run anew",
    )  # fmt: skip


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        MarginsError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path) -> Generator[IO[bytes]]:
    """A file beside `path` that takes its name when the block ends well and the disk has all of it.

    Raises:
        MarginsError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two processes do not meet in it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):  # there may be none, and its folder may be no folder
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        raise MarginsError(
            str(path), expected="a folder with room that can be written",
            received=error.strerror or str(error), fix="free space there or name another folder",
        ) from None  # fmt: skip


def restored(state: Mapping[str, Any], key: str, *, path: Path) -> Any:
    """The part of a checkpoint, which must be there.

    Raises:
        MarginsError: it is not; named.
    """
    if key not in state:
        raise MarginsError(
            str(path), expected=f"the state of {key!r}", received=f"only {', '.join(state)}",
            fix="the checkpoint is of another version or recipe: start the run anew",
        )  # fmt: skip
    return state[key]


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # Own memory: safetensors refuses tensors that share it.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[_key(k), _packed(v, tensors)] for k, v in cast("Mapping[Any, Any]", value).items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(v, tensors) for v in cast("list[Any]", value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _key(key: Any) -> Any:
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise TypeError(f"a checkpoint cannot hold the key {key!r}")
    return key


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = cast("dict[str, Any]", value).items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _unpacked(v, tensors) for k, v in content}
    items = [_unpacked(v, tensors) for v in content]
    return items if kind == "list" else tuple(items)


def same_keys(name: str, found: Mapping[str, Any], expected: Mapping[str, Any], *, path: Path) -> None:
    """Refuses a part of a checkpoint that lacks or exceeds what it is loaded into.

    Raises:
        MarginsError: the first key that is missing or unknown.
    """
    for key in expected:
        if key not in found:
            raise MarginsError(
                str(path), expected=f"{name} with {key!r}", received="none",
                fix="the checkpoint is of another recipe or version",
            )  # fmt: skip
        wanted, there = expected[key], found[key]
        if isinstance(wanted, Tensor) and isinstance(there, Tensor) and wanted.shape != there.shape:
            raise MarginsError(
                str(path), expected=f"{name} {key!r} {list(wanted.shape)}", received=str(list(there.shape)),
                fix="the checkpoint is of another recipe or data set",
            )  # fmt: skip
    extra_keys = [key for key in found if key not in expected]
    if extra_keys:
        raise MarginsError(
            str(path), expected=f"{name} without {extra_keys[0]!r}", received="one with it",
            fix="the checkpoint is of another recipe or version",
        )  # fmt: skip


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with tensors of its own, so that training on does not change it."""
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in state.items()}


def first_not_finite(tensors: Mapping[str, Any]) -> str | None:
    """The name of the first tensor that is not finite; None when all are."""
    for name, value in tensors.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name
    return None
