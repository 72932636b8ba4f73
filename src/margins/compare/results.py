"""The one typed result of a comparison: saved as JSON, reloaded, and drawn by the report.

Every number of the report comes from here; the report computes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What was compared, on what, how."""

    source: str  # file name or the name of a bundled data set; never a full path
    fingerprint: str  # SHA-256 of the content, the same whatever file format it came from
    kind: str  # of the inputs, e.g. "text" or "numeric, categorical"
    inputs: list[str]
    target: str
    metric: str
    num_rows: int
    num_classes: int
    class_counts: dict[str, int]  # class name -> rows, largest first
    chance_level: float | None  # the metric of the best constant guess, where that is defined
    num_folds: int
    num_repeats: int
    num_seeds: int
    encoder: str  # one line of prose
    protocol: list[str]  # sentences: folds, roles, early stopping, corruption of the training rows, ...
    versions: dict[str, str]
    started: str  # ISO 8601, UTC
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """One recipe: its scores, one a outer fold (averaged over seeds), and where they put it."""

    name: str
    title: str  # e.g. "Generalised cross-entropy (q = 0.7)"
    why: str  # the reason it takes part
    settings: dict[str, Any]
    fold_scores: list[float]
    mean: float
    seed_spread: float | None  # mean standard deviation over seeds within a fold; None with one seed
    rank: int  # 1 + the number of recipes significantly better than it
    epochs: float  # mean number of epochs until the kept weights
    seconds: float  # training time, all folds and seeds


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference of mean scores, `first - second`, with its corrected resampled t interval."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    p_value: float
    p_holm: float  # adjusted over all pairs of the comparison
    verdict: Verdict  # of the first over the second


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """A whole comparison."""

    description: RunDescription
    recipes: list[RecipeResult]  # best mean first
    differences: list[Difference]  # all pairs
    baseline: str
    confidence: float  # 0.95
    detectable_difference: float  # at 80 % power for one pair, from the spread of the differences seen
    answer: str  # the sentence a user came for
    warnings: list[str]
    schema: int = 2

    def difference(self, first: str, second: str) -> Difference:
        """The difference `first - second`, turned round when it is stored the other way."""
        for d in self.differences:
            if (d.first, d.second) == (first, second):
                return d
            if (d.first, d.second) == (second, first):
                turned: dict[Verdict, Verdict] = {
                    "better": "worse",
                    "worse": "better",
                    "undecided": "undecided",
                }
                return Difference(
                    first=first, second=second, mean=-d.mean, low=-d.high, high=-d.low,
                    p_value=d.p_value, p_holm=d.p_holm, verdict=turned[d.verdict],
                )  # fmt: skip
        raise KeyError((first, second))

    def save(self, path: Path) -> None:
        """Writes JSON to a neighbouring file and renames it, so that no half-written file is ever seen."""
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_text(json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> ComparisonResult:
        """Reads what `save` wrote."""
        data: dict[str, Any] = json.loads(path.read_text())
        data["description"] = RunDescription(**data["description"])
        data["recipes"] = [RecipeResult(**r) for r in data["recipes"]]
        data["differences"] = [Difference(**d) for d in data["differences"]]
        return cls(**data)
