"""The folder of a comparison: its trials, its results, and the model that it leaves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from margins.compare.results import ComparisonResult
from margins.errors import MarginsError
from margins.training.run_folder import refuse_unusable

STORE, RESULTS, REPORT, MODEL, REFITS = "trials.db", "results.json", "report.html", "model", "refits"
_SHOWN = (MODEL, REPORT, RESULTS)  # in the order in which they move: after a crash results say what is left


@dataclass(frozen=True)
class ComparisonFolder:
    """Where a comparison keeps what it has; the same command again goes on there.

    Args:
        path: of the folder.
    """

    path: Path

    @property
    def store(self) -> Path:
        """The file of trials."""
        return self.path / STORE

    def check(self) -> None:
        """Refuses a folder that could not be written, or that holds something else; creates nothing.

        Raises:
            MarginsError: it is a file, holds files but no trials, or lies where this user may not write.
        """
        if not self.store.is_file():
            refuse_unusable(self.path)

    def finished(self, design: str) -> ComparisonResult | None:
        """The results of this design, if it was finished here before; its model may have another name now.

        Args:
            design: its digest.
        """
        for path in self._all_results():
            try:
                result = ComparisonResult.load(path)
            except (MarginsError, ValueError, TypeError, KeyError):
                continue  # of another version: the trials are there, so it is judged anew
            if result.design == design:
                return _with_model_of(result, path)
        return None

    def make_room(self, design: str) -> None:
        """Gives what another design left here names of its own: results, report and model.

        Args:
            design: the one that is to write.
        """
        present = self.path / RESULTS
        if not present.is_file() or _design_in(present) == design:
            return
        mark = hashlib.sha256(present.read_bytes()).hexdigest()[:8]
        for name in _SHOWN:
            old, new = self.path / name, self.path / _marked(name, mark)
            if old.exists() and not new.exists():
                old.rename(new)

    def save(self, result: ComparisonResult) -> ComparisonResult:
        """Writes the results, having made room; what had a name of its own gets back the usual one."""
        self.make_room(result.design)
        left = result.left
        if left is not None and left.model not in (None, MODEL):
            mark = str(left.model).removeprefix(f"{MODEL}-")
            if not (self.path / MODEL).exists():  # else results that were taken away by hand left it there
                for name in _SHOWN:
                    old = self.path / _marked(name, mark)
                    if old.exists():
                        old.rename(self.path / name)
                result = replace(result, left=replace(left, model=MODEL))
        result.save(self.path / RESULTS)
        return result

    def _all_results(self) -> list[Path]:
        others = sorted(self.path.glob("results-*.json")) if self.path.is_dir() else []
        present = self.path / RESULTS
        return [*([present] if present.is_file() else []), *others]


def _design_in(path: Path) -> str | None:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("design")
    except (ValueError, AttributeError):
        return None


def _marked(name: str, mark: str) -> str:
    path = Path(name)
    return f"{path.stem}-{mark}{path.suffix}"


def _with_model_of(result: ComparisonResult, path: Path) -> ComparisonResult:
    """The result, with the name that its model has beside this file."""
    if result.left is None or result.left.model is None or path.name == RESULTS:
        return result
    model = MODEL + path.stem.removeprefix(Path(RESULTS).stem)
    return replace(result, left=replace(result.left, model=model))
