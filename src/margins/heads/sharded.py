"""Class vectors that are divided over the ranks of a process group, and their checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from margins.engine.across_ranks.ranks import Ranks
from margins.errors import MarginsError

_ROWS_A_PIECE = 1 << 16


def shard_range(num_candidates: int, rank: int, num_ranks: int) -> tuple[int, int]:
    """First candidate of a rank and one past its last: as even as can be, the first ranks get one more.

    Example:
        >>> [shard_range(7, rank, 3) for rank in range(3)]
        [(0, 3), (3, 5), (5, 7)]
    """
    if num_candidates < 0 or not 0 <= rank < num_ranks:
        raise MarginsError(
            "rank", expected="0 <= rank < num_ranks, num_candidates >= 0", received=f"{rank} of {num_ranks}"
        )
    each, more = divmod(num_candidates, num_ranks)
    start = rank * each + min(rank, more)
    return start, start + each + (rank < more)


class ShardedCandidates(nn.Module):
    """The part of C class vectors that a rank holds, for `evaluator=Sharded()`.

    Leave it out of DistributedDataParallel: each rank's part is its own, and so is its gradient.
    `whole_state` and `load_whole` write and read all vectors, so that any number of ranks can go on.

    Args:
        width: of the embeddings.
        num_candidates: C.
        bias: whether each candidate has a bias.
        generator: draws the first weights of all ranks; seeded alike, any number of ranks starts equal.
        group: process group; the default one when None.

    Example:
        >>> head = ShardedCandidates(4, 10, generator=torch.Generator().manual_seed(0))
        >>> head.weight.shape, head.first
        (torch.Size([10, 4]), 0)
    """

    def __init__(
        self,
        width: int,
        num_candidates: int,
        *,
        generator: torch.Generator,
        bias: bool = True,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.num_candidates, self._ranks = num_candidates, Ranks.of(group)
        self.first, self.last = shard_range(num_candidates, self._ranks.rank, self._ranks.size)
        self.weight = nn.Parameter(torch.empty(self.last - self.first, width))
        self.bias = nn.Parameter(torch.zeros(self.last - self.first)) if bias else None
        bound = 1 / math.sqrt(width)
        for start in range(0, num_candidates, _ROWS_A_PIECE):
            stop = min(start + _ROWS_A_PIECE, num_candidates)
            drawn = torch.empty(stop - start, width).uniform_(-bound, bound, generator=generator)
            low, high = max(start, self.first), min(stop, self.last)
            if low < high:
                with torch.no_grad():
                    self.weight[low - self.first : high - self.first] = drawn[low - start : high - start]

    def forward(self) -> tuple[nn.Parameter, nn.Parameter | None]:
        """The rank's own vectors [C_own, width] and biases [C_own]."""
        return self.weight, self.bias

    def whole_state(self) -> dict[str, Tensor] | None:
        """The vectors and biases of all ranks, on the CPU of the first rank; None on the others.

        Every rank must call it. They travel in pieces, so no device holds them all.
        """
        named = {name: parameter.detach() for name, parameter in self.named_parameters()}
        if self._ranks.size == 1:
            return {name: tensor.cpu().clone() for name, tensor in named.items()}
        found = {name: self._collected(tensor) for name, tensor in named.items()}
        return {n: t for n, t in found.items() if t is not None} if self._ranks.rank == 0 else None

    def load_whole(self, state: Mapping[str, Tensor]) -> None:
        """Takes this rank's part of what `whole_state` gave, on whatever number of ranks.

        Args:
            state: "weight" [C, width] and, with biases, "bias" [C]; memory-mapped tensors are read in part.

        Raises:
            MarginsError: other names or shapes; on every rank, and nothing is changed on any.
        """
        with self._ranks.guarded():
            wanted = {n: (self.num_candidates, *p.shape[1:]) for n, p in self.named_parameters()}
            given = {n: tuple(t.shape) for n, t in state.items()}
            if wanted != given:
                raise MarginsError("state", expected=f"{wanted}", received=f"{given}")
        if self._ranks.size > 1:
            self._ranks.meet("load candidates", {"number of candidates": self.num_candidates})
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(state[name][self.first : self.last])

    def _pieces(self, rank: int) -> Iterator[tuple[int, int]]:
        first, last = shard_range(self.num_candidates, rank, self._ranks.size)
        for start in range(first, last, _ROWS_A_PIECE):
            yield start, min(start + _ROWS_A_PIECE, last)

    def _collected(self, own: Tensor) -> Tensor | None:
        ranks = self._ranks
        group = dist.group.WORLD if ranks.group is None else ranks.group
        names = [dist.get_global_rank(group, r) for r in range(ranks.size)]  # pyright: ignore[reportArgumentType]
        if ranks.rank > 0:
            for start, stop in self._pieces(ranks.rank):
                piece = own[start - self.first : stop - self.first].contiguous()
                dist.send(piece, names[0], group=ranks.group)
            return None
        whole = torch.empty(self.num_candidates, *own.shape[1:], dtype=own.dtype)
        whole[self.first : self.last] = own
        for rank in range(1, ranks.size):
            for start, stop in self._pieces(rank):
                piece = own.new_empty(stop - start, *own.shape[1:])
                dist.recv(piece, names[rank], group=ranks.group)
                whole[start:stop] = piece
        return whole
