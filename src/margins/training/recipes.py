"""Training objectives by name, each with the reason for which one would try it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from margins import losses
from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.evaluation.metrics import Kind
from margins.targets import Targets
from margins.training.objective import Objective

BASELINE = "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training objective that takes part in a comparison.

    Args:
        name: as users write it.
        title: as reports write it.
        why: one line: the reason to try it, and what speaks against it.
        settings: its hyperparameters.
        build: makes a fresh objective from the number of training rows of each class [C] and the settings.
        metrics: the kinds of metric it is meant for; empty for all.
    """

    name: str
    title: str
    why: str
    settings: Mapping[str, Any]
    build: Callable[[Tensor, Mapping[str, Any]], Objective]
    metrics: tuple[Kind, ...] = ()

    def objective(self, class_counts: Tensor) -> Objective:
        """A fresh objective for training rows with these class counts [C]."""
        return self.build(class_counts, self.settings)


def all_recipes() -> list[Recipe]:
    """Every recipe, the baseline first."""
    return list(_RECIPES.values())


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        MarginsError: no such recipe; the nearest name is suggested.
    """
    if name not in _RECIPES:
        raise MarginsError(
            "recipe",
            expected="the name of a recipe",
            received=repr(name),
            fix=suggestion(name, list(_RECIPES)),
        )
    return _RECIPES[name]


def recipes_for(metric: Metric, names: Sequence[str] | None = None) -> list[Recipe]:
    """The recipes that take part: those named, or all that are meant for the metric; the baseline always.

    Example:
        >>> from margins.evaluation import find_metric
        >>> [r.name for r in recipes_for(find_metric("accuracy"), ["focal"])]
        ['cross_entropy', 'focal']
    """
    if names is None:
        return [r for r in all_recipes() if not r.metrics or metric.kind in r.metrics]
    chosen = [find_recipe(name) for name in dict.fromkeys(names)]
    others = [r for r in chosen if r.name != BASELINE]
    if not others:
        raise MarginsError(
            "recipes",
            expected=f"at least one to compare with {BASELINE}",
            received=", ".join(names) or "none",
        )
    return [_RECIPES[BASELINE], *others]


def _positive_counts(class_counts: Tensor) -> Tensor:
    """A class without a training row counts as one, so that logarithms and powers stay finite."""
    return class_counts.float().clamp(min=1)


def _cross_entropy(_counts: Tensor, _settings: Mapping[str, Any]) -> Objective:
    return Objective(losses.CrossEntropy())


def _label_smoothing(class_counts: Tensor, settings: Mapping[str, Any]) -> Objective:
    num_classes = len(class_counts)
    return Objective(
        losses.CrossEntropy(),
        targets=lambda labels: Targets.of_classes(labels, num_classes).smooth(settings["amount"]),
    )


def _logit_adjusted(class_counts: Tensor, settings: Mapping[str, Any]) -> Objective:
    counts = _positive_counts(class_counts)
    # Training adds tau * log prior to the scores; a margin is subtracted. Prediction uses the plain scores.
    margin = -settings["tau"] * torch.log(counts / counts.sum())
    return Objective(
        losses.CrossEntropy(),
        targets=lambda labels: Targets.of_classes(labels, len(counts)).margin(candidates=margin),
    )


def _class_margins(class_counts: Tensor, settings: Mapping[str, Any]) -> Objective:
    root = _positive_counts(class_counts) ** -0.25
    margin = settings["largest"] * root / root.max()
    return Objective(
        losses.CrossEntropy(),
        targets=lambda labels: Targets.of_classes(labels, len(root)).margin(
            candidates=margin, on="positives"
        ),
    )


def _focal(_counts: Tensor, settings: Mapping[str, Any]) -> Objective:
    return Objective(losses.Focal(gamma=settings["gamma"]))


def _generalized_cross_entropy(_counts: Tensor, settings: Mapping[str, Any]) -> Objective:
    return Objective(losses.CompSum(tau=1 + settings["q"]))


def _aldr_kl(_counts: Tensor, settings: Mapping[str, Any]) -> Objective:
    return Objective(losses.ALDRKL(**settings))


def _mann_whitney(_counts: Tensor, _settings: Mapping[str, Any]) -> Objective:
    # The metric ranks rows by probability, so the pairs compare log-probabilities, not raw logits.
    return Objective(losses.MannWhitney(scope="column"), scores=lambda logits: logits.log_softmax(1))


def _any_f1(_counts: Tensor, _settings: Mapping[str, Any]) -> Objective:
    return Objective(losses.AnyLoss(metric="f1", link="softmax", average="macro"))


def _recipe(
    name: str,
    title: str,
    build: Callable[[Tensor, Mapping[str, Any]], Objective],
    *,
    why: str,
    metrics: tuple[Kind, ...] = (),
    **settings: Any,
) -> Recipe:
    return Recipe(
        name=name, title=title, why=why, settings=MappingProxyType(settings), build=build, metrics=metrics
    )


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        _recipe(
            BASELINE,
            "Cross-entropy",
            _cross_entropy,
            why="The plain baseline without tricks; on many data sets nothing beats it.",
        ),
        _recipe(
            "label_smoothing",
            "Label smoothing (0.1)",
            _label_smoothing,
            why="Keeps the model from over-confidence; helps a little with many classes or wrong labels.",
            amount=0.1,
        ),
        _recipe(
            "logit_adjusted",
            "Logit adjustment (tau = 1)",
            _logit_adjusted,
            why="Takes class frequencies out of the scores: for rare classes, at a cost to frequent ones.",
            tau=1.0,
        ),
        _recipe(
            "class_margins",
            "Class-dependent margins (up to 1)",
            _class_margins,
            why="Asks for more distance the rarer the class, as LDAM does, here on plain logits.",
            largest=1.0,
        ),
        _recipe(
            "focal",
            "Focal loss (gamma = 2)",
            _focal,
            why="Turns attention to rows that are still wrong; wrong labels get that attention too.",
            gamma=2.0,
        ),
        _recipe(
            "generalized_cross_entropy",
            "Generalised cross-entropy (q = 0.7)",
            _generalized_cross_entropy,
            why="Gives rows that never fit less weight, for wrong labels; may take a rare class for noise.",
            q=0.7,
        ),
        _recipe(
            "aldr_kl",
            "ALDR-KL (lambda0 = 1, alpha = 2)",
            _aldr_kl,
            why="Gives each row a temperature of its own, for wrong labels without knowing their share.",
            lam0=1.0,
            alpha=2.0,
            margin=0.1,
            normalise=None,  # scores divided by their mean size do not learn with tens of classes
            iterations=10,
        ),
        _recipe(
            "mann_whitney",
            "Mann-Whitney pairs",
            _mann_whitney,
            why="Trains the order of rows that the metric judges; probabilities need not be calibrated.",
            metrics=("ranking",),
        ),
        _recipe(
            "any_f1",
            "AnyLoss (macro F1)",
            _any_f1,
            why="Trains a smooth F1 of the batch; needs several rows of a class in a batch to work well.",
            metrics=("f1",),
        ),
    )
}
