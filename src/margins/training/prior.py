"""The class prior that training sees: a ledger of all that moves it, and the way back to that of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from margins.errors import MarginsError
from margins.evaluation.prior import corrected_for_prior
from margins.evaluation.records import Floats
from margins.training.objective import class_weights, label_shares
from margins.training.recipe import Recipe

_MOST_NAMED = 4
_DECIDES_SO = (
    "Predictions decide by what training sees; probabilities are corrected to the shares of the data."
)


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A part of a recipe that may move the class prior.

    Args:
        part: its place in the recipe.
        name: as a recipe writes it, with its value.
        factor: [C] what it multiplies the prior by, beside the class of most rows, which has 1; of label sets
            what it multiplies the odds of each label by.
    """

    part: str
    name: str
    factor: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PriorLedger:
    """The shares of classes, in the training rows and as training sees them; plain data.

    Args:
        kind: "classes" exclude each other and their shares sum to one; each of the "label_sets" has its own.
        names: [C] of the classes or labels.
        population: [C] their shares of the training rows.
        mechanisms: all that are on and could move them.
    """

    kind: Literal["classes", "label_sets"]
    names: tuple[str, ...]
    population: tuple[float, ...]
    mechanisms: tuple[Mechanism, ...]

    @property
    def corrections(self) -> list[Mechanism]:
        """The mechanisms that make rare classes count more."""
        return [mechanism for mechanism in self.mechanisms if mechanism.part != "mix"]

    @cached_property
    def effective(self) -> tuple[float, ...]:
        """[C] the shares that trained scores answer for: those of the data times all factors."""
        shares = np.array(self.population)
        if self.kind == "classes":
            product = shares * self._product()
            return tuple((product / product.sum()).tolist())
        odds = shares / (1 - shares) * self._product()
        return tuple((odds / (1 + odds)).tolist())

    def shift(self) -> Tensor | None:
        """[C] what is added to trained scores for probabilities of data with the shares of the training rows.

        By Bayes' rule log prior - log (the prior that training saw), of label sets in log-odds; in float64.
        None when nothing corrects the prior.
        """
        if not self.corrections:
            return None
        before, after = (torch.tensor(s, dtype=torch.float64) for s in (self.effective, self.population))
        if self.kind == "label_sets":
            return after.logit() - before.logit()
        return corrected_for_prior(torch.zeros(1, len(after)).double(), trained_on=before, of=after)[0]

    def sentences(self) -> list[str]:
        """What a user should know of it, in words; nothing where nothing corrects the prior.

        Of many classes only the largest and the smallest are named.
        """
        if not self.corrections:
            return []
        what = "Class prior of the data" if self.kind == "classes" else "Shares of the labels in the data"
        by = ", ".join(mechanism.name for mechanism in self.corrections)
        shares = f"{what}: {self._told(self.population)}; as training sees it ({by}): "
        return [f"{shares}{self._told(self.effective)}.", _DECIDES_SO]

    def to_data(self) -> dict[str, Any]:
        """All of it as numbers, lists and strings, with the effective shares."""
        return {
            "kind": self.kind,
            "names": list(self.names),
            "population": list(self.population),
            "mechanisms": [{**asdict(m), "factor": list(m.factor)} for m in self.mechanisms],
            "effective": list(self.effective),
        }

    def refuse_several_corrections(self, *, where: str = "") -> None:
        """Raises MarginsError, with the product, when several mechanisms make rare classes count more.

        Args:
            where: comes before the parts, e.g. "plan.0.changes: ".
        """
        parts = self.corrections
        if len(parts) < 2:
            return
        product = self._product()
        rare, usual = int(product.argmax()), int(np.argmax(self.population))
        each = " x ".join(f"{m.factor[rare]:.1f} by {m.name}" for m in parts)
        raise MarginsError(
            where + " and ".join(mechanism.part for mechanism in parts),
            expected="one part that makes rare classes count more",
            received=f"{_NUMBERS[len(parts)]}, whose effects multiply: beside {self.names[usual]!r}, "
            f"{self.names[rare]!r} counts {product[rare]:.1f} times its share ({each})",
            fix="take all but one out, or set accept_double_correction: true",
        )

    def _product(self) -> Floats:
        factors = [np.array(mechanism.factor) for mechanism in self.mechanisms]
        return np.prod([np.ones(len(self.population)), *factors], axis=0)

    def _told(self, shares: Sequence[float]) -> str:
        order = np.argsort(-np.array(self.population), kind="stable").tolist()
        named = order if len(order) <= _MOST_NAMED else [order[0], order[-1]]
        between = ", " if len(order) <= _MOST_NAMED else " ... "
        return between.join(f"{self.names[c]!r} {100 * shares[c]:.3g} %" for c in named)


_NUMBERS = {2: "two", 3: "three"}


