"""What a comparison says of itself: protocol, versions, and what a reader must be warned of."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

import margins
from margins.compare.trials import SELECT_SHARE, Design
from margins.data import OuterFold, Table


def protocol(design: Design, *, confidence: float) -> list[str]:
    """The rules of the comparison, one sentence each, all fixed before it ran."""
    num_repeats = 1 + max(fold.repeat for fold in design.folds)
    num_folds = len(design.folds) // num_repeats
    settings = design.training
    sentences = [
        f"{num_folds} stratified outer folds, {_times(num_repeats)}; all recipes get the same folds, first "
        "weights and order of rows.",
        f"Of the rows outside a fold {1 - SELECT_SHARE:.0%} train and {SELECT_SHARE:.0%} select, class by "
        "class.",
        f"AdamW (learning rate {settings.optimizer.learning_rate:g}, weight decay {settings.optimizer.weight_decay:g}, batches "
        f"of {settings.batch_size} rows, smaller where an epoch would have fewer than {settings.min_steps} "
        f"steps), at most {settings.max_epochs} epochs; training stops after {settings.patience} epochs "
        f"without a better {design.metric.title} on the select rows, and the best epoch's weights are kept.",
        "The rows of the outer fold are scored once, when nothing is left to decide; scores of several seeds "
        "are averaged within a fold.",
        f"Differences are paired by outer fold; {confidence:.0%} intervals and p values by the corrected "
        "resampled t test, one pair at a time; verdicts after Holm's adjustment over all pairs at "
        f"{1 - confidence:.2g}.",
        "Hyperparameters of the recipes are fixed defaults; this run tunes none of them.",
    ]
    if design.spoiling:
        sentences.insert(2, design.spoiling.sentence)
    if design.metric.kind == "ranking":
        sentences.append(
            "The positive class is the rarer one."
            if design.num_classes == 2
            else "Each class against the rest, averaged over classes."
        )
    return sentences


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"margins": margins.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "scikit-learn", "polars"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def copies_across_folds(table: Table, folds: Sequence[OuterFold]) -> list[str]:
    """A sentence on rows that were scored while an exact copy of their input could be trained on."""
    inputs = table.exact_inputs()
    seen = np.zeros(len(table), bool)
    contradicted = np.zeros(len(table), bool)
    both = inputs.astype(np.int64) * len(table.classes) + table.labels
    for fold in folds:
        copied = np.isin(inputs[fold.test], inputs[fold.outside])
        agreeing = np.isin(both[fold.test], both[fold.outside])
        seen[fold.test] |= copied
        contradicted[fold.test] |= copied & ~agreeing
    if not seen.any():
        return []
    return [
        f"{seen.sum()} of {len(table)} rows ({seen.mean():.1%}) were scored while an exact copy of their "
        f"input was among the rows outside the fold ({contradicted.sum()} of them with other labels only): "
        "such scores may flatter every recipe. Removing the copies gives a stricter comparison."
    ]


def _times(num_repeats: int) -> str:
    return "once" if num_repeats == 1 else f"repeated {num_repeats} times with new shuffles"
