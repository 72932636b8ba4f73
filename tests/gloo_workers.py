"""A pool of processes that form one gloo group and run the same named job together."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from margins.engine import gather_rows
from margins.engine.across_ranks.gather import rows_before
from margins.errors import MarginsError
from margins.losses import InfoNCE, MultiSimilarity, SupCon
from margins.losses.forms import EmbeddingLoss
from margins.targets import Targets

TIMEOUT = 120
LOSSES: dict[str, Callable[[], EmbeddingLoss]] = {
    "SupCon": SupCon, "InfoNCE": InfoNCE, "MultiSimilarity": MultiSimilarity,
}  # fmt: skip


def gathered(tensor: Tensor) -> Tensor:
    """All ranks' rows."""
    return gather_rows(tensor)


def before(tensor: Tensor) -> int:
    """Rows of lower ranks."""
    return rows_before(tensor.shape[0], device=tensor.device)


def refused(tensor: Tensor) -> str:
    """The message with which gathering is refused; empty when it is not."""
    try:
        gather_rows(tensor)
    except MarginsError as error:
        return str(error)
    return ""


def weighed_gradient(tensor: Tensor, upstream: Tensor) -> Tensor:
    """Gradient, on this rank's rows, of the gathered rows times this rank's upstream."""
    tensor.requires_grad_()
    (gather_rows(tensor) * upstream).sum().backward()
    assert tensor.grad is not None
    return tensor.grad


def twice(tensor: Tensor) -> str:
    """The error that a second derivative through the gather gives."""
    tensor.requires_grad_()
    try:
        torch.autograd.grad(gather_rows(tensor).square().sum(), tensor, create_graph=True)
    except RuntimeError as error:
        return type(error).__name__
    return ""


def in_batch(name: str, embeddings: Tensor, labels: Tensor, num_anchors: int) -> tuple[Tensor, Tensor]:
    """This rank's share of the loss of local anchors against the items of all ranks, and its gradient."""
    embeddings.requires_grad_()
    start = rows_before(embeddings.shape[0], device=embeddings.device)
    value = LOSSES[name]().on_embeddings(
        embeddings, labels,
        references=gather_rows(embeddings), reference_labels=gather_rows(labels),
        same_items=torch.arange(embeddings.shape[0]) + start, denominator=float(num_anchors),
    )  # fmt: skip
    value.backward()
    assert embeddings.grad is not None
    return value.detach(), embeddings.grad


def across_pairs(queries: Tensor, documents: Tensor, num_anchors: int) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's share of InfoNCE of its queries against the documents of all ranks, and the gradients."""
    queries.requires_grad_()
    documents.requires_grad_()
    start = rows_before(queries.shape[0], device=queries.device)
    everything = gather_rows(documents)
    own = torch.arange(queries.shape[0]) + start
    targets = Targets.of_classes(own, everything.shape[0])
    value = InfoNCE().on_candidates(queries, everything, targets, denominator=float(num_anchors))
    value.backward()
    assert queries.grad is not None
    assert documents.grad is not None
    return value.detach(), queries.grad, documents.grad


def job_named(name: str) -> Callable[..., Any]:
    """A job of this module or of the harness, which is imported when it is first asked for."""
    if name in JOBS:
        return JOBS[name]
    from harness import sharded, sharded_batches, sharded_refusals

    return {**sharded.JOBS, **sharded_batches.JOBS, **sharded_refusals.JOBS}[name]


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job for job in (gathered, before, refused, weighed_gradient, twice, in_batch, across_pairs)
}


def work(rank: int, world_size: int, store: str, asked: Any, answers: Any, timeout: float) -> None:
    """Joins the group, then does one job after the other until it gets None."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size,
        timeout=timedelta(seconds=timeout),
    )  # fmt: skip
    try:
        while (task := asked.get()) is not None:
            job, arguments = task
            try:
                answers.put((rank, True, _plain(job_named(job)(*map(_tensor, arguments)))))
            except Exception as error:
                answers.put((rank, False, f"{type(error).__name__}: {error}"))
    finally:
        dist.destroy_process_group()


def _plain(value: Any) -> Any:
    # Arrays, not tensors: a queue of tensors shares memory by file descriptors, which may run out.
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.numpy() if isinstance(value, Tensor) else value


def _tensor(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_tensor, value))
    return torch.from_numpy(value.copy()) if hasattr(value, "__array__") else value


class Pool:
    """`world_size` processes, started once and closed with the test session."""

    def __init__(self, world_size: int, folder: Path, *, timeout: float = TIMEOUT) -> None:
        context = multiprocessing.get_context("spawn")
        self.world_size = world_size
        self._answers = context.Queue()
        self._asked = [context.Queue() for _ in range(world_size)]
        self._processes = [
            context.Process(
                target=work, daemon=True,
                args=(rank, world_size, str(folder / "store"), self._asked[rank], self._answers, timeout),
            )
            for rank in range(world_size)
        ]  # fmt: skip
        for process in self._processes:
            process.start()

    def ask(self, job: str, *arguments: list[Any], ranks: tuple[int, ...]) -> None:
        """Gives some ranks a job, and waits for no answer."""
        for rank in ranks:
            self._asked[rank].put((job, tuple(_plain(a[rank]) for a in arguments)))

    def run(self, job: str, *arguments: list[Any], ranks: tuple[int, ...] | None = None) -> list[Any]:
        """What each rank answers; each argument is a list with one entry a rank.

        Args:
            job: its name.
            arguments: of every rank.
            ranks: who is asked, in order; all when None.

        Raises:
            RuntimeError: a rank failed, died or did not answer in time.
        """
        ranks = tuple(range(self.world_size)) if ranks is None else ranks
        self.ask(job, *arguments, ranks=ranks)
        found: dict[int, Any] = {}
        failures: list[str] = []
        for _ in ranks:
            try:
                rank, done, answer = self._answers.get(timeout=2 * TIMEOUT)
            except queue.Empty:
                raise RuntimeError(f"{job}: ranks {set(ranks) - set(found)} are silent") from None
            found[rank] = _tensor(answer)
            if not done:
                failures.append(f"rank {rank}: {answer}")
        if failures:
            raise RuntimeError("\n".join(sorted(failures)))
        return [found[rank] for rank in ranks]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for asked in self._asked:
            asked.put(None)
        for process in self._processes:
            process.join(timeout=30)
            if process.is_alive():
                process.terminate()
