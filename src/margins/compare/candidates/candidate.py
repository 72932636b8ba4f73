"""A recipe that takes part in a comparison: what it changes, why one would try it, what a search may tune."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from margins.compare.candidates.spaces import EVERYONES, Space, laid_over
from margins.data.settings import Settings, validated
from margins.errors import MarginsError
from margins.evaluation.metric import Kind
from margins.training.defaults import over
from margins.training.recipe import Recipe, Task, read_recipe

DECISIONS: tuple[Kind, ...] = ("f1", "accuracy")


class Candidate(Settings):
    """A recipe that takes part.

    Args:
        name: as users write it.
        title: as reports write it.
        why: one line: the reason to try it, and what speaks against it.
        changes: of the recipe that all share, nested as in YAML.
        space: what a search may change beside what it may of every recipe.
        tasks: that it is for.
        metrics: the kinds of metric it is meant for; empty for all.
    """

    name: str
    title: str
    why: str = "Named by the user."
    changes: dict[str, Any] = Field(default_factory=dict)
    space: Space = Field(default_factory=dict)
    tasks: tuple[Task, ...] = ("classes",)
    metrics: tuple[Kind, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What it changes, path to value, for people."""
        return dict(flat(self.changes))

    @property
    def whole_space(self) -> Space:
        """All that a search may change."""
        return {**EVERYONES, **self.space}

    def recipe(self, shared: Recipe, values: Mapping[str, Any] | None = None, **more: Any) -> Recipe:
        """The recipe as it is trained.

        Args:
            shared: what all recipes of the comparison have in common.
            values: of a search.
            more: keys of a recipe that the comparison sets.

        Raises:
            MarginsError: parts that do not fit together.
        """
        laid = over(shared.model_dump(), self.changes)
        searched = laid_over(laid, self.whole_space, values or {})
        return validated(Recipe, {**searched, **more}, what=f"recipe {self.name}")


def read_candidates(path: Path) -> list[Candidate]:
    """Candidates from a YAML file: name to title, why, changes and space.

    Raises:
        MarginsError: a file that cannot be read, or an entry that is none.
    """
    return [_read(name, entry, path) for name, entry in read_recipe(path).items()]


def _read(name: str, entry: Any, path: Path) -> Candidate:
    if not isinstance(entry, Mapping):
        raise MarginsError(
            f"{path.name}: {name}", expected="title, changes and space of a candidate",
            received=repr(entry)[:80], fix=f"{name}: {{changes: {{objective: {{loss: focal}}}}}}",
        )  # fmt: skip
    fields = {"title": name, "tasks": ("classes", "label_sets", "values", "matches"), **entry, "name": name}
    return validated(Candidate, fields, what=path.name)


def flat(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of every value of nested settings."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{above}{key}", value
