"""Contests: the ways to compute one loss of the same inputs, forward and backward, timed against each other.

Quick ways take turns in one fresh process, with the machine's limit among them. A way that takes seconds or
gigabytes runs in a process of its own. The ways give the same value and the same gradients, or the row says
why they do not. Peak memory is that of the first step in a fresh process. A peer that is not installed is
left out, by name; one that fails is recorded with what it said.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limits import Run
from recording import Row, percentiles, record

OURS, LIMIT = "margins", "the machine's limit"
DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")

Inputs = Sequence[Tensor]
LossOf = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to compute the loss, and what we claim of ours against it.

    Args:
        make: gives the function from the inputs to the loss; called where the way runs, so that a peer's
            library is loaded there alone.
        alone: so many timed runs in a process of its own, after the first; 0 to take turns with others.
            With `is_slow` the first is the one run, with page faults and all.
        is_slow: so slow that its first step is the one run.
        package: whose version is recorded.
        ratio: our time is at most this part of its time.
        memory_ratio: our peak beyond inputs and gradients is at most this part of its peak.
        memory_mib: our peak beyond inputs and gradients is at most this.
        differs: why value and gradients differ from ours by definition; empty when they must agree.
        needs_cuda: left out elsewhere.
        address_space_gib: of its process; what it asks for beyond fails.
    """

    make: Callable[[], LossOf]
    alone: int = 0
    is_slow: bool = False
    package: str = ""
    ratio: float | None = None
    memory_ratio: float | None = None
    memory_mib: float | None = None
    differs: str = ""
    needs_cuda: bool = False
    address_space_gib: float | None = None

    @property
    def is_alone(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.alone > 0 or self.is_slow


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Inputs of a size, the ways to compute one loss of them, and the machine's limit.

    Args:
        name: of the loss.
        size: in words.
        inputs: gives them; the first `num_learned` get gradients.
        small: inputs too small to matter, which load libraries and threads before memory is measured.
        num_learned: see `inputs`.
        limit: gives the arithmetic that no way can leave out, from the inputs; None to record no limit.
        ways: by name; ours is "margins".
        rounds: timed turns.
        warm_up: turns before them.
        tolerance: relative, of value and of the norms of the gradients.
    """

    name: str
    size: str
    inputs: Callable[[], Inputs]
    small: Callable[[], Inputs]
    num_learned: int
    limit: Callable[..., Run] | None
    ways: dict[str, Way]
    rounds: int = 9
    warm_up: int = 2
    tolerance: float = 1e-3


class ContestError(RuntimeError):
    """A contest without a result: ours failed, or the ways disagree."""


@dataclass(kw_only=True)
class Measured:
    """What came of a way."""

    times: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)  # the value, then the norm of each gradient
    peak_mib: float | None = None
    failure: str = ""


def inputs_of(make: Callable[[], Inputs], num_learned: int) -> tuple[Inputs, list[Tensor]]:
    """Seeded inputs on the device, and the leaves among them."""
    torch.manual_seed(0)
    inputs = [x.to(DEVICE) for x in make()]
    return inputs, [x.requires_grad_() for x in inputs[:num_learned]]


def step_of(loss_of: LossOf, inputs: Inputs, leaves: Sequence[Tensor]) -> Callable[[], Tensor]:
    """Forward and backward to fresh gradients."""

    def step() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        loss = loss_of(*inputs)
        loss.backward()
        return loss.detach()

    return step


def timed(run: Run) -> float:
    """Seconds of one run."""
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def in_turns(contest: Contest, names: Sequence[str]) -> dict[str, Measured]:
    """The ways of these names and the limit, one after another in every round."""
    inputs, leaves = inputs_of(contest.inputs, contest.num_learned)
    runs: dict[str, Run] = {
        name: step_of(contest.ways[name].make(), inputs, leaves) for name in names if name != LIMIT
    }
    if contest.limit is not None and LIMIT in names:
        runs[LIMIT] = contest.limit(*inputs)
    measured = {name: Measured() for name in runs}
    for turn in range(contest.warm_up + contest.rounds):
        for name, run in runs.items():
            seconds = timed(run)
            if turn >= contest.warm_up:
                measured[name].times.append(seconds)
    return measured


def alone(contest: Contest, name: str) -> Measured:
    """The peak of a way in the first step of a process, its value and gradients, and its times when alone."""
    way = contest.ways[name]
    if way.address_space_gib is not None:
        most = int(way.address_space_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    loss_of = way.make()
    step_of(loss_of, *inputs_of(contest.small, contest.num_learned))()
    inputs, leaves = inputs_of(contest.inputs, contest.num_learned)
    step = step_of(loss_of, inputs, leaves)
    watch = _peak_watch()
    values: list[Tensor] = []
    first = timed(lambda: values.append(step()))
    peak = watch()
    found = [float(values[0]), *(float(leaf.grad.norm()) for leaf in leaves if leaf.grad is not None)]
    times = [first] if way.is_slow else [timed(step) for _ in range(way.alone)]
    return Measured(times=times, found=found, peak_mib=peak)


def _peak_watch() -> Callable[[], float | None]:
    """From here on: how far memory grows at its peak, in MiB; None where that is not known."""
    if DEVICE.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        return lambda: round((torch.cuda.max_memory_allocated() - held) / 2**20, 1)
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return lambda: None
    clear.write_text("5")
    before = _memory_mib("VmRSS")
    return lambda: round(_memory_mib("VmHWM") - before, 1)


def _memory_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def _wait() -> None:
    """Until the device is done."""
    if DEVICE.startswith("cuda"):
        torch.cuda.synchronize()


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` gives in a process of its own; a Measured with the failure when it fails or is killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool:
            return Measured(failure="its process was killed")
        except ImportError as error:
            return Measured(failure=f"not installed: {error}")
        except (
            RuntimeError,
            MemoryError,
            NotImplementedError,
            ValueError,
            AttributeError,
            TypeError,
        ) as error:
            return Measured(failure=_told(error))


def _told(error: Exception) -> str:
    """An error in one short line."""
    text = str(error) or type(error).__name__
    wanted = re.search(r"tried to allocate (\d+) bytes", text)
    if wanted:
        return f"out of memory: asked for {int(wanted[1]) / 2**30:.1f} GiB more"
    return f"{type(error).__name__}: {text.splitlines()[0][:120]}"


def measured(contest: Contest) -> dict[str, Measured]:
    """All ways of a contest and the limit; those left out stand with the reason in `failure`."""
    found: dict[str, Measured] = {}
    for name, way in contest.ways.items():
        if way.needs_cuda and not DEVICE.startswith("cuda"):
            found[name] = Measured(failure="left out: needs CUDA")
        else:
            found[name] = in_fresh_process(alone, contest, name)
    quick = [name for name, way in contest.ways.items() if not way.is_alone and not found[name].failure]
    together = in_fresh_process(in_turns, contest, [*quick, *([LIMIT] if contest.limit else [])])
    if isinstance(together, Measured):
        raise ContestError(f"{contest.name}, {contest.size}: {together.failure}")
    for name, one in together.items():
        known = found.get(name, one)
        found[name] = replace(known, times=one.times)
    if found[OURS].failure:
        raise ContestError(f"{contest.name}, {contest.size}: {found[OURS].failure}")
    check_agreement(contest, found)
    return found


def check_agreement(contest: Contest, found: dict[str, Measured]) -> None:
    """Raises ContestError when a way gives another value or other gradients than ours, unless it says why."""
    ours = found[OURS].found
    for name, way in contest.ways.items():
        theirs = found[name].found
        if not way.differs and not found[name].failure and not np.allclose(
            ours, theirs, rtol=contest.tolerance
        ):  # fmt: skip
            raise ContestError(f"{contest.name}, {contest.size}: {name} gives {theirs}, ours is {ours}")


def rows_of(contest: Contest) -> Iterator[Row]:
    """One row a peer that was measured or failed; those left out are told on the terminal."""
    found = measured(contest)
    inputs, _ = inputs_of(contest.inputs, contest.num_learned)
    gradients = sum(x.numel() * x.element_size() for x in inputs[: contest.num_learned]) / 2**20
    for name, way in contest.ways.items():
        if found[name].failure.startswith(("not installed", "left out")):
            print(f"{contest.name}, {contest.size}: {name} {found[name].failure}")
        elif name != OURS:
            yield row_of(contest, way, name, found, round(gradients, 1))


def row_of(contest: Contest, way: Way, name: str, found: dict[str, Measured], gradients: float) -> Row:
    """The row of a peer."""
    ours, theirs = found[OURS], found[name]
    columns: dict[str, Any] = percentiles("ours", ours.times)
    if LIMIT in found:
        limit = columns["machine_limit_ms"] = percentiles("ours", found[LIMIT].times)["ours_p50"]
        columns["ours_times_limit"] = round(columns["ours_p50"] / limit, 3)
    if theirs.times:
        columns |= {"peer_runs": len(theirs.times), **percentiles("peer", theirs.times)}
        in_turn = not (way.is_alone or contest.ways[OURS].is_alone)
        ratio = np.median(np.divide(ours.times, theirs.times)) if in_turn else None
        columns["ratio_p50"] = round(float(ratio or columns["ours_p50"] / columns["peer_p50"]), 6)
        if LIMIT in found:
            columns["peer_times_limit"] = round(columns["peer_p50"] / columns["machine_limit_ms"], 3)
    memory = way.memory_ratio if way.memory_ratio is not None else way.memory_mib
    within = f" within {way.address_space_gib:g} GiB of address space" if way.address_space_gib else ""
    return Row(
        name=contest.name, size=contest.size, peer=name, runs=len(ours.times),
        ours_peak_mib=ours.peak_mib, peer_peak_mib=theirs.peak_mib, gradients_mib=gradients,
        limit=way.ratio, limit_of="" if way.ratio is None else "ratio",
        memory_limit=memory,
        memory_limit_of="" if memory is None else "ratio" if way.memory_ratio is not None else "MiB",
        peer_version=f"{way.package} {importlib.metadata.version(way.package)}" if way.package else "",
        note=theirs.failure + within if theirs.failure else way.differs, **columns,
    )  # fmt: skip


def run_all(contests: Sequence[Contest]) -> int:
    """Measures, records after each contest, and says by the exit code whether the limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="a pattern of names and sizes, as in 'SupCon, B 1024'")
    parser.add_argument("--device", default=DEVICE, help="cpu or cuda")
    asked = parser.parse_args()
    if asked.device != DEVICE:  # the processes of the ways read it when they start, this one has read it
        os.execve(  # noqa: S606
            sys.executable, [sys.executable, *sys.argv], {**os.environ, "BENCHMARK_DEVICE": asked.device}
        )
    holds = True
    for contest in contests:
        if not re.search(asked.only, f"{contest.name}, {contest.size}"):
            continue
        try:
            rows = list(rows_of(contest))
        except ContestError as error:
            print(error, file=sys.stderr)
            holds = False
        else:
            record(rows, device=torch.cuda.get_device_name() if DEVICE.startswith("cuda") else "")
            holds = holds and all(row.holds for row in rows)
    return 0 if holds else 1