def prior_ledger(
    recipe: Recipe, class_counts: Tensor, names: Sequence[str], *, num_rows: int | None = None
) -> PriorLedger:
    """What a training by this recipe makes of the shares of classes.

    The prior that trained scores answer for is the population's share times what the draw, class weights,
    logit adjustment and mixing multiply it by.

    Args:
        recipe: its last phase decides.
        class_counts: [C] training rows of each class; one without any counts as one row.
        names: [C] of the classes.
        num_rows: training rows, for the task "label_sets", where a row has any number of labels.

    Example:
        >>> plain = {"task": "classes", "encoder": {"name": "tabular"}, "metric": "accuracy"}
        >>> recipe = Recipe(**plain, objective={"targets": {"logit_adjustment": 0.5}})
        >>> ledger = prior_ledger(recipe, torch.tensor([90, 10]), ["usual", "rare"])
        >>> ledger.mechanisms[0].name, np.round(ledger.mechanisms[0].factor, 6), np.round(ledger.effective, 6)
        ('logit_adjustment 0.5', array([1., 3.]), array([0.75, 0.25]))
    """
    last = recipe.phases()[-1]
    is_sets = last.task == "label_sets"
    if is_sets and num_rows is None:
        raise MarginsError("num_rows", expected="the number of rows, for label sets", received="none")
    counts = class_counts.double() if is_sets else class_counts.double().clamp(min=1)
    shares = label_shares(counts, num_rows or 1) if is_sets else counts / counts.sum()
    found = _factors(last, shares / (1 - shares) if is_sets else shares, counts)
    usual = int(shares.argmax())
    mechanisms = [
        Mechanism(part=part, name=name, factor=tuple((f if is_sets else f / f[usual]).tolist()))
        for part, name, f in found
    ]
    return PriorLedger(
        kind="label_sets" if is_sets else "classes", names=tuple(names),
        population=tuple(shares.tolist()), mechanisms=tuple(mechanisms),
    )  # fmt: skip


def _factors(recipe: Recipe, base: Tensor, counts: Tensor) -> list[tuple[str, str, Tensor]]:
    """The mechanisms that are on: part, name, and what each multiplies the shares or odds `base` [C] by."""
    targets, found = recipe.objective.targets, list[tuple[str, str, Tensor]]()
    if recipe.draw.changes_prior:
        found.append(("draw", f"draw {recipe.draw.name}", 1 / base))
    if targets.class_weight is not None:
        weight = class_weights(targets.class_weight, counts)
        found.append(("objective.targets.class_weight", f"class_weight {targets.class_weight}", weight))
    if targets.logit_adjustment:
        # An adjusted score stands for p / prior ** tau: training itself added the logarithm.
        tau = targets.logit_adjustment
        found.append(("objective.targets.logit_adjustment", f"logit_adjustment {tau:g}", base**-tau))
    if recipe.mix.name != "none":
        # Partners are drawn from the batch whatever their class: what a class gives, it gets.
        found.append(("mix", f"mix {recipe.mix.name}", torch.ones_like(base)))
    return found


def prior_shift(recipe: Recipe, class_counts: Tensor, *, num_rows: int | None = None) -> Tensor | None:
    """[C] what is added to trained scores for probabilities of data with the training rows' class shares.

    A balanced draw, class weights and logit adjustment make a model that answers as if classes had other
    shares. That is wanted in its decisions; its probabilities are right again after this shift of its ledger.

    Args:
        recipe: its last phase decides.
        class_counts: [C] training rows of each class; one without any counts as one row.
        num_rows: training rows, for the task "label_sets".

    Returns:
        the shift in float64, None when training saw the prior as it is.

    Example:
        >>> plain = {"task": "classes", "encoder": {"name": "tabular"}, "metric": "accuracy"}
        >>> balanced = Recipe(**plain, draw={"name": "class_balanced"})
        >>> prior_shift(balanced, torch.tensor([90, 10])).exp()
        tensor([1.8000, 0.2000], dtype=torch.float64)
        >>> prior_shift(Recipe(**plain), torch.tensor([90, 10])) is None
        True
    """
    names = [str(c) for c in range(len(class_counts))]
    return prior_ledger(recipe, class_counts, names, num_rows=num_rows).shift()


def refuse_double_correction(recipe: Recipe, class_counts: Tensor, names: Sequence[str]) -> None:
    """Stops a training when several parts of a phase make rare classes count more, unless it accepts that.

    Args:
        recipe: with its plan.
        class_counts: [C] training rows of each class.
        names: [C] of the classes.

    Raises:
        MarginsError: names the parts and shows the product of their effects.

    Example:
        >>> both = Recipe(
        ...     task="classes", encoder={"name": "tabular"}, metric="accuracy",
        ...     draw={"name": "class_balanced"}, objective={"targets": {"class_weight": "balanced"}},
        ... )
        >>> refuse_double_correction(both, torch.tensor([90, 10]), ["usual", "rare"])
        Traceback (most recent call last):
        margins.errors.MarginsError: draw and objective.targets.class_weight: expected one part that makes
        rare classes count more, got two, whose effects multiply: beside 'usual', 'rare' counts 81.0 times its
        share (9.0 by draw class_balanced x 9.0 by class_weight balanced); take all but one out, or set
        accept_double_correction: true
    """
    if recipe.task != "classes":
        return  # of label sets, logit adjustment alone moves shares
    for number, phase in enumerate(recipe.phases()):
        if not phase.accept_double_correction:
            where = f"plan.{number - 1}.changes: " if number else ""
            prior_ledger(phase, class_counts, names).refuse_several_corrections(where=where)
