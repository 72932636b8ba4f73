"""How much every recipe may try before it is judged: the same for all, in trials and in rows seen."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from margins.errors import MarginsError

_SHORT = 3  # a first look takes a third of the epochs, and a third of the trials goes on


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A search inside the rows outside an outer fold, for each recipe alike.

    Args:
        name: as it was asked for.
        trials: hyperparameters tried; 1 takes the defaults and searches nothing.
        passes: over the training rows, all trials together at most; None as many as the recipe's epochs.

    Example:
        >>> Budget.read("standard").trials, Budget.read("12:200").passes
        (8, 200)
    """

    name: str
    trials: int
    passes: int | None = None

    @classmethod
    def read(cls, text: str) -> Budget:
        """The budget that a word or `TRIALS` or `TRIALS:PASSES` means.

        Raises:
            MarginsError: none of these, or fewer passes than a search of so many trials takes.
        """
        if text in _NAMED:
            return cls(name=text, trials=_NAMED[text])
        match = re.fullmatch(r"([1-9]\d{0,4})(?::([1-9]\d{0,6}))?", text)
        if match is None:
            raise MarginsError(
                "budget", expected=f"{', '.join(_NAMED)}, TRIALS or TRIALS:PASSES", received=repr(text),
                fix="12:200 tries 12 settings in at most 200 passes over the training rows",
            )  # fmt: skip
        trials, passes = int(match[1]), None if match[2] is None else int(match[2])
        found = cls(name=text, trials=trials, passes=passes)
        least = sum(num for num, _ in found.rungs(_SHORT))
        if passes is not None and passes < max(least, 1) + (found.trials > 1) * (_SHORT - 1):
            raise MarginsError(
                "budget", expected=f"at least {least + _SHORT - 1} passes for {trials} trials",
                received=str(passes), fix="ask for more passes or fewer trials",
            )  # fmt: skip
        return found

    def rungs(self, epochs: int) -> list[tuple[int, int]]:
        """How many trials run for how many epochs, in turn; the best of one rung go on to the next.

        Args:
            epochs: of the recipe at most.

        Example:
            >>> Budget(name="8", trials=8).rungs(30)
            [(8, 10), (3, 30)]
            >>> Budget(name="8:100", trials=8, passes=100).rungs(30)
            [(8, 5), (3, 20)]
            >>> Budget(name="quick", trials=1).rungs(30)
            []
        """
        if self.trials == 1:
            return []
        if self.trials < _SHORT:
            each = epochs if self.passes is None else min(epochs, self.passes // self.trials)
            return [(self.trials, max(each, 1))]
        going_on = math.ceil(self.trials / _SHORT)
        most = epochs
        if self.passes is not None:
            short = max(self.passes // (self.trials + _SHORT * going_on), 1)
            most = min(epochs, (self.passes - self.trials * short) // going_on)
            return [(self.trials, min(short, max(epochs // _SHORT, 1))), (going_on, max(most, 1))]
        return [(self.trials, max(epochs // _SHORT, 1)), (going_on, most)]

    def most_passes(self, epochs: int) -> int:
        """Passes over the training rows that a search takes at most."""
        return sum(num * each for num, each in self.rungs(epochs))

    def num_trainings(self, num_seeds: int) -> int:
        """Trainings of a recipe in one outer fold: the search's, and one a seed with what it found."""
        return sum(num for num, _ in self.rungs(_SHORT)) + num_seeds

    @property
    def sentence(self) -> str:
        """The rule, for the protocol."""
        if self.trials == 1:
            return "Hyperparameters of the recipes are fixed defaults; this run tunes none of them."
        cap = f", in at most {self.passes} passes over the training rows" if self.passes else ""
        rule = (
            f", all for a third of the epochs and the best {math.ceil(self.trials / _SHORT)} for all"
            if self.trials >= _SHORT
            else ""
        )
        return (
            f"In every outer fold every recipe, the baseline too, tries {self.trials} settings of its "
            f"hyperparameters{cap}{rule}; the first are the defaults. The best on the select rows is trained "
            "anew and judged."
        )


_NAMED = {"quick": 1, "standard": 8, "thorough": 24}
