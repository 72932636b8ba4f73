"""What the page shows, taken from the result and put in order: the data of every table and plot."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from margins.compare.results import ComparisonResult, Difference, RecipeResult
from margins.report.numbers import unbroken

Standing = Literal["baseline", "better", "worse", "undecided"]

WORDS: dict[Standing, str] = {
    "baseline": "baseline",
    "better": "better",
    "worse": "worse",
    "undecided": "undecided",
}
SIGNS: dict[Standing, str] = {"baseline": "◆", "better": "▲", "worse": "▼", "undecided": "○"}


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """A recipe with its standing against the baseline; `difference` is None for the baseline itself."""

    recipe: RecipeResult
    standing: Standing
    difference: Difference | None

    @property
    def title(self) -> str:
        """The recipe's title, whose settings are not torn apart at the end of a line."""
        return unbroken(self.recipe.title)

    @property
    def words(self) -> str:
        """The verdict in words."""
        return WORDS[self.standing]

    @property
    def sign(self) -> str:
        """The verdict as a shape, the same that marks it in the plot."""
        return SIGNS[self.standing]

    @property
    def settings(self) -> str:
        """The hyperparameters on one line."""
        pairs = self.recipe.settings.items()
        return ", ".join(
            f"{key} = {json.dumps(value, ensure_ascii=False, default=str)}" for key, value in pairs
        )


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """Two recipes by their titles and the difference between them, first minus second."""

    first: str
    second: str
    difference: Difference

    @property
    def words(self) -> str:
        """The verdict in words, told of the first."""
        if self.difference.verdict == "undecided":
            return "undecided"
        return f"first is {self.difference.verdict}"


@dataclass(frozen=True)
class Answer:
    """The answer in two sizes of type: its first sentence, and what may follow."""

    first: str
    rest: str


def answer_parts(result: ComparisonResult) -> Answer:
    """Split the answer after its first sentence; a full stop inside a number or a title ends none."""
    first, *rest = re.split(r"(?<=[.!?]) (?=[A-Z])", unbroken(result.answer), maxsplit=1)
    return Answer(first, *rest) if rest else Answer(first, "")


def recipe_rows(result: ComparisonResult) -> list[RecipeRow]:
    """One row a recipe, in the result's order: best mean first."""
    rows: list[RecipeRow] = []
    for recipe in result.recipes:
        if recipe.name == result.baseline:
            rows.append(RecipeRow(recipe=recipe, standing="baseline", difference=None))
        else:
            difference = result.difference(recipe.name, result.baseline)
            rows.append(RecipeRow(recipe=recipe, standing=difference.verdict, difference=difference))
    return rows


def pair_rows(result: ComparisonResult) -> list[PairRow]:
    """One row a pair, the higher-ranked recipe first, in the order of the ranking."""
    titles = {recipe.name: unbroken(recipe.title) for recipe in result.recipes}
    names = list(titles)
    return [
        PairRow(first=titles[first], second=titles[second], difference=result.difference(first, second))
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    ]


def baseline_title(result: ComparisonResult) -> str:
    """Return the title of the recipe that the others are compared with."""
    return next(recipe.title for recipe in result.recipes if recipe.name == result.baseline)
