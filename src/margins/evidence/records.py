"""The results of studies: one row a run, in one file that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from margins.data.settings import Settings
from margins.errors import MarginsError
from margins.evidence.outcomes import Outcome


class EffectRecord(Settings):
    """An effect as measured.

    Args:
        name: what was measured.
        above: the bound that was claimed.
        reaches: the size that was asked for; None for none.
        values: one a seed.
        mean: of them.
        low: of the 95 % interval of the mean.
        high: of it.
        outcome: of this effect.
    """

    name: str
    above: float
    reaches: float | None
    values: list[float]
    mean: float
    low: float
    high: float
    outcome: Outcome

    @property
    def reached(self) -> bool | None:
        """Whether the mean has the size that was asked for; None where none was."""
        return None if self.reaches is None else self.mean >= self.reaches


class StudyRecord(Settings):
    """A run of a study.

    Args:
        study: its name.
        outcome: of its first effect, or "not run".
        missing: what was missing, when it was not run.
        effects: as measured, the first one first.
        settings: of each arm, as chosen.
        figures: mean over seeds of every figure of every arm.
        num_seeds: of the report.
        seconds: of all its trials.
        commit: of the code that ran.
        versions: of what it ran on.
        code: the files that took part, with the first digits of their sha256.
    """

    study: str
    outcome: Outcome
    missing: str | None = None
    effects: list[EffectRecord]
    settings: dict[str, dict[str, Any]]
    figures: dict[str, dict[str, float]]
    num_seeds: int
    seconds: float
    commit: str
    versions: dict[str, str]
    code: dict[str, str]


def read_records(path: Path) -> list[StudyRecord]:
    """All rows of a file, the oldest first; none where there is no file.

    Raises:
        MarginsError: a line that is no such row, with its number.
    """
    if not path.exists():
        return []
    found: list[StudyRecord] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(StudyRecord.model_validate_json(line))
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise MarginsError(
                f"{path.name}, line {number}", expected="a row of a study", received=reason
            ) from None
    return found


def latest(records: Sequence[StudyRecord]) -> dict[str, StudyRecord]:
    """The newest row of each study."""
    return {record.study: record for record in records}


def known_results() -> dict[str, StudyRecord]:
    """The newest row of each study that came with the package, or of the checkout that it runs from."""
    package = Path(__file__).resolve().parent
    places = (package / "results.jsonl", package.parents[2] / "studies" / "results.jsonl")
    return latest(read_records(next((place for place in places if place.exists()), places[0])))


def add_record(path: Path, record: StudyRecord) -> None:
    """Adds a row at the end of the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(record.model_dump_json() + "\n")
