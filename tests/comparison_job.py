"""A small comparison in a process of its own, which tests kill: `python comparison_job.py FOLDER WHERE`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from margins.compare import ComparisonResult, Roles, TrialDone, compare
from margins.data import Frame, read_frame

BUDGET, NUM_FOLDS = "3", 3


def frame() -> Frame:
    """Three clouds, of which one is rare."""
    labels = np.repeat([0, 1, 2], [50, 40, 20])
    values = 1.2 * np.eye(3)[labels] + np.random.default_rng(0).normal(0, 1, (110, 3))
    columns: dict[str, Any] = {name: values[:, k].copy() for k, name in enumerate("abc")}
    return read_frame({**columns, "y": [["usual", "other", "rare"][label] for label in labels]})


def run(folder: str | None, on: str = "local", **asked: Any) -> ComparisonResult:
    """The comparison, in a folder or in memory."""
    options: dict[str, Any] = {
        "roles": Roles(target="y"), "candidates": ["focal", "cross_entropy_tuned"], "num_folds": NUM_FOLDS,
        "budget": BUDGET, "training": {"max_epochs": 6, "patience": 6}, "out": folder, "on": on,
    }  # fmt: skip
    return compare(frame(), "macro_f1", **{**options, **asked})


def _say(trial: TrialDone) -> None:
    print(trial.done, trial.from_store, flush=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], on_trial_done=_say)
    print("finished", flush=True)
