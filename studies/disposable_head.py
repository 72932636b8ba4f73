"""A head for training alone: trained on even and odd, probed for the digit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import digits, fit, perceptron, predict
from margins.diagnose import layer_probe
from margins.heads import Disposable, LinearHead
from margins.losses import CrossEntropy, SupCon

WIDTH = 64


def network(arm: str, settings: Mapping[str, Any], seed: int) -> tuple[nn.Module, Disposable, nn.Module]:
    """Encoder, disposable head, and what stands behind it."""
    kind = arm.split()[1]
    draws = torch.Generator().manual_seed(seed + 1)
    decay = settings.get("decay")
    head = Disposable(WIDTH, kind=kind, decay=decay, generator=draws)  # type: ignore[arg-type]
    behind = LinearHead(WIDTH, 2, generator=draws) if arm.startswith("ce") else nn.Identity()
    return perceptron((64, 256, WIDTH), seed), head, behind


def probed(features: Mapping[str, Tensor], digit: Tensor, train: int, rest: int) -> dict[str, float]:
    """Accuracy of probes on a quarter of the training rows, by layer, and the effective ranks."""
    quarter = torch.arange(train) % 4 == 0
    used = torch.cat([quarter, torch.ones(rest, dtype=torch.bool)])
    is_test = (torch.arange(train + rest) >= train)[used]
    layers = {name: values[used] for name, values in features.items()}
    found = layer_probe(layers, {"digit": digit[used], "parity": digit[used] % 2}, is_test=is_test)
    figures = {f"{p.layer}: {a}": value for p in found for a, value in p.accuracy.items()}
    return {**figures, **{f"{p.layer}: rank": p.effective_rank for p in found}}


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Trains on parity; the probe learns ten digits on a quarter of the training rows."""
    division = digits(seed)
    encoder, head, behind = network(arm, settings, seed)
    whole = nn.Sequential(encoder, head, behind)
    contrast = SupCon(0.1)
    loss: Callable[[Tensor, Tensor], Tensor] = (
        CrossEntropy() if arm.startswith("ce") else contrast.on_embeddings
    )
    train = division.train
    fit(
        whole, loss, train.x, train.y % 2, seed=seed, lr=settings["lr"], epochs=100, batch_size=256,
        weight_decay=1e-4, optimizer="adam",
    )  # fmt: skip
    figures: dict[str, float] = {}
    for role, rows in (("test", division.test), ("select", division.select)):
        x, digit = torch.cat([train.x, rows.x]), torch.cat([train.y, rows.y])
        kept = predict(encoder, x)
        layers = {"kept": kept, "behind": predict(head, kept)}
        found = probed(layers, digit, len(train.x), len(rows.x))
        figures |= found if role == "test" else {"select": found["kept: digit"]}
    return figures


def gain(arm: str, peer: str, *, of: str = "kept: digit", minus: str = "kept: digit") -> Any:
    """Accuracy of one arm minus that of another."""
    return lambda f: f[arm][of] - f[peer][minus]
