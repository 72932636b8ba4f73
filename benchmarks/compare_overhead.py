"""What a comparison takes beyond the trainings in it: dividing, checking, scheduling, storing, judging.

One comparison of two recipes on 50 outer folds, 100 trainings of about two seconds, kept in a store on disk.
The trainings are timed inside the run, so that what else the machine does weighs on both alike.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from margins.compare import Roles, compare, leaving
from margins.compare.trials import bench
from margins.data import read_frame
from recording import Row, record

NUM_ROWS, NUM_COLUMNS, NUM_EPOCHS = 12_000, 10, 24
LIMIT = 1.03


class Timed:
    """A function that remembers how long its calls took together."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *args: Any, **more: Any) -> Any:
        start = time.perf_counter()
        try:
            return self._function(*args, **more)
        finally:
            self.seconds += time.perf_counter() - start
            self.calls += 1


def columns() -> dict[str, Any]:
    """Two clouds that overlap."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 2, NUM_ROWS)
    values = draws.normal(size=(NUM_ROWS, NUM_COLUMNS)) + 0.5 * labels[:, None]
    return {f"x{k}": values[:, k].copy() for k in range(NUM_COLUMNS)} | {"y": [f"class {n}" for n in labels]}


def main() -> int:
    """Measures, records, and says by the exit code whether the limit holds."""
    frame = read_frame(columns())
    trainings = Timed(bench.train_problem)
    bench.train_problem = leaving.train_problem = trainings  # pyright: ignore[reportAttributeAccessIssue]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        compare(
            frame, "accuracy", roles=Roles(target="y"), candidates=["focal"], num_folds=10, num_repeats=5,
            spread=0.01, report_share=0.0, training={"max_epochs": NUM_EPOCHS, "patience": None},
            out=Path(folder) / "run",
        )  # fmt: skip
        seconds = time.perf_counter() - start
    each = trainings.seconds / trainings.calls * 1e3
    row = Row(
        name="compare", size=f"{trainings.calls} trainings of {each / 1e3:.1f} s", peer="its trainings alone",
        runs=1, ours_p20=seconds * 1e3, ours_p50=seconds * 1e3, ours_p80=seconds * 1e3,
        peer_p50=trainings.seconds * 1e3, ratio_p50=round(seconds / trainings.seconds, 4), limit=LIMIT,
        limit_of="ratio",
    )  # fmt: skip
    record([row])
    return 0 if row.holds else 1


if __name__ == "__main__":
    sys.exit(main())
