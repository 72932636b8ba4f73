"""The page on many labels, from benchmarks/many_labels.csv: the latest row of each way, on each device."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "many_labels.csv"
Row = dict[str, str]
_LOSSES = {
    "binary_cross_entropy": "`BinaryCrossEntropy`", "cross_entropy": "`CrossEntropy`",
    "decoupled_softmax": "`DecoupledSoftmax`", "squared_error": "`SquaredError`", "z_loss": "`ZLoss`",
}  # fmt: skip
_QUALITY = {
    "P@3": "precision@3", "P@5": "precision@5", "nDCG@3": "ndcg@3", "nDCG@5": "ndcg@5", "PSP@1": "psp@1",
    "PSP@3": "psp@3", "PSP@5": "psp@5", "MAP@R": "map@r",
}  # fmt: skip


def quality(path: Path = RESULTS) -> str:
    """What each way predicts of the test rows, a table for each device."""
    return _for_each_device(path, _quality_of)


def cost(path: Path = RESULTS) -> str:
    """What each way costs, a table for each device."""
    return _for_each_device(path, _cost_of)


def _quality_of(rows: Sequence[Row]) -> str:
    lines = [
        [_who(row), *(_share(row[column]) for column in ("precision@1", *_QUALITY.values()))] for row in rows
    ]
    return _table(["", "P@1, nDCG@1", *_QUALITY], lines)


def _cost_of(rows: Sequence[Row]) -> str:
    trained = [row for row in rows if row["step_ms"]]
    lines = [
        [
            _who(row), f"{float(row['step_ms']):.1f} ms",
            f"{float(row['epoch_seconds']) - float(row['select_seconds']):.1f} s",
            f"{float(row['select_seconds']):.1f} s", f"{float(row['total_seconds']):.0f} s",
            _mib(row["steps_mib"]), _mib(row["peak_mib"]), _rates(row),
            f"{row['kept_epoch']} of {row['epochs']}",
        ]
        for row in trained
    ]  # fmt: skip
    head = ["", "a step", "steps of an epoch", "select rows", "all", "memory in steps", "memory at most"]
    return _table([*head, "learning rate", "epoch kept"], lines)


def _for_each_device(path: Path, table: Callable[[list[Row]], str]) -> str:
    rows = latest(path)
    if not rows:
        return "Not measured yet."
    parts: list[str] = []
    for device in dict.fromkeys(row["device"] for row in rows):
        found = [row for row in rows if row["device"] == device]
        commits = ", ".join(dict.fromkeys(f"`{row['commit']}`" for row in found))
        parts += [f"On {device}, {found[-1]['versions']}, commit {commits}:", table(found)]
    return "\n\n".join(parts)


def latest(path: Path) -> list[Row]:
    """The last row of each way with each loss on each device, in the order of their first."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    return list({(row["device"], row["way"], row["loss"]): row for row in rows}.values())


def _who(row: Row) -> str:
    return f"{_LOSSES.get(row['loss'], row['loss'])}, {row['way']}" if row["loss"] else row["way"]


def _rates(row: Row) -> str:
    settings = json.loads(row["settings"])
    rate = f"{settings['rate']:g}"
    return f"{rate}; head {settings['head_rate']:g}" if "head_rate" in settings else rate


def _share(value: str) -> str:
    return f"{100 * float(value):.1f}"


def _mib(value: str) -> str:
    return "" if value in ("", "nan") else f"{float(value):,.0f} MiB"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])
