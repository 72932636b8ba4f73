"""The trials of a study: run once, one or several at a time, kept until the code changes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from margins.errors import MarginsError
from margins.evidence.code import digest_of_all, files_used
from margins.evidence.declaring import Study

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training or measurement.

    Args:
        arm: its name.
        settings: of the arm.
        seed: where everything random follows from.
    """

    arm: str
    settings: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a trial gave.

    Args:
        figures: by name.
        seconds: that it took.
        files: of code whose functions ran; none where that was not looked at.
    """

    figures: dict[str, float]
    seconds: float
    files: list[str]


def load_study(path: Path) -> Study:
    """The study that a file declares as `STUDY`.

    Raises:
        MarginsError: there is no such file, it declares none, or one of another name.
    """
    if not path.exists():
        raise MarginsError("study", expected="the name of a file of studies", received=path.stem)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module_name = f"study_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - the file is there
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study) or study.name != path.stem:
        raise MarginsError(
            path.name, expected=f"STUDY = Study(name={path.stem!r}, ...)", received=repr(study)
        )
    return study


class Bench:
    """Runs trials of one study; a context, for the processes that it may have started.

    Args:
        path: of the study's file.
        kept: folder where trials are kept, so that a run that was stopped goes on.
        num_jobs: trials at once.
    """

    def __init__(self, path: Path, kept: Path, num_jobs: int) -> None:
        self.path, self._num_jobs = path, num_jobs
        self._file = kept / f"{path.stem}.jsonl"
        self._code = digest_of_all([PACKAGE, path.parent / "ground"], [path])
        self._known = dict(self._read())
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(
        self, trials: Sequence[Trial], *, traced: bool, told: Callable[[Trial, Measured], None] | None = None
    ) -> list[Measured]:
        """What the trials gave, in their order; those that are kept do not run again.

        Raises:
            MarginsError: a trial gave no finite figures.
        """
        waiting = [trial for trial in trials if self._key(trial, traced) not in self._known]
        for trial, measured in self._done(waiting, traced):
            for name, figure in measured.figures.items():
                if not math.isfinite(figure):
                    raise MarginsError(
                        f"{self.path.stem}: {trial.arm} with {dict(trial.settings)}, seed {trial.seed}",
                        expected="finite figures", received=f"{name} = {figure}",
                    )  # fmt: skip
            self._keep(self._key(trial, traced), measured)
            if told is not None:
                told(trial, measured)
        return [self._known[self._key(trial, traced)] for trial in trials]

    def _done(self, trials: Sequence[Trial], traced: bool) -> Iterable[tuple[Trial, Measured]]:
        if self._num_jobs == 1:
            for trial in trials:
                yield trial, measure(self.path, trial, traced)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._num_jobs, mp_context=multiprocessing.get_context("spawn"))
        pool = self._pool
        waited = {pool.submit(measure, self.path, trial, traced): trial for trial in trials}
        for future in as_completed(waited):
            yield waited[future], future.result()

    def _key(self, trial: Trial, traced: bool) -> str:
        told = json.dumps([self._code, trial.arm, dict(trial.settings), trial.seed, traced], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:24]

    def _read(self) -> Iterable[tuple[str, Measured]]:
        if not self._file.exists():
            return
        for line in self._file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was stopped while it wrote
            yield row.pop("key"), Measured(**row)

    def _keep(self, key: str, measured: Measured) -> None:
        self._known[key] = measured
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **vars(measured)}) + "\n")


def measure(path: Path, trial: Trial, traced: bool) -> Measured:
    """Runs a trial with one thread; `traced` also finds the files of code that take part."""
    import torch

    torch.set_num_threads(1)
    study = load_study(path)
    start = time.perf_counter()
    # A partial, so that no frame of this file takes part.
    call = partial(study.trial, trial.arm, dict(trial.settings), trial.seed)
    figures, files = files_used(call, [PACKAGE, path.parent]) if traced else (call(), set[Path]())
    return Measured(
        figures={name: float(figure) for name, figure in figures.items()},
        seconds=time.perf_counter() - start,
        files=sorted(str(file) for file in files),
    )
