"""How much memory a row keeps for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


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
