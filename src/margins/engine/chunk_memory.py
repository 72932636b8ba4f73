"""How much memory a row keeps for backward, and how much there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_CGROUP = Path("/sys/fs/cgroup")


def bytes_per_row(encoder: Callable[[Any], Tensor], rows: Any, parameters: Iterable[Tensor]) -> float:
    """Bytes that encoding keeps for backward beside the parameters, divided by the rows encoded."""
    ours = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        embeddings = encoder(rows)
    kept[embeddings.untyped_storage().data_ptr()] = embeddings.untyped_storage().nbytes()
    return sum(kept.values()) / max(embeddings.shape[0], 1)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated: the device's, or the machine's within its control group."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch holds in reserve is free to it as well.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_available(), _left_in_group())


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        # Elsewhere only the size of the memory is known: half of it may well be taken.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _left_in_group() -> int:
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        return max(0, limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no such group, or "max"
        return 2**63 - 1
