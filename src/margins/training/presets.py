"""Objectives by name, each with the reason for which one would try it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from margins.data.nearest import suggestion
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.evaluation.metrics import Kind
from margins.training.objective_settings import ObjectiveSettings, TargetSettings

BASELINE = "cross_entropy"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """An objective that takes part in a comparison.

    Args:
        name: as users write it.
        title: as reports write it.
        why: one line: the reason to try it, and what speaks against it.
        objective: the part of a recipe.
        metrics: the kinds of metric it is meant for; empty for all.
    """

    name: str
    title: str
    why: str
    objective: ObjectiveSettings
    metrics: tuple[Kind, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Its hyperparameters, those of the loss and of how targets are set."""
        return {**self.objective.settings, **self.objective.targets.model_dump(exclude_defaults=True)}


def all_presets() -> list[Preset]:
    """Every preset, the baseline first."""
    return list(_PRESETS.values())


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        MarginsError: no such preset; the nearest name is suggested.
    """
    if name not in _PRESETS:
        raise MarginsError(
            "recipe",
            expected="the name of a recipe",
            received=repr(name),
            fix=suggestion(name, list(_PRESETS)),
        )
    return _PRESETS[name]


def presets_for(metric: Metric, names: Sequence[str] | None = None) -> list[Preset]:
    """The presets that take part: those named, or all that are meant for the metric; the baseline always.

    Example:
        >>> from margins.evaluation import find_metric
        >>> [p.name for p in presets_for(find_metric("accuracy"), ["focal"])]
        ['cross_entropy', 'focal']
    """
    if names is None:
        return [p for p in all_presets() if not p.metrics or metric.kind in p.metrics]
    chosen = [find_preset(name) for name in dict.fromkeys(names)]
    others = [p for p in chosen if p.name != BASELINE]
    if not others:
        raise MarginsError(
            "recipes",
            expected=f"at least one to compare with {BASELINE}",
            received=", ".join(names) or "none",
        )
    return [_PRESETS[BASELINE], *others]


_PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name=BASELINE,
            title="Cross-entropy",
            why="The plain baseline without tricks; on many data sets nothing beats it.",
            objective=ObjectiveSettings(),
        ),
        Preset(
            name="label_smoothing",
            title="Label smoothing (0.1)",
            why="Keeps the model from over-confidence; helps a little with many classes or wrong labels.",
            objective=ObjectiveSettings(targets=TargetSettings(smooth=0.1)),
        ),
        Preset(
            name="logit_adjusted",
            title="Logit adjustment (tau = 1)",
            why="Takes class frequencies out of the scores: for rare classes, at a cost to frequent ones.",
            objective=ObjectiveSettings(targets=TargetSettings(logit_adjustment=1.0)),
        ),
        Preset(
            name="class_margins",
            title="Class-dependent margins (up to 1)",
            why="Asks for more distance the rarer the class, as LDAM does, here on plain logits.",
            objective=ObjectiveSettings(targets=TargetSettings(class_margins=1.0)),
        ),
        Preset(
            name="focal",
            title="Focal loss (gamma = 2)",
            why="Turns attention to rows that are still wrong; wrong labels get that attention too.",
            objective=ObjectiveSettings(loss="focal", settings={"gamma": 2.0}),
        ),
        Preset(
            name="generalized_cross_entropy",
            title="Generalised cross-entropy (q = 0.7)",
            why="Gives rows that never fit less weight, for wrong labels; may take a rare class for noise.",
            objective=ObjectiveSettings(loss="comp_sum", settings={"tau": 1.7}),
        ),
        Preset(
            name="aldr_kl",
            title="ALDR-KL (lambda0 = 1, alpha = 2)",
            why="Gives each row a temperature of its own, for wrong labels without knowing their share.",
            # Scores divided by their mean size do not learn with tens of classes: no normalisation.
            objective=ObjectiveSettings(
                loss="aldrkl",
                settings={"lam0": 1.0, "alpha": 2.0, "margin": 0.1, "normalise": None, "iterations": 10},
            ),
        ),
        Preset(
            name="mann_whitney",
            title="Mann-Whitney pairs",
            why="Trains the order of rows that the metric judges; probabilities need not be calibrated.",
            # The metric ranks rows by probability, so the pairs compare log-probabilities, not raw logits.
            objective=ObjectiveSettings(
                loss="mann_whitney", settings={"scope": "column"}, link="log_softmax"
            ),
            metrics=("ranking",),
        ),
        Preset(
            name="any_f1",
            title="AnyLoss (macro F1)",
            why="Trains a smooth F1 of the batch; needs several rows of a class in a batch to work well.",
            objective=ObjectiveSettings(
                loss="any_loss", settings={"metric": "f1", "link": "softmax", "average": "macro"}
            ),
            metrics=("f1",),
        ),
    )
}
