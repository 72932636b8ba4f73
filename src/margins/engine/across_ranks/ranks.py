"""The ranks of a process group: small exchanges in which every rank learns what went wrong on any of them.

A rank that raises alone leaves the others waiting. So ranks meet before the work: each sends a short code of
what it brings, or the error that keeps it from coming, and either all go on or all raise.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from margins.errors import MarginsError

_FACTS, _TEXT, _TAG = 16, 480, 7043
_PROBE = timedelta(seconds=5)


@dataclass(frozen=True, eq=False)
class Ranks:
    """The processes of a group; one, and nothing is ever exchanged, where there is no group.

    Args:
        group: the default one when None.
        size: how many.
        rank: which of them this process is.
    """

    group: dist.ProcessGroup | None
    size: int
    rank: int

    @classmethod
    def of(cls, group: dist.ProcessGroup | None = None) -> Ranks:
        """The ranks of a group.

        Raises:
            MarginsError: this process is not one of them.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return cls(None, 1, 0)
        rank = dist.get_rank(group)
        if rank < 0:
            raise MarginsError(
                "group", expected="a group of which this process is a part", received="another"
            )
        return cls(group, dist.get_world_size(group), rank)

    def meet(
        self, what: str, same: Mapping[str, float | str], own: Mapping[str, float] | None = None
    ) -> list[dict[str, float]]:
        """What every rank brings to `what`, in rank order.

        Args:
            what: the reason for meeting; the same on every rank.
            same: facts that must be equal on all ranks.
            own: facts that may differ.

        Returns:
            The own facts of each rank.

        Raises:
            MarginsError: on every rank, when one could not come, came for something else or differs.
        """
        own = own or {}
        numbers = [_number(v) for v in (*same.values(), *own.values())]
        facts = torch.zeros(_FACTS, dtype=torch.float64)
        facts[: len(numbers) + 2] = torch.tensor([0, _number(what), *numbers], dtype=torch.float64)
        received = [self._read(code) for code in self._exchange(_code(facts, ""))]
        with self.told():
            for rank, (theirs, text) in enumerate(received):
                if theirs[0] != 0:
                    raise _failed_on(rank, text)
            for rank, (theirs, _) in enumerate(received):
                if theirs[1] != facts[1]:
                    raise _differs("call", f"'{what}'", rank)
                for name, mine, other in zip(same, facts[2:].tolist(), theirs[2:].tolist(), strict=False):
                    if mine != other:
                        raise _differs(name, same[name], rank, None if _is_text(same[name]) else other)
        first = 2 + len(same)
        return [dict(zip(own, theirs[first:].tolist(), strict=False)) for theirs, _ in received]

    @contextlib.contextmanager
    def guarded(self) -> Generator[None]:
        """An error in here, before this rank meets the others, is told to them and raised."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and not getattr(error, "is_told", False):
                self.fail(error)
            raise

    @contextlib.contextmanager
    def told(self) -> Generator[None]:
        """An error in here is one that every rank raises by itself."""
        try:
            yield
        except Exception as error:
            _mark(error)
            raise

    def fail(self, error: Exception) -> None:
        """Comes to the meeting with an error in hand."""
        facts = torch.zeros(_FACTS, dtype=torch.float64)
        facts[0] = 1
        with contextlib.suppress(MarginsError):  # the first error is the one to tell
            self._exchange(_code(facts, f"{type(error).__name__}: {error}"))
        _mark(error)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, in place."""
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def highest(self, tensor: Tensor) -> Tensor:
        """The largest of all ranks' numbers, entry by entry, in place."""
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def _reduced(self, tensor: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        try:
            dist.all_reduce(tensor, how, group=self.group)
        except RuntimeError as error:
            # Whoever still lives comes here too, so a short exchange shows who does not.
            self._exchange(torch.zeros(_FACTS * 8 + _TEXT, dtype=torch.uint8), _PROBE)
            raise _mark(_silent("another rank", error)) from error
        return tensor

    @property
    def _is_nccl(self) -> bool:
        return dist.get_backend(self.group) == "nccl"

    def _exchange(self, code: Tensor, patience: timedelta | None = None) -> list[Tensor]:
        """The codes of all ranks; gloo says whose does not come, where it takes single messages."""
        if self._is_nccl:
            code = code.cuda()
            received = [torch.empty_like(code) for _ in range(self.size)]
            dist.all_gather(received, code, group=self.group)
            return [r.cpu() for r in received]
        received = [torch.empty_like(code) for _ in range(self.size)]
        received[self.rank] = code
        group = dist.group.WORLD if self.group is None else self.group
        names = [dist.get_global_rank(group, r) for r in range(self.size)]  # pyright: ignore[reportArgumentType]
        silent: dict[int, RuntimeError] = {}
        sent: list[dist.Work | None] = []
        waiting: dict[int, dist.Work | None] = {}
        for rank in (r for r in range(self.size) if r != self.rank):
            try:
                sent.append(dist.isend(code, names[rank], group=self.group, tag=_TAG))
                waiting[rank] = dist.irecv(received[rank], names[rank], group=self.group, tag=_TAG)
            except RuntimeError as error:
                silent[rank] = error
        for rank, work in waiting.items():
            try:
                _wait(work, patience)
            except RuntimeError as error:
                silent[rank] = error
                patience = timedelta(milliseconds=1)  # the others have had that time too
        if silent:
            listed = ", ".join(str(rank) for rank in sorted(silent))
            first = silent[min(silent)]
            raise _mark(_silent(f"rank {listed}", first)) from first
        for work in sent:
            _wait(work, patience)
        return received

    def _read(self, code: Tensor) -> tuple[Tensor, str]:
        facts, text = code[: _FACTS * 8].clone().view(torch.float64), bytes(code[_FACTS * 8 :].tolist())
        return facts, text.rstrip(b"\0").decode(errors="replace")


def _wait(work: dist.Work | None, patience: timedelta | None) -> None:
    if work is not None:
        work.wait() if patience is None else work.wait(patience)


def _code(facts: Tensor, text: str) -> Tensor:
    letters = text.encode()[:_TEXT].ljust(_TEXT, b"\0")
    return torch.cat([facts.view(torch.uint8), torch.tensor(list(letters), dtype=torch.uint8)])


def _is_text(value: float | str) -> bool:
    return isinstance(value, str)


def _number(value: float | str) -> float:
    return float(zlib.crc32(value.encode())) if isinstance(value, str) else float(value)


def _mark(error: Exception) -> Exception:
    error.is_told = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    return error


def _failed_on(rank: int, text: str) -> MarginsError:
    return MarginsError(
        f"rank {rank}", expected="every rank to get as far as this one", received=f"an error there: {text}"
    )


def _differs(name: str, mine: float | str, rank: int, other: float | None = None) -> MarginsError:
    theirs = "something else" if other is None else f"{other:g}"
    here = mine if isinstance(mine, str) else f"{mine:g}"
    return MarginsError(
        name, expected="the same on every rank", received=f"{here} here and {theirs} on rank {rank}"
    )


def _silent(who: str, error: RuntimeError) -> MarginsError:
    return MarginsError(
        who,
        expected="an answer within the time-out of the process group",
        received=str(error).splitlines()[0][:200],
        fix="look at its own output: it ended, it hangs, or it does something else",
    )
