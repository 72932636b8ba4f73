"""The idx form of MNIST and its kin: images, and their labels in a file beside them."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from margins.data.readers.arrays import as_table
from margins.data.readers.raw import Raw
from margins.data.stored import stored_bytes, unpacked
from margins.errors import MarginsError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> Raw:
    """Images as the column "image", with "label" from the labels' file beside it, found by its name.

    Raises:
        MarginsError: a file is missing or broken, or there are not as many labels as images.
    """
    array = _stored_array(path)
    if array.ndim == 1:
        return Raw(as_table({"label": array}, path.name))
    columns = {"image" if array.ndim > 2 else "embedding": array}
    beside = _labels_beside(path)
    if beside is None:
        return Raw(as_table(columns, path.name), notes=[f"No file of labels was found beside {path.name}."])
    labels = _stored_array(beside)
    if labels.shape != array.shape[:1]:
        raise MarginsError(
            beside.name,
            expected=f"as many labels as {path.name} has images, {len(array)}",
            received=str(list(labels.shape)),
        )
    note = f"Labels were read from {beside.name}, which lies beside {path.name}."
    return Raw(as_table({**columns, "label": labels}, path.name), notes=[note])


def _labels_beside(path: Path) -> Path | None:
    if "images" not in path.name:
        return None
    name = path.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    plain = name.removesuffix(".gz")
    return next((p for p in (path.with_name(n) for n in (name, plain, plain + ".gz")) if p.is_file()), None)


def _stored_array(path: Path) -> npt.NDArray[Any]:
    content = unpacked(path, stored_bytes(path, expected="an idx file"))
    kind = _TYPES.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    num_dims = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * num_dims
    if kind is None or not 1 <= num_dims <= 4 or len(content) < start:
        raise MarginsError(
            path.name,
            expected="an idx file (two zero bytes, a type, the number of dimensions, their sizes)",
            received="an empty file" if not content else "other content",
        )
    shape = struct.unpack(f">{num_dims}I", content[4:start])
    dtype = np.dtype(kind)
    size = math.prod(shape) * dtype.itemsize
    if len(content) - start != size or not size:
        raise MarginsError(
            path.name,
            expected=f"{size} bytes of data for {list(shape)}, more than none",
            received=f"{len(content) - start} bytes",
            fix="copy the file again",
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
