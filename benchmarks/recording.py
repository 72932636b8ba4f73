"""Rows of benchmarks/results.csv: one measured comparison each."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.csv"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: times in milliseconds at the 20th, 50th and 80th percentile, memory in MiB.

    `ratio_p50` is the median of the ratios of neighbouring runs, which drift of the machine cancels from;
    it is not the ratio of the medians. `limit` is what the claim allows, in `limit_of` ("ratio" or "ms").
    """

    name: str
    size: str
    peer: str
    runs: int
    ours_p20: float
    ours_p50: float
    ours_p80: float
    peer_p20: float
    peer_p50: float
    peer_p80: float
    ratio_p50: float
    ours_peak_mib: float | None = None
    peer_peak_mib: float | None = None
    limit: float | None = None
    limit_of: str = ""

    @property
    def holds(self) -> bool:
        """Whether the claim holds; a row without a limit claims nothing."""
        measured = self.ratio_p50 if self.limit_of == "ratio" else self.ours_p50
        return self.limit is None or measured <= self.limit


def compared(ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """The columns of two series of times in seconds, taken in turns."""
    columns: dict[str, Any] = {"runs": len(ours)}
    for who, times in (("ours", ours), ("peer", peer)):
        for percentile, value in zip((20, 50, 80), np.percentile(times, (20, 50, 80)) * 1e3, strict=True):
            columns[f"{who}_p{percentile}"] = round(float(value), 4)
    columns["ratio_p50"] = round(float(np.median(np.divide(ours, peer))), 4)
    return columns


def record(rows: Sequence[Row]) -> None:
    """Appends the rows, with commit, time, machine and versions, and prints them."""
    where = circumstances()
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*where, *(f.name for f in fields(Row))], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows({**where, **asdict(row)} for row in rows)
    for row in rows:
        verdict = "" if row.limit is None else f"  limit {row.limit:g} {'holds' if row.holds else 'BROKEN'}"
        print(
            f"{row.name:20} {row.size:22} {row.ours_p50:9.3f} ms  {row.peer:18} {row.peer_p50:9.3f} ms  "
            f"ratio {row.ratio_p50:6.3f}{verdict}"
        )


def circumstances() -> dict[str, str]:
    """Where and with what a row was measured."""
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": f"{_processor()}, {torch.get_num_threads()} threads",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
    }


def _commit() -> str:
    """The commit; `+` follows when files other than the results differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    changed = [line for line in git("status", "--porcelain").splitlines() if not line.endswith(RESULTS.name)]
    return git("rev-parse", "--short", "HEAD").strip() + ("+" if changed else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
