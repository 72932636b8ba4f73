"""The one typed result of a comparison: saved as JSON, reloaded, and drawn by the report.

Every number of the report comes from here; the report computes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from margins.errors import MarginsError
from margins.evaluation.verdicts import Verdict

SCHEMA = 3
_TURNED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


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
    num_classes: int  # classes or labels; 0 where numbers are predicted
    class_counts: dict[str, int]  # class or label -> rows, largest first
    chance_level: float | None  # the metric of the best constant guess, where that is defined
    num_folds: int
    num_repeats: int
    num_seeds: int
    encoder: str  # one line of prose
    protocol: list[str]  # sentences: folds, roles, early stopping, corruption of the training rows, ...
    versions: dict[str, str]
    started: str  # ISO 8601, UTC
    seconds: float  # of this call; trials that an earlier one had done are not in it
    task: str = "classes"
    num_report: int = 0  # rows kept to report
    budget: str = "quick"


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
    seconds: float  # of all its trainings, the search among them
    rank_low: int = 0  # the lowest place it may have: all but those significantly worse stand before it
    row_visits: int = 0  # of its searches
    peak_bytes: int | None = None  # the most memory a training took; None where it was not measured
    space: dict[str, Any] = field(default_factory=dict)  # path of a key -> what the search may set it to
    found: list[dict[str, Any]] = field(default_factory=list)  # one an outer fold: what the search set
    prior: list[str] = field(default_factory=list)  # sentences on the class prior that its training saw
    calibration: dict[str, Any] = field(default_factory=dict)  # of outer folds: log_loss, ece before, after


@dataclass(frozen=True, kw_only=True)
class FailedRecipe:
    """A recipe that could not be trained in some or all outer folds, and so was not judged."""

    name: str
    title: str
    num_failed: int
    num_folds: int
    error: str  # the first one


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
    same: float | None = None  # posterior mass of a difference that does not matter; None without a rope


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What the design could show, said before anything was judged."""

    low: float | None  # detectable at 80 % power if recipes differ in spread as two seeds do
    high: float | None  # the same if pairing by folds gains nothing
    how: str  # "pilot" or "stated"
    sentences: list[str]


@dataclass(frozen=True, kw_only=True)
class LastLayer:
    """The geometry of the last layer of the model that is left, on the rows that it was trained on."""

    spread: float  # NC1: of features inside classes, over that of the class means
    off_diagonal: float  # share of the energy of the class means' products that is between classes
    disagreement: float  # NC4: share of rows on which head and nearest class mean decide differently
    shortest: str  # class whose row of the head is the shortest
    length: float  # of that row, over that of the longest


@dataclass(frozen=True, kw_only=True)
class Left:
    """What the comparison leaves behind, and how the report rows judged it, once."""

    recipe: str  # the one that was trained again on all rows but those kept to report
    values: dict[str, Any]  # of its hyperparameters
    model: str | None  # folder of the saved model, below the run's; None when nothing was written
    num_seeds: int  # trainings of each that the report rows judged
    scores: dict[str, float]  # recipe -> mean over seeds of the metric on the report rows
    others: dict[str, dict[str, float]]  # recipe -> other metrics on the report rows, mean over seeds
    difference: float | None  # of the winner and the baseline on the report rows
    low: float | None  # 95 % interval: paired hierarchical bootstrap of seeds and rows
    high: float | None
    num_openings: int  # of the report rows so far, this one among them; 0 without report rows
    last_layer: LastLayer | None = None  # of classes with a linear head, where there are report rows


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
    rope: float | None = None  # differences up to this size do not matter
    looked: bool = False  # repeats were added after results had been seen: no recipe is called better
    preview: Preview | None = None
    failed: list[FailedRecipe] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # recipe -> why it takes no part
    left: Left | None = None
    design: str = ""  # digest of all that was fixed before the run
    schema: int = SCHEMA

    def difference(self, first: str, second: str) -> Difference:
        """The difference `first - second`, turned round when it is stored the other way."""
        for d in self.differences:
            if (d.first, d.second) == (first, second):
                return d
            if (d.first, d.second) == (second, first):
                return dataclasses.replace(
                    d, first=first, second=second, mean=-d.mean, low=-d.high, high=-d.low,
                    verdict=_TURNED.get(d.verdict, d.verdict),
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
        """Reads what `save` wrote.

        Raises:
            MarginsError: results of another version.
        """
        data: dict[str, Any] = json.loads(path.read_text())
        if data.get("schema") != SCHEMA:
            raise MarginsError(
                str(path), expected=f"results of schema {SCHEMA}", received=str(data.get("schema")),
                fix="read them with the version of margins that wrote them",
            )  # fmt: skip
        data["description"] = RunDescription(**data["description"])
        data["recipes"] = [RecipeResult(**r) for r in data["recipes"]]
        data["differences"] = [Difference(**d) for d in data["differences"]]
        data["failed"] = [FailedRecipe(**f) for f in data["failed"]]
        data["preview"] = None if data["preview"] is None else Preview(**data["preview"])
        data["left"] = None if data["left"] is None else _left(data["left"])
        return cls(**data)


def _left(data: dict[str, Any]) -> Left:
    layer = data.pop("last_layer", None)
    return Left(**data, last_layer=None if layer is None else LastLayer(**layer))
