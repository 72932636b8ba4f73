"""The machine a training runs on: device, precision and ranks, by Lightning Fabric."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist

from margins.data.extras import extra

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Device = Literal["auto", "cpu", "cuda"]

_SMALL_STEPS = frozenset({"tabular", "hashed_text", "embeddings", "combined"})


def one_cpu(precision: str = "32") -> Fabric:
    """One process on the CPU, whatever else is there."""
    return _fabric(precision, accelerator="cpu", devices=1)


@contextmanager
def machine(
    precision: str = "32", *, device: Device = "auto", loggers: list[Any] | None = None
) -> Generator[Fabric]:
    """The device asked for; under `torchrun` all its processes, one rank each, parted again at the end.

    Args:
        precision: "32", "bf16" or "fp16", of the forward pass.
        device: "auto" takes a GPU if there is one.
        loggers: of Fabric.
    """
    num_ranks, here = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if num_ranks == 1:
        with _logging_to(_fabric(precision, accelerator=device, devices=1, loggers=loggers)) as fabric:
            yield fabric
        return
    with extra("tool"):
        from lightning_fabric.strategies import DDPStrategy
    strategy = DDPStrategy(process_group_backend="gloo" if device == "cpu" else None)
    fabric = _fabric(
        precision, accelerator=device, devices=here, num_nodes=num_ranks // here, strategy=strategy,
        loggers=loggers,
    )  # fmt: skip
    fabric.launch()
    try:
        with _logging_to(fabric):
            yield fabric
    finally:
        # Left to the end of the process, connections would be torn down under threads that still use them.
        dist.destroy_process_group()


@contextmanager
def _logging_to(fabric: Fabric) -> Generator[Fabric]:
    """Loggers keep lines back: they are written when the block ends, however it ends."""
    status = "failed"
    try:
        yield fabric
        status = "success"
    finally:
        for logger in fabric.loggers:
            logger.finalize(status)


def _fabric(precision: str, **settings: Any) -> Fabric:
    with extra("tool"):
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision
    if precision == "32":
        return Fabric(precision="32-true", **settings)
    # Named outright: asked for half precision by word, Fabric takes bfloat16 in its place on the CPU.
    kind = "cuda" if settings["accelerator"] != "cpu" and torch.cuda.is_available() else "cpu"
    scaler = torch.amp.GradScaler(kind) if precision == "fp16" else None
    plugin = MixedPrecision("16-mixed" if scaler else "bf16-mixed", kind, scaler=scaler)
    return Fabric(plugins=[plugin], **settings)


def is_first_rank() -> bool:
    """Whether this process is the one that writes; known before the ranks are connected."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def threads(num: int) -> Generator[None]:
    """Torch computes with this many threads inside the block; the caller's number is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(encoder: str) -> int:
    """How many threads suit an encoder: one for those whose steps are too small to share.

    Several threads make such steps slower, many times so on a busy machine.

    Example:
        >>> threads_for("tabular")
        1
    """
    return 1 if encoder in _SMALL_STEPS else torch.get_num_threads()
