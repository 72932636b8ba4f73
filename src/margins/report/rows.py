"""What the page shows, taken from the result and put in order: the data of every table and plot."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from margins.compare.results import ComparisonResult, Difference, RecipeResult
from margins.report.numbers import unbroken

Standing = Literal["baseline", "better", "worse", "practically the same", "undecided"]

WORDS: dict[Standing, str] = {
    "baseline": "baseline",
    "better": "better",
    "worse": "worse",
    "practically the same": "practically the same",
    "undecided": "undecided",
}
SIGNS: dict[Standing, str] = {
    "baseline": "◆", "better": "▲", "worse": "▼", "practically the same": "□", "undecided": "○",
}  # fmt: skip


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
    def ranks(self) -> str:
        """The rank, with the places that it may have."""
        first, last = self.recipe.rank, self.recipe.rank_low
        return f"{first}\u2013{last}" if last > first else str(first)

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
        verdict = self.difference.verdict
        return f"first is {verdict}" if verdict in ("better", "worse") else verdict


@dataclass(frozen=True, kw_only=True)
class SettingRow:
    """A hyperparameter that a search set: what it could be, and the values found, fold by fold."""

    path: str
    space: str
    found: str


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


def setting_rows(recipe: RecipeResult) -> list[SettingRow]:
    """What the searches of a recipe could set, and what they found; defaults are named as such."""
    return [
        SettingRow(
            path=path, space=_space(dimension),
            found=", ".join(_value(values[path]) if path in values else "default" for values in recipe.found),
        )
        for path, dimension in recipe.space.items()
    ]  # fmt: skip


def title_of(result: ComparisonResult, name: str) -> str:
    """Return the title of a recipe."""
    return next((recipe.title for recipe in result.recipes if recipe.name == name), name)


def _space(dimension: dict[str, Any]) -> str:
    if dimension["kind"] == "choice":
        return ", ".join(map(str, dimension["options"]))
    times = " times the default" if dimension["times_default"] else ""
    return f"{dimension['low']:g} to {dimension['high']:g}{times}{', in ratios' if dimension['log'] else ''}"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
