"""What a comparison says of itself: protocol, versions, and what a reader must be warned of."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import margins
from margins.compare.classes import ClassRows
from margins.compare.design import SELECT_SHARE, Design
from margins.data.columns import Columns
from margins.data.row_keys import row_keys
from margins.data.splits import OuterFold
from margins.encoders import HashedTextSettings, TabularSettings
from margins.training import Recipe
from margins.training.parts.optimizers import SGD

_LAYERS = {1: "one hidden layer", 2: "two hidden layers", 3: "three hidden layers"}


def protocol(
    design: Design, *, changes: Mapping[str, Any], positive: str | None, confidence: float
) -> list[str]:
    """The rules of the comparison, one sentence each, all fixed before it ran.

    Args:
        design: of the comparison.
        changes: keys of the shared recipe that were asked for.
        positive: the class that was asked for.
        confidence: of intervals and verdicts.
    """
    columns = design.rows.columns
    grouped = columns.group is not None
    sentences = [
        f"Columns: {'; '.join(design.rows.decided)}.",
        _folds(design, grouped=grouped),
        f"Of the rows outside a fold {1 - SELECT_SHARE:.0%} train and {SELECT_SHARE:.0%} select, "
        + (f"as far as whole groups of {columns.group!r} allow." if grouped else "class by class."),
        *([design.spoiling.sentence] if design.spoiling else []),
        _training(design),
        *([f"Set for all recipes: {', '.join(_flat(changes))}."] if changes else []),
        *(
            [f"Rows count by their weight, {columns.weight!r}, in training and in the metric."]
            if columns.weight is not None
            else []
        ),
        "The rows of the outer fold are scored once, when nothing is left to decide; scores of several seeds "
        "are averaged within a fold.",
        f"Differences are paired by outer fold; {confidence:.0%} intervals and p values by the corrected "
        "resampled t test, one pair at a time; verdicts after Holm's adjustment over all pairs at "
        f"{1 - confidence:.2g}.",
        "Hyperparameters of the recipes are fixed defaults; this run tunes none of them.",
    ]
    return sentences + _positive(design, positive)


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
    listed = f" ({', '.join(_flat(settings))})" if settings else ", its settings at their defaults"
    return f"Encoder {encoder.name}{listed}; {head}"


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"margins": margins.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "scikit-learn", "polars"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def copies_across_folds(rows: ClassRows, folds: Sequence[OuterFold]) -> list[str]:
    """A sentence on rows that were scored while a copy of their inputs could be trained on."""
    inputs = row_keys(rows.frame, rows.columns)
    seen = np.zeros(len(rows), bool)
    contradicted = np.zeros(len(rows), bool)
    both = inputs * len(rows.classes) + rows.labels
    for fold in folds:
        copied = np.isin(inputs[fold.test], inputs[fold.outside])
        agreeing = np.isin(both[fold.test], both[fold.outside])
        seen[fold.test] |= copied
        contradicted[fold.test] |= copied & ~agreeing
    if not seen.any():
        return []
    alike = " (but for case and spaces)" if rows.columns.inputs_of("text", "text_pair") else ""
    return [
        f"{seen.sum()} of {len(rows)} rows ({seen.mean():.1%}) were scored while an exact copy of their "
        f"input{alike} was among the rows outside the fold ({contradicted.sum()} of them with other labels "
        "only): such scores may flatter every recipe. Removing the copies gives a stricter comparison."
    ]


def _folds(design: Design, *, grouped: bool) -> str:
    num_repeats = 1 + max(fold.repeat for fold in design.folds)
    together = f" with rows of one {design.rows.columns.group!r} together" if grouped else ""
    times = "once" if num_repeats == 1 else f"repeated {num_repeats} times with new shuffles"
    return (
        f"{len(design.folds) // num_repeats} stratified outer folds{together}, {times}; all recipes get the "
        "same folds, first weights and order of rows."
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


def _positive(design: Design, asked: str | None) -> list[str]:
    if asked is not None:
        return [f"The positive class is {asked!r}, as asked for."]
    if design.metric.kind != "ranking":
        return []
    if len(design.rows.classes) != 2:
        return ["Each class against the rest, averaged over classes."]
    positive, counts = design.rows.classes[1], design.rows.class_counts
    if len(set(counts.values())) == 1:
        return [f"The positive class is {positive!r}, the later by name of two as frequent."]
    return [f"The positive class is {positive!r}, the rarer one."]


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """`key.key = value` for every value of nested settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{above}{key} = {value}"
