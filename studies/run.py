"""Runs studies and adds a row of results for each.

    python studies/run.py                   those that have no result or whose code has changed
    python studies/run.py aldr_kl dice      these
    python studies/run.py --all             all of them
    python studies/run.py dice --develop    on other seeds, without a row

A run that was stopped goes on where it stood. Nothing is recorded of code that was not committed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from margins.errors import MarginsError
from margins.evidence import (
    Measured,
    StudyRecord,
    Trial,
    add_record,
    changed,
    latest,
    read_records,
    run_study,
)

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"


def all_studies() -> list[str]:
    """The names of all studies."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run")


def due(names: Sequence[str]) -> list[str]:
    """Those without a result, those not run for something missing, and those whose code has changed since."""
    known = latest(read_records(RESULTS))
    return [
        name for name in names
        if name not in known or known[name].missing or changed(known[name].code, HERE.parent)
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of studies; those that are due without any")
    parser.add_argument("--all", action="store_true", help="every study, whether its code changed or not")
    parser.add_argument("--list", action="store_true", help="only say which would run")
    parser.add_argument("--develop", action="store_true", help="on other seeds; records nothing")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once, each with one thread")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in all_studies()]
    if unknown or asked.jobs < 1:
        parser.error(
            f"no study {unknown[0]!r}; there are {', '.join(all_studies())}" if unknown else "--jobs >= 1"
        )
    names = asked.names or (all_studies() if asked.all else due(all_studies()))
    if asked.list:
        print("\n".join(names))
        return 0
    try:
        for name in names:
            _run(name, asked.jobs, develop=asked.develop)
    except MarginsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(name: str, num_jobs: int, *, develop: bool) -> None:
    print(f"{name} ...", flush=True)
    start = time.perf_counter()
    record = run_study(
        HERE / f"{name}.py", root=HERE.parent, num_jobs=num_jobs, develop=develop,
        told=_tell if develop else None,
    )  # fmt: skip
    _show(record, time.perf_counter() - start)
    if not develop:
        add_record(RESULTS, record)


def _tell(trial: Trial, measured: Measured) -> None:
    shown = ", ".join(f"{name} {figure:.4g}" for name, figure in measured.figures.items())
    settings = ", ".join(f"{key}={value}" for key, value in trial.settings.items())
    print(f"  {trial.arm} [{settings}] seed {trial.seed}: {shown}  ({measured.seconds:.1f} s)", flush=True)


def _show(record: StudyRecord, seconds: float) -> None:
    print(f"{record.study}: {record.outcome}" + (f" ({record.missing})" if record.missing else ""))
    for effect in record.effects:
        bound = f"above {effect.above:g}" + (
            f", asked {effect.reaches:g}" if effect.reaches is not None else ""
        )
        interval = f"{effect.mean:+.4g} [{effect.low:.4g}, {effect.high:.4g}]"
        print(f"  {effect.name}: {interval} ({bound}) {effect.outcome}")
    for arm, settings in record.settings.items():
        figures = ", ".join(f"{name} {value:.4g}" for name, value in record.figures[arm].items())
        chosen = ", ".join(f"{key}={value}" for key, value in settings.items())
        print(f"  {arm}{f' ({chosen})' if chosen else ''}: {figures}")
    print(f"  {seconds:.0f} s here, {record.seconds:.0f} s of trials", flush=True)


if __name__ == "__main__":
    sys.exit(main())
