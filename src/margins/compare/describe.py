"""What a comparison says of itself: protocol, versions, and what a reader must be warned of."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import margins
from margins.compare.candidates.candidate import flat
from margins.compare.planning import Design
from margins.compare.problem.folding import SELECT_SHARE
from margins.data.columns import Columns
from margins.data.overlap import target_keys
from margins.data.row_keys import row_keys
from margins.encoders import HashedTextSettings, TabularSettings
from margins.training import Recipe
from margins.training.parts.optimizers import SGD

_LAYERS = {1: "one hidden layer", 2: "two hidden layers", 3: "three hidden layers"}


def protocol(design: Design) -> list[str]:
    """The rules of the comparison, one sentence each, all fixed before it ran."""
    columns, confidence = design.rows.columns, design.confidence
    grouped = columns.group is not None
    sentences = [
        f"Columns: {'; '.join(design.rows.decided)}.",
        _folds(design, grouped=grouped),
        f"Of the rows outside a fold {1 - SELECT_SHARE:.0%} train and {SELECT_SHARE:.0%} select, "
        + (f"as far as whole groups of {columns.group!r} allow." if grouped else "in balance."),
        *([design.spoiling.sentence] if design.spoiling else []),
        _training(design),
        *([f"Set for all recipes: {_listed(design.changes)}."] if design.changes else []),
        *(
            [f"Rows count by their weight, {columns.weight!r}, in training and in the metric."]
            if columns.weight is not None
            else []
        ),
        design.budget.sentence,
        "The rows of an outer fold are scored when nothing is left to decide; scores of several seeds are "
        "averaged within a fold.",
        f"Differences are paired by outer fold; {confidence:.0%} intervals and p values by the corrected "
        "resampled t test, one pair at a time; better and worse after Holm's adjustment over all pairs at "
        f"{1 - confidence:.2g}.",
        _rope(design),
        *_report(design),
    ]
    return sentences + _positive(design)


def encoder_sentence(recipe: Recipe, columns: Columns) -> str:
    """What turns these columns into scores, in one line."""
    encoder, head = recipe.encoder, f"{recipe.head.name} head"
    if isinstance(encoder, HashedTextSettings):
        pairs = "Words, word pairs" if encoder.word_pairs else "Words"
        return (
            f"{pairs} and character {encoder.chars[0]}- to {encoder.chars[1]}-grams hashed into "
            f"{encoder.buckets} embeddings of width {encoder.width}, weighted by inverse document frequency, "
            f"summed and trained end to end; {head}"
        )
    if isinstance(encoder, TabularSettings):
        read = ["numbers standardised by the training rows"] if columns.inputs_of("numeric") else []
        read += ["categories embedded"] if columns.inputs_of("categorical") else []
        layers = _LAYERS.get(encoder.depth, f"{encoder.depth} hidden layers")
        read.append(f"{layers} of {encoder.width} units with ReLU and dropout {encoder.dropout:g}; {head}")
        text = ", ".join(read)
        return text[0].upper() + text[1:]
    settings = encoder.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    listed = f" ({_listed(settings)})" if settings else ", its settings at their defaults"
    return f"Encoder {encoder.name}{listed}; {head}"


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"margins": margins.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "scikit-learn", "polars", "optuna"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def copies_across_folds(design: Design) -> list[str]:
    """A sentence on rows that were scored while a copy of their inputs could be trained on."""
    rows = design.rows
    inputs, targets = row_keys(rows.frame, rows.columns), target_keys(rows.frame, rows.columns)
    seen, contradicted = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    both = inputs * (int(targets.max()) + 1) + targets
    for fold in design.folds:
        outside = np.setdiff1d(rows.inside, fold.test, assume_unique=True)
        copied = np.isin(inputs[fold.test], inputs[outside])
        agreeing = np.isin(both[fold.test], both[outside])
        seen[fold.test] |= copied
        contradicted[fold.test] |= copied & ~agreeing
    if not seen.any():
        return []
    num = len(rows.inside)
    alike = " (but for case and spaces)" if rows.columns.inputs_of("text", "text_pair") else ""
    return [
        f"{seen.sum()} of {num} rows ({seen.sum() / num:.1%}) were scored while an exact copy of their "
        f"input{alike} was among the rows outside the fold ({contradicted.sum()} of them with other labels "
        "only): such scores may flatter every recipe. Removing the copies gives a stricter comparison."
    ]


def _rope(design: Design) -> str:
    if design.rope is None:
        return (
            "No size was stated below which a difference does not matter: no two recipes are called the same."
        )
    return (
        f"Differences up to {design.rope:g} in {design.metric.title} do not matter: two recipes are called "
        "practically the same where the posterior of the correlated t test holds 95% of its mass there."
    )


def _report(design: Design) -> list[str]:
    num = len(design.rows.report)
    if not num:
        return ["No rows are kept to report."]
    return [
        f"{num} rows are kept to report: the winner and the baseline are trained again on all others and "
        "scored there once, to confirm; they rank nothing."
    ]


def _folds(design: Design, *, grouped: bool) -> str:
    together = f" with rows of one {design.rows.columns.group!r} together" if grouped else ""
    times = "once" if design.num_repeats == 1 else f"repeated {design.num_repeats} times with new shuffles"
    return (
        f"{design.num_folds} stratified outer folds{together}, {times}; all recipes get the same folds, "
        "first weights and order of rows."
    )


def _training(design: Design) -> str:
    recipe, metric = design.training, design.metric.title
    name = "SGD" if isinstance(recipe.optimizer, SGD) else "AdamW"
    ends = (
        f"training stops after {recipe.patience} epochs without a better {metric} on the select rows, and "
        "the best epoch's weights are kept."
        if recipe.patience is not None
        else f"the weights of the epoch with the best {metric} on the select rows are kept."
    )
    return (
        f"{name} (learning rate {recipe.optimizer.learning_rate:g}, weight decay "
        f"{recipe.optimizer.weight_decay:g}, schedule {recipe.schedule.name}, batches of {recipe.batch_size} "
        f"rows, smaller where an epoch would have fewer than {recipe.min_steps} steps), at most "
        f"{recipe.max_epochs} epochs; {ends}"
    )


def _positive(design: Design) -> list[str]:
    if design.positive is not None:
        return [f"The positive class is {design.positive!r}, as asked for."]
    if design.metric.kind != "ranking" or design.training.task != "classes":
        return []
    if len(design.rows.names) != 2:
        return ["Each class against the rest, averaged over classes."]
    positive, counts = design.rows.names[1], design.rows.class_counts
    if len(set(counts.values())) == 1:
        return [f"The positive class is {positive!r}, the later by name of two as frequent."]
    return [f"The positive class is {positive!r}, the rarer one."]


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {value}" for path, value in flat(settings))
