"""A study from its declaration to a row of results."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import margins
from margins.errors import MarginsError
from margins.evidence.code import digests
from margins.evidence.declaring import (
    CHOSEN_BY,
    FIRST_DEVELOPMENT_SEED,
    FIRST_TUNING_SEED,
    Effect,
    Figures,
    Study,
)
from margins.evidence.outcomes import outcome_of
from margins.evidence.records import EffectRecord, StudyRecord
from margins.evidence.trials import Bench, Measured, Trial, load_study
from margins.evidence.tuning import settings_to_try

Told = Callable[[Trial, Measured], None]


def run_study(
    path: Path, *, root: Path, num_jobs: int = 1, develop: bool = False, told: Told | None = None
) -> StudyRecord:
    """Chooses the settings of every arm, runs the reported seeds, and judges the effects.

    Args:
        path: of the study's file.
        root: of the repository; its commit is recorded.
        num_jobs: trials at once; one for a study of times.
        develop: uses seeds that are neither reported nor tuned on; the row says so by its commit, "".
        told: told of each trial that ran.

    Raises:
        MarginsError: no such study, or a trial gave what cannot be judged.
    """
    study = load_study(path)
    commit = "" if develop else commit_of(root)
    missing = study.missing() if study.missing is not None else None
    if missing is not None:
        return _record(study, root, [], {}, {}, 0.0, set(), missing=missing, commit=commit)
    with Bench(path, path.parent / ".kept", 1 if study.times else num_jobs) as bench:
        settings, spent = _chosen(study, bench, develop, told)
        first = FIRST_DEVELOPMENT_SEED if develop else 0
        seeds = range(first, first + study.num_seeds)
        trials = [Trial(arm=arm, settings=settings[arm], seed=seed) for seed in seeds for arm in study.arms]
        # A study of times is traced apart, on a seed that is not reported: tracing slows what it watches.
        watched = [t for t in trials if t.seed == first]
        if study.times:
            watched = [Trial(arm=t.arm, settings=t.settings, seed=FIRST_DEVELOPMENT_SEED) for t in watched]
        traced = bench.run(watched, traced=True, told=told)
        found = dict(zip(map(_place, watched), traced, strict=True))
        rest = [trial for trial in trials if _place(trial) not in found]
        found |= dict(zip(map(_place, rest), bench.run(rest, traced=False, told=told), strict=True))
    by_seed = [{arm: found[arm, seed].figures for arm in study.arms} for seed in seeds]
    seconds = spent + sum(measured.seconds for measured in found.values())
    used = {Path(file) for measured in traced for file in measured.files} | {path.resolve()}
    files = {file for file in used if file.is_relative_to(root.resolve())}
    effects = [_judged(study, effect, by_seed) for effect in study.effects]
    means = {
        arm: {name: fmean(row[arm][name] for row in by_seed) for name in by_seed[0][arm]}
        for arm in study.arms
    }
    return _record(study, root, effects, settings, means, seconds, files, missing=None, commit=commit)


def _place(trial: Trial) -> tuple[str, int]:
    return trial.arm, trial.seed


def _chosen(
    study: Study, bench: Bench, develop: bool, told: Told | None
) -> tuple[dict[str, dict[str, Any]], float]:
    """The settings of every arm with the best mean of what chooses, and the seconds that the search took."""
    chosen: dict[str, dict[str, Any]] = {}
    seconds = 0.0
    first = FIRST_DEVELOPMENT_SEED + 500 if develop else FIRST_TUNING_SEED
    seeds = range(first, first + study.num_tuning_seeds)
    for arm, grid in study.arms.items():
        options = settings_to_try(grid, study.budget)
        if len(options) == 1:
            chosen[arm] = options[0]
            continue
        trials = [Trial(arm=arm, settings=option, seed=seed) for option in options for seed in seeds]
        measured = bench.run(trials, traced=False, told=told)
        seconds += sum(each.seconds for each in measured)
        if any(CHOSEN_BY not in each.figures for each in measured):
            raise MarginsError(
                f"{study.name}: {arm}", expected=f"a figure {CHOSEN_BY!r} to choose settings by",
                received=", ".join(measured[0].figures),
            )  # fmt: skip
        each = len(seeds)
        scores = [
            fmean(m.figures[CHOSEN_BY] for m in measured[place * each : (place + 1) * each])
            for place in range(len(options))
        ]
        chosen[arm] = options[scores.index(max(scores))]
    return chosen, seconds


def _judged(study: Study, effect: Effect, by_seed: Sequence[Figures]) -> EffectRecord:
    values = [float(effect.of(figures)) for figures in by_seed]
    outcome, low, high = outcome_of(values, effect.above, test_to_train=study.test_to_train)
    return EffectRecord(
        name=effect.name, above=effect.above, reaches=effect.reaches, values=values, mean=fmean(values),
        low=low, high=high, outcome=outcome,
    )  # fmt: skip


def _record(
    study: Study,
    root: Path,
    effects: list[EffectRecord],
    settings: dict[str, dict[str, Any]],
    figures: Mapping[str, dict[str, float]],
    seconds: float,
    files: set[Path],
    *,
    missing: str | None,
    commit: str,
) -> StudyRecord:
    return StudyRecord(
        study=study.name, outcome="not run" if missing else effects[0].outcome, missing=missing,
        effects=effects, settings=settings, figures=dict(figures),
        num_seeds=study.num_seeds, seconds=round(seconds, 1), commit=commit,
        versions=_versions(), code=digests(files, root.resolve()),
    )  # fmt: skip


def commit_of(root: Path) -> str:
    """The commit of a clean checkout, so that what ran can be found again.

    Raises:
        MarginsError: the package or the studies differ from what was committed.
    """
    changed = _git(root, "status", "--porcelain", "--", "src", "studies/*.py", "studies/ground")
    if changed:
        raise MarginsError(
            "studies", expected="a claim and its analysis that were committed before the run",
            received=changed.splitlines()[0], fix="commit first, or use --develop, which records nothing",
        )  # fmt: skip
    return _git(root, "rev-parse", "--short=12", "HEAD")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)  # noqa: S603, S607
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    import numpy as np
    import torch

    return {
        "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
        "margins": margins.__version__,
    }  # fmt: skip
