"""How good a finished model is on rows that have the target, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from margins.data.frame import Frame
from margins.data.nearest import suggestion
from margins.data.row_names import named_rows, true_rows
from margins.data.weights import weights
from margins.errors import MarginsError
from margins.evaluation.bootstrap import bootstrap_interval
from margins.training.finishing import SHOWN, judged_by
from margins.training.model import Model
from margins.training.predicting import metric_of

CONFIDENCE = 0.95


def evaluate(model: Model, frame: Frame, *, metrics: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Metrics of the model on these rows, each with a bootstrap interval over rows or groups.

    Args:
        model: finished.
        frame: with the columns that the model reads and its target; weights and groups count if they are
            there.
        metrics: names; by default the one that the model was chosen by and some others.
        seed: of the bootstrap.

    Returns:
        `metrics` (name to value, low, high), `rows`, `confidence`, and `seen`: a sentence when these are the
        data that the model was trained from, else None.

    Raises:
        MarginsError: no target column, a class that the model does not know, or a metric of another task.
    """
    target = model.columns.target
    if target is None or target not in frame.names:
        raise MarginsError(
            "data", expected=f"the column {target!r} with the truth", received=f"{frame.source} without it",
            fix=suggestion(str(target), frame.names),
        )  # fmt: skip
    truth = model.coding.targets(frame.table[target])
    scores = model.scores(frame)
    weight = weights(frame, model.columns) if model.columns.weight in frame.names else None
    group = model.columns.group
    groups = None
    if group is not None and group in frame.names:
        empty = true_rows(frame.table[group].is_null())
        if len(empty):
            raise MarginsError(
                f"group {group!r}", expected="a value in every row",
                received=f"an empty cell in {named_rows(empty)}", fix="fill in or drop these rows",
            )  # fmt: skip
        groups = frame.table[group].rank("dense").to_numpy()
    found: dict[str, dict[str, float]] = {}
    for name in metrics or dict.fromkeys([model.recipe.metric, *SHOWN[model.recipe.task]]):
        metric = metric_of(model.recipe.task, name)
        predicted, true = judged_by(metric, model, scores, truth)
        interval = bootstrap_interval(
            metric, predicted, true, seed=seed, num=200, confidence=CONFIDENCE,
            groups=None if groups is None else groups.astype("int64"),
            weight=None if weight is None else weight.numpy(),
        )  # fmt: skip
        found[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
    is_own = frame.fingerprint == model.about.get("fingerprint")
    seen = (
        "these are the data that the model was trained from: most rows are no test of it" if is_own else None
    )
    return {"metrics": found, "rows": len(frame), "confidence": CONFIDENCE, "seen": seen}
