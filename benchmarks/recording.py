"""Rows of benchmarks/results.csv: one measured comparison each.

The environment variable BENCHMARK_RESULTS names another file to write to, for a trial.
"""

from __future__ import annotations

import csv
import os
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
    it is not the ratio of the medians, unless the two ran in processes of their own. `limit` is what the
    claim allows, in `limit_of` ("ratio" or "ms"); `memory_limit` likewise, in `memory_limit_of` ("ratio" or
    "MiB"), of what the peaks hold beyond `gradients_mib`, the gradients of the inputs, which all must hold.
    `machine_limit_ms` is what the machine needs for the arithmetic that no method can leave out, measured in
    the same run. A peer that failed has no times, and `note` says why. `rate`, in `rate_of`, is ours.
    """

    name: str
    size: str
    peer: str
    runs: int
    ours_p20: float
    ours_p50: float
    ours_p80: float
    peer_p20: float | None = None
    peer_p50: float | None = None
    peer_p80: float | None = None
    ratio_p50: float | None = None
    ours_peak_mib: float | None = None
    peer_peak_mib: float | None = None
    limit: float | None = None
    limit_of: str = ""
    peer_runs: int | None = None
    peer_version: str = ""
    gradients_mib: float | None = None
    memory_limit: float | None = None
    memory_limit_of: str = ""
    machine_limit_ms: float | None = None
    ours_times_limit: float | None = None
    peer_times_limit: float | None = None
    rate: float | None = None
    rate_of: str = ""
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the claims hold; a row without a limit claims nothing."""
        return _within(self._measured(), self.limit) and _within(self._memory(), self.memory_limit)

    def _measured(self) -> float | None:
        return self.ratio_p50 if self.limit_of == "ratio" else self.ours_p50

    def _memory(self) -> float | None:
        """What `memory_limit` is held against."""
        if self.ours_peak_mib is None:
            return None
        ours = max(self.ours_peak_mib - (self.gradients_mib or 0.0), 0.0)
        if self.memory_limit_of != "ratio":
            return ours
        if self.peer_peak_mib is None:
            return None
        return ours / max(self.peer_peak_mib - (self.gradients_mib or 0.0), 1e-9)

    def told(self) -> str:
        """The row in one line for the terminal."""
        times = f"{self.name:20} {self.size:26} {self.ours_p50:10.3f} ms  "
        if self.rate is not None:
            return f"{times}{self.rate:10.1f} {self.rate_of}"
        peer = "" if self.peer_p50 is None else f" {self.peer_p50:10.3f} ms  ratio {self.ratio_p50:7.4f}"
        claims = [
            ("limit", self.limit, self.limit_of, self._measured()),
            ("memory limit", self.memory_limit, self.memory_limit_of, self._memory()),
        ]
        told = [
            f"  {what} {limit:.4g} {of}: {'nothing' if found is None else format(found, '.4g')} "
            f"{'holds' if _within(found, limit) else 'BROKEN'}"
            for what, limit, of, found in claims
            if limit is not None
        ]
        return f"{times}{self.peer:26}{peer}{''.join(told)}{'  ' if self.note else ''}{self.note}"


def _within(measured: float | None, limit: float | None) -> bool:
    """Whether a claim holds; nothing measured breaks none (a peer that failed, memory off Linux)."""
    return limit is None or measured is None or measured <= limit


def compared(ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """The columns of two series of times in seconds, taken in turns."""
    columns: dict[str, Any] = {"runs": len(ours), **percentiles("ours", ours), **percentiles("peer", peer)}
    columns["ratio_p50"] = round(float(np.median(np.divide(ours, peer))), 4)
    return columns


def percentiles(who: str, times: Sequence[float]) -> dict[str, float]:
    """The 20th, 50th and 80th percentile of times in seconds, in milliseconds."""
    found = zip((20, 50, 80), np.percentile(times, (20, 50, 80)) * 1e3, strict=True)
    return {f"{who}_p{percentile}": round(float(value), 4) for percentile, value in found}


def record(rows: Sequence[Row], *, device: str = "") -> None:
    """Appends the rows, with commit, time, machine and versions, and prints them."""
    where = circumstances() | ({"device": device} if device else {})
    append(results(), [{**where, **asdict(row)} for row in rows], [*where, *(f.name for f in fields(Row))])
    for row in rows:
        print(row.told())


def results() -> Path:
    """The file of results."""
    return Path(os.environ.get("BENCHMARK_RESULTS", RESULTS))


def append(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Adds rows to a CSV file. Columns that it does not have yet are empty in the rows that it has."""
    old: list[dict[str, str]] = []
    header: list[str] = []
    if path.exists():
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            old, header = list(reader), list(reader.fieldnames or [])
    wanted = [*header, *(column for column in columns if column not in header)]
    is_new = wanted != header
    with path.open("w" if is_new else "a", newline="") as file:
        writer = csv.DictWriter(file, wanted, restval="", lineterminator="\n")
        if is_new:
            writer.writeheader()
            writer.writerows(old)
        writer.writerows(rows)


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

    lines = git("status", "--porcelain").splitlines()
    changed = [line for line in lines if not ("benchmarks/" in line and line.endswith(".csv"))]
    return git("rev-parse", "--short", "HEAD").strip() + ("+" if changed else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
