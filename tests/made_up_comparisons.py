"""Small data and quick comparisons that tests of the comparison share."""

from __future__ import annotations

from typing import Any

import numpy as np

from margins.compare import ComparisonResult, Roles, compare
from margins.compare.classes import class_rows
from margins.compare.design import Design, shared_recipe
from margins.data import Frame, outer_folds, read_frame
from margins.evaluation import find_metric
from margins.training import presets_for

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


def quick(frame: Frame | None = None, metric: str = "accuracy", **asked) -> ComparisonResult:
    options = {"recipes": ["focal", "label_smoothing"], "num_folds": 3, "training": QUICK, **asked}
    roles = Roles(target="y") if frame is None else None
    return compare(frame or blobs(), metric, **{"roles": roles, **options})


def design_of(frame: Frame, metric: str = "accuracy", *, num_folds: int = 3, **asked: Any) -> Design:
    """What `compare` would run, with the baseline alone."""
    rows = class_rows(frame, asked.pop("roles", None))
    folds = outer_folds(rows.labels, num_folds=num_folds, groups=rows.groups)
    fields = {
        "rows": rows, "folds": folds, "recipes": presets_for(find_metric("accuracy"), ["focal"])[:1],
        "num_seeds": 1, "seed": 0, "metric": find_metric(metric),
        "training": shared_recipe(rows, metric, QUICK),
    }  # fmt: skip
    return Design(**{**fields, **asked})
