"""The one gather over ranks: rows of all ranks in rank order, with the gradient brought back.

Ranks may hold different numbers of rows. With one rank, or without a process group, it is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from margins.errors import MarginsError, OnceDifferentiableError, describe


def gather_rows(
    tensor: Shaped[Tensor, "local ..."], *, group: dist.ProcessGroup | None = None
) -> Shaped[Tensor, "total ..."]:
    """The rows of all ranks, one rank after the other, on every rank.

    The gradient of the result is summed over ranks and each rank gets its own rows back. So when every rank
    computes the loss of its own anchors against all gathered candidates, divided by the number of anchors
    of all ranks, the summed gradients equal those of one process on the whole batch.

    Args:
        tensor: local rows; the other axes and the dtype are the same on every rank.
        group: process group; the default one when None.

    Returns:
        All rows, in rank order; the tensor itself when there is one rank.

    Raises:
        MarginsError: the ranks disagree on dtype or on the axes after the first.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return tensor
    if tensor.is_floating_point():
        return _Gather.apply(tensor, group, None)  # pyright: ignore[reportReturnType]
    return torch.cat(_gathered(tensor, group, None))


def gather_counted(
    tensor: Shaped[Tensor, "local ..."], counts: Sequence[int], group: dist.ProcessGroup | None
) -> Shaped[Tensor, "total ..."]:
    """`gather_rows` of ranks that know each other's numbers of rows, and that all else agrees."""
    if tensor.is_floating_point():
        return _Gather.apply(tensor, group, counts)  # pyright: ignore[reportReturnType]
    return torch.cat(_gathered(tensor, group, counts))


def rows_before(num_rows: int, *, device: torch.device, group: dist.ProcessGroup | None = None) -> int:
    """How many gathered rows come before this rank's own: where its diagonal starts."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return 0
    counts = _row_counts(num_rows, device, group)
    return sum(counts[: dist.get_rank(group)])


def _row_counts(num_rows: int, device: torch.device, group: dist.ProcessGroup | None) -> list[int]:
    counts = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, torch.tensor([num_rows], device=device), group=group)
    return [int(c) for c in counts]


def _gathered(tensor: Tensor, group: dist.ProcessGroup | None, counts: Sequence[int] | None) -> list[Tensor]:
    if counts is None:
        _check_agreement(tensor, group)
        counts = _row_counts(tensor.shape[0], tensor.device, group)
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: tensor.shape[0]] = tensor
    received = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(received, padded, group=group)
    return [r[:n] for r, n in zip(received, counts, strict=True)]


def _check_agreement(tensor: Tensor, group: dist.ProcessGroup | None) -> None:
    # A short code of dtype and trailing axes; collectives of unequal sizes would hang or abort instead.
    dtypes = sorted(str(d) for d in vars(torch).values() if isinstance(d, torch.dtype))
    code = torch.full((8,), -1, dtype=torch.long, device=tensor.device)
    facts = [dtypes.index(str(tensor.dtype)), tensor.ndim, *tensor.shape[1:]][:8]
    code[: len(facts)] = torch.tensor(facts)
    codes = [torch.empty_like(code) for _ in range(dist.get_world_size(group))]
    dist.all_gather(codes, code, group=group)
    for rank, other in enumerate(codes):
        if not torch.equal(other, code):
            raise MarginsError(
                "tensor",
                expected="the same dtype and trailing axes on every rank",
                received=f"{describe(tensor)} here and something else on rank {rank}",
            )
    if tensor.ndim == 0:  # after the exchange, so that no rank waits for one that has left
        raise MarginsError("tensor", expected="[local rows, ...]", received=describe(tensor))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: Tensor, group: dist.ProcessGroup | None, counts: Sequence[int] | None
    ) -> Tensor:
        parts = _gathered(tensor, group, counts)
        rank = dist.get_rank(group)
        ctx.group, ctx.start = group, sum(p.shape[0] for p in parts[:rank])
        ctx.count = tensor.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise OnceDifferentiableError("the gather over ranks gives first derivatives only")
        total = upstream[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.start : ctx.start + ctx.count], None, None
