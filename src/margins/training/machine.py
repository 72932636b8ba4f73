"""The machine a training runs on: device, precision and ranks, by Lightning Fabric."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import torch

from margins.data.extras import extra

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Device = Literal["auto", "cpu", "cuda"]


def one_cpu(precision: str = "32") -> Fabric:
    """One process on the CPU, whatever else is there."""
    return _fabric(precision, accelerator="cpu", devices=1)


def machine(precision: str = "32", *, device: Device = "auto", loggers: list[Any] | None = None) -> Fabric:
    """The device asked for; under `torchrun` all its processes, one rank each.

    Args:
        precision: "32", "bf16" or "fp16", of the forward pass.
        device: "auto" takes a GPU if there is one.
        loggers: of Fabric.
    """
    num_ranks, here = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if num_ranks == 1:
        return _fabric(precision, accelerator=device, devices=1, loggers=loggers)
    with extra("tool"):
        from lightning_fabric.strategies import DDPStrategy
    strategy = DDPStrategy(process_group_backend="gloo" if device == "cpu" else None)
    fabric = _fabric(
        precision, accelerator=device, devices=here, num_nodes=num_ranks // here, strategy=strategy,
        loggers=loggers,
    )  # fmt: skip
    fabric.launch()
    return fabric


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
