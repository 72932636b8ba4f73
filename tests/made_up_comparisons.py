"""Small data and quick comparisons that tests of the comparison share."""

from __future__ import annotations

from typing import Any

import numpy as np

from margins.compare import ComparisonResult, Roles, compare
from margins.compare.designing import designed
from margins.compare.planning import Design
from margins.compare.trials.bench import Bench
from margins.data import Frame, read_frame

QUICK = {"max_epochs": 3, "patience": 3}


def blob_columns(num: int = 90, *, shift: float = 1.5, seed: int = 0) -> dict[str, Any]:
    labels = np.arange(num) % 3
    values = shift * np.eye(3)[labels] + np.random.default_rng(seed).normal(0, 1, (num, 3))
    return {name: values[:, k].copy() for k, name in enumerate("abc")} | {"y": [*"uvw" * (num // 3)]}


def blobs(num: int = 90, **more: Any) -> Frame:
    return read_frame(blob_columns(num) | more)


def texts() -> Frame:
    draws = np.random.default_rng(0)
    words = {"fruit": ["apple", "pear", "plum"], "tool": ["saw", "drill", "lathe"]}
    rows = [(name, " ".join(draws.choice(words[name], 3))) for _ in range(30) for name in words]
    return read_frame({"text": [text for _, text in rows], "label": [name for name, _ in rows]})


def quick(frame: Frame | None = None, metric: str = "accuracy", **asked: Any) -> ComparisonResult:
    """A small comparison without a pilot and without report rows, unless they are asked for."""
    return compare(frame or blobs(), metric, spread=asked.pop("spread", 0.01), **_asked(frame, asked))


def design_of(frame: Frame | None = None, metric: str = "accuracy", **asked: Any) -> Design:
    """What `quick` would run."""
    return designed(frame or blobs(), metric, **_asked(frame, asked))


def bench_of(design: Design) -> Bench:
    """What runs its trials."""
    return Bench(design.rows, {roles.digest(): roles for roles in design.places})


def outer_value(design: Design, place: int = 0, recipe: int = 0, seed: int = 1) -> dict[str, Any]:
    """What one training that is judged gives."""
    spec = design.spec(place, "outer", design.candidates[recipe], {}, seed=design.seed_of(place, seed))
    return bench_of(design)(spec)


def _asked(frame: Frame | None, asked: dict[str, Any]) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "candidates": ["focal", "label_smoothing"], "num_folds": 3, "training": QUICK, "report_share": 0.0,
        "roles": Roles(target="y") if frame is None else None,
    }  # fmt: skip
    return {**usual, **asked}
