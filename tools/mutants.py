"""Breaks the code on purpose, one committed mutation at a time: the tests that are named with it must fail.

Each mutation is applied to a temporary copy of the repository. A mutation is `seen` when its tests run and
one of them fails. It is an error when they pass, when its old text does not stand exactly once in the file,
or when the tests cannot run at all. Before all that, the untouched copy must pass the same tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTATIONS = ROOT / "tools" / "mutations.toml"
NEEDED = ("src", "tests", "studies", "tools", "pyproject.toml", "README.md")
SECONDS = 300
PASSED, FAILED, NOTHING_SELECTED = 0, 1, 5


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One change, and the tests that must see it.

    Args:
        name: what is broken, in words.
        covers: the form, evaluator or part that it breaks, e.g. "form: pairs".
        file: where, from the root of the repository.
        old: text that stands there exactly once.
        new: what takes its place.
        tests: file of the tests, or one test of it.
        only: expression of pytest's -k; all tests when empty.
    """

    name: str
    covers: str
    file: str
    old: str
    new: str
    tests: str
    only: str = ""

    def applied(self, text: str) -> str:
        """The text of the file with the change in it."""
        found = text.count(self.old)
        if found != 1:
            raise LookupError(f"old text found {found} times in {self.file}")
        if self.new == self.old:
            raise LookupError("new text is the old")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation."""

    mutation: Mutation
    verdict: str
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the tests saw it."""
        return self.verdict == "seen"


def read_mutations(path: Path = MUTATIONS) -> list[Mutation]:
    """The committed mutations; names are unique."""
    mutations = [Mutation(**entry) for entry in tomllib.loads(path.read_text())["mutation"]]
    names = [m.name for m in mutations]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise LookupError(f"mutations of the same name: {', '.join(twice)}")
    return mutations


def copy_repository(target: Path) -> Path:
    """What the tests need, without caches: a stale one could hide a change of the same length."""
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / name)
    return target


def run_tests(root: Path, tests: str, only: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest in the copy, on the copy's own code; ends it with all its processes when it hangs."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", tests]
    process = subprocess.Popen(
        [*command, *(["-k", only] if only else [])],
        cwd=root, env=environment_of(root), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def environment_of(root: Path) -> dict[str, str]:
    """The copy's code comes first, nothing is cached, and two runs at a time share the processors."""
    changed = {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **changed}


def try_mutation(mutation: Mutation) -> Outcome:
    """Applies one mutation to a fresh copy and runs its tests."""
    with tempfile.TemporaryDirectory() as folder:
        root = copy_repository(Path(folder))
        file = root / mutation.file
        try:
            file.write_text(mutation.applied(file.read_text()))
            done = run_tests(root, mutation.tests, mutation.only)
        except (LookupError, FileNotFoundError) as error:
            return Outcome(mutation, "STALE", str(error))
        except subprocess.TimeoutExpired:
            return Outcome(mutation, "HANGS", f"no end after {SECONDS} s")
    if done.returncode == FAILED and "\nFAILED " in done.stdout:  # an error in collection ends with 1 as well
        return Outcome(mutation, "seen", _last_line(done.stdout))
    if done.returncode == PASSED:
        return Outcome(mutation, "SURVIVES", _last_line(done.stdout))
    why = "selects no test" if done.returncode == NOTHING_SELECTED else _last_line(done.stdout)
    return Outcome(mutation, "CANNOT RUN", why)


def check_untouched(mutations: Sequence[Mutation]) -> list[str]:
    """What the untouched copy fails, by file of tests; and a proof that the copy's code is what runs."""
    by_file: dict[str, set[str]] = {}
    for mutation in mutations:
        by_file.setdefault(mutation.tests, set()).add(mutation.only)
    complaints: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        root = copy_repository(Path(folder))
        if not _runs_the_copy(root):
            return ["the tests would run another margins than the copy's"]
        for tests, expressions in sorted(by_file.items()):
            only = "" if "" in expressions else " or ".join(f"({e})" for e in sorted(expressions))
            done = run_tests(root, tests, only)
            if done.returncode != PASSED:
                complaints.append(f"{tests}: {_last_line(done.stdout)}")
    return complaints


def _runs_the_copy(root: Path) -> bool:
    command = [sys.executable, "-c", "import margins; print(margins.__file__)"]
    done = subprocess.run(command, env=environment_of(root), capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()).resolve().is_relative_to(root.resolve())


def uncovered(mutations: Sequence[Mutation]) -> list[str]:
    """Forms of losses and evaluators that no mutation breaks."""
    import margins.losses  # noqa: F401  (registers the cards)
    from margins.cards import loss_cards
    from margins.engine import Blockwise, Dense, Sharded, Spherical

    forms = {f"form: {card.form}" for card in loss_cards().values() if card.form}
    evaluators = {f"evaluator: {e.__name__.lower()}" for e in (Dense, Blockwise, Sharded, Spherical)}
    return sorted((forms | evaluators) - {m.covers for m in mutations})


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return (failed or lines or [""])[-1][:140]


def main(arguments: Sequence[str] | None = None) -> int:
    """Reports a line a mutation; 0 when all are seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="mutations whose name or part contains TEXT"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutations at a time (2)")
    options = parser.parse_args(arguments)
    mutations = read_mutations()
    missing = uncovered(mutations)
    chosen = [m for m in mutations if options.only in f"{m.name} {m.covers}"]
    complaints = [f"no mutation of {part}" for part in missing] + check_untouched(chosen)
    for complaint in complaints:
        print(complaint)
    if complaints or not chosen:
        print("mutants: not run" if chosen else f"mutants: none contains {options.only!r}")
        return 1
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes: list[Outcome] = []
        for outcome in pool.map(try_mutation, chosen):
            outcomes.append(outcome)
            detail = "" if outcome.is_good else f"  ({outcome.detail})"
            print(
                f"{outcome.verdict:10}  {outcome.mutation.covers:24}  {outcome.mutation.name}{detail}",
                flush=True,
            )
    good = sum(o.is_good for o in outcomes)
    print(f"mutants: {good} of {len(outcomes)} seen")
    return 0 if good == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
