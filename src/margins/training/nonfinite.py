"""The first number that is not finite: which tensor it is in, and a bundle that explains it later."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from margins.errors import MarginsError
from margins.training.checkpoint import write_atomically

BUNDLE = "nonfinite.json"
_LARGEST_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class NonFinite:
    """What was found in the step that failed.

    Args:
        tensor: the first tensor on the way of the batch that is not finite.
        epoch: counted from 0.
        step: of the epoch, counted from 0.
        learning_rate: of the step.
        row_ids: numbers of the step's rows in the data.
        previous_row_ids: of the step before, which made the weights what they are.
        scores: smallest and largest finite score of the batch, or None.
        norms: of the parameters, largest first.
        objective: the recipe's.
        scaler: state of the loss scaler, in half precision.
    """

    tensor: str
    epoch: int
    step: int
    learning_rate: float
    row_ids: list[int]
    previous_row_ids: list[int]
    scores: tuple[float, float] | None
    norms: dict[str, float]
    objective: dict[str, Any]
    scaler: dict[str, float] = field(default_factory=dict)

    @property
    def cure(self) -> str:
        """The likely cure."""
        if self.tensor.startswith(("inputs", "encoder's first")):
            return "look at the rows' inputs: they hold numbers that are not finite or far too large"
        return "lower the learning rate, set clip_norm, or look at the rows for extreme inputs"

    def save(self, folder: Path) -> Path:
        """Writes the bundle."""
        path = folder / BUNDLE
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())
        return path

    def error(self, bundle: Path | None) -> MarginsError:
        """The error that ends the run."""
        where = f" (explained by: margins explain-nan {bundle.parent})" if bundle else ""
        return MarginsError(
            self.tensor,
            expected="finite numbers",
            received=f"NaN or infinity in epoch {self.epoch + 1}, step {self.step + 1}{where}",
            fix=self.cure,
        )


def read_bundle(folder: Path) -> NonFinite:
    """The bundle of a run that stopped at a number that is not finite.

    Raises:
        MarginsError: the folder holds none, or a broken one.
    """
    path = folder / BUNDLE
    if not path.is_file():
        raise MarginsError(
            str(folder), expected="a run that stopped at a number that is not finite",
            received=f"no {BUNDLE} in it",
        )  # fmt: skip
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        data["scores"] = tuple(data["scores"]) if data["scores"] else None
        return NonFinite(**data)
    except (ValueError, TypeError, KeyError) as error:
        raise MarginsError(str(path), expected="a whole bundle", received=str(error)) from None


def first_nonfinite(network: nn.Module, forward: Callable[[], Tensor]) -> tuple[str, Tensor | None]:
    """Runs forward again and names the first tensor that is not finite, with the scores if it came so far.

    Args:
        network: whose parameters and modules are looked at.
        forward: the step's forward pass; gives the scores.
    """
    for name, parameter in network.named_parameters():
        if not _finite(parameter):
            return f"parameter {name}, after the step before", None
    found: list[str] = []
    hooks = [
        module.register_forward_hook(_watcher(name, found))
        for name, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            scores = forward()
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0], scores
    return ("scores" if not _finite(scores) else "loss"), scores


def describe_step(scores: Tensor | None, network: nn.Module) -> dict[str, Any]:
    """The range of the scores and the largest parameter norms."""
    finite = scores[torch.isfinite(scores)] if scores is not None else None
    norms = {name: float(p.detach().norm()) for name, p in network.named_parameters()}
    shown = sorted(norms, key=lambda name: -_order(norms[name]))[:_LARGEST_SHOWN]
    has = finite is not None and finite.numel() > 0
    return {
        "scores": (float(finite.min()), float(finite.max())) if has and finite is not None else None,
        "norms": {name: norms[name] for name in shown},
    }


def _order(norm: float) -> float:
    return norm if norm == norm else float("inf")


def _watcher(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    def look(_module: nn.Module, inputs: Any, output: Any) -> None:
        if found:
            return
        if any(isinstance(i, Tensor) and not _finite(i) for i in inputs):
            found.append(f"inputs of {name}")
        elif isinstance(output, Tensor) and not _finite(output):
            found.append(f"output of {name}")

    return look


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach()).all())
