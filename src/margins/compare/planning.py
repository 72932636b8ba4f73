"""What is fixed before a comparison runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import margins
from margins.compare.candidates.candidate import Candidate
from margins.compare.kept.store_file import plain_json
from margins.compare.problem.folding import FoldRoles, Spoiling, mean_test_to_train
from margins.compare.problem.rows import ComparedRows
from margins.compare.trials.budget import Budget
from margins.data.columns import Columns
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.training.defaults import default_recipe
from margins.training.randomness import seed_of
from margins.training.recipe import Recipe, Task

_OWN = {
    "objective": "candidates= names the objectives that are compared",
    "metric": "metric= says it",
    "seed": "seed= says it",
    "plan": "a comparison trains one phase so far",
    "decisions": "candidates= says how each decides",
}
EVIDENCE = ("num_folds", "num_repeats", "num_seeds", "seed", "rope", "confidence")
"""What can be changed to look once more, or with other eyes, at the same question."""
_WITHOUT_CODE_OF = ("cli", "report")  # they train and judge nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """All that trials share, and how they will be judged.

    Args:
        rows: the data.
        folds: over all repeats.
        last: the roles of the training that is left behind.
        num_repeats: of the division into folds.
        candidates: that are compared, the baseline first.
        num_seeds: trainings of each on each fold.
        seed: where all random choices start from.
        metric: judges, and chooses epochs.
        training: the recipe that all share.
        budget: of the search.
        rope: differences up to this size do not matter; None leaves open which do.
        confidence: of intervals and verdicts.
        positive: the class that was asked for.
        spoiling: of the rows outside each fold.
        changes: keys of the shared recipe that were asked for.
        left_out: name of a recipe to the reason why it takes no part.
    """

    rows: ComparedRows
    folds: Sequence[FoldRoles]
    last: FoldRoles
    num_repeats: int
    candidates: Sequence[Candidate]
    num_seeds: int
    seed: int
    metric: Metric
    training: Recipe
    budget: Budget
    rope: float | None
    confidence: float
    positive: str | None = None
    spoiling: Spoiling | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def places(self) -> list[FoldRoles]:
        """The outer folds and, after them, the last training."""
        return [*self.folds, self.last]

    @property
    def baseline(self) -> Candidate:
        """The one that the others are compared with."""
        return self.candidates[0]

    @property
    def num_folds(self) -> int:
        """Of one repeat."""
        return len(self.folds) // self.num_repeats

    @property
    def test_to_train(self) -> float:
        """Rows of an outer test fold over rows outside it."""
        return mean_test_to_train(self.folds, len(self.rows.inside))

    @property
    def alpha(self) -> float:
        """What the first of all pairs must pass: Holm's correction over m (m - 1) / 2 of them."""
        num = len(self.candidates)
        return (1 - self.confidence) / (num * (num - 1) / 2)

    def spec(
        self, place: int, kind: str, candidate: Candidate, values: Mapping[str, Any], **more: Any
    ) -> dict[str, Any]:
        """A trial as plain data: all that its outcome depends on, and nothing else.

        Args:
            place: which of `places`.
            kind: "search" sees no row that judges, "outer" is judged by them at the end.
            candidate: the recipe.
            values: of its hyperparameters.
            more: keys of the recipe: max_epochs, seed.
        """
        recipe = candidate.recipe(self.training, values, **more)
        return {
            "kind": kind,
            "data": self.rows.frame.fingerprint,
            "question": self._question,
            "roles": self._digests[place],
            "recipe": recipe.model_dump(mode="json"),
            "code": code_version(),
        }

    def seed_of(self, place: int, number: int) -> int:
        """The seed of a training; all recipes start alike and see rows in one order.

        Args:
            place: which of `places`.
            number: 0 of the search; from 1 on of the trainings that are judged.
        """
        roles = self.places[place]
        return seed_of(self.seed, "compare", roles.repeat, roles.fold, number) % 2**31

    def to_data(self) -> dict[str, Any]:
        """What tells this comparison from others of the same data."""
        return {
            "data": self.rows.frame.fingerprint,
            "question": self._question,
            "metric": self.metric.name,
            "candidates": [c.model_dump(mode="json") for c in self.candidates],
            "training": self.training.model_dump(mode="json"),
            "num_folds": self.num_folds,
            "num_repeats": self.num_repeats,
            "num_seeds": self.num_seeds,
            "seed": self.seed,
            "budget": [self.budget.trials, self.budget.passes],
            "rope": self.rope,
            "confidence": self.confidence,
            "spoiling": None if self.spoiling is None else self.spoiling.sentence,
            "code": code_version(),
        }

    def family(self) -> str:
        """The same for designs that ask the same of the same data, with more or with other draws."""
        left_out = (*EVIDENCE, "question", "code")
        kept = {key: value for key, value in self.to_data().items() if key not in left_out}
        return digest_of({**kept, "columns": self.rows.columns.model_dump(mode="json")})

    @cached_property
    def digest(self) -> str:
        """The same for the same comparison of the same data."""
        return digest_of(self.to_data())

    @cached_property
    def _digests(self) -> list[str]:
        return [roles.digest() for roles in self.places]

    @cached_property
    def _question(self) -> str:
        rows = self.rows
        return digest_of({"columns": rows.columns.model_dump(mode="json"), "coding": rows.coding.to_data()})


def digest_of(data: Any) -> str:
    """The same for the same plain data.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(plain_json("data", data).encode()).hexdigest()


@cache
def code_version() -> str:
    """The version with a digest of the source that trains and judges: trials of other code are not reused."""
    root = Path(margins.__file__).parent
    found = hashlib.sha256()
    for path in _sources(root):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{margins.__version__}+{found.hexdigest()[:12]}"


def shared_recipe(
    columns: Columns, metric: str, changes: Mapping[str, Any] | None = None, *, num_rows: int = 10_000
) -> Recipe:
    """The recipe that all candidates are trained by.

    Args:
        columns: of the data.
        metric: chooses the epoch.
        changes: keys that are not to have their defaults, nested as in YAML.
        num_rows: of the data.

    Raises:
        MarginsError: a key that is not shared, or a change that does not fit.

    Example:
        >>> columns = Columns(inputs={"size": "numeric"}, target="label", target_kind="label")
        >>> shared_recipe(columns, "accuracy", {"optimizer": {"learning_rate": 0.01}}).optimizer.learning_rate
        0.01
    """
    given = dict(changes or {})
    for key, fix in _OWN.items():
        if key in given:
            raise MarginsError(
                f"training: {key}", expected="parts of a recipe that all share", received=key, fix=fix
            )
    return default_recipe(columns, {**given, "metric": metric}, num_rows=num_rows)


def task_of(columns: Columns, changes: Mapping[str, Any] | None = None) -> Task:
    """The task of a comparison of these columns."""
    return default_recipe(columns, {k: v for k, v in (changes or {}).items() if k == "task"}).task


def _sources(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in _WITHOUT_CODE_OF:
            yield path
