"""What is done when training is over: calibration and thresholds on select rows, scores, the description."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from torch import Tensor

import margins
from margins.data.frame import Frame
from margins.data.value_coding import ValueCoding
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.evaluation.calibration import Calibration, Isotonic, Temperature, VectorScaling
from margins.evaluation.select_role import SelectPredictions
from margins.evaluation.thresholds import Thresholds, fit_thresholds
from margins.targets import Targets
from margins.training.model import Model
from margins.training.predicting import judged, metric_of, outputs_of, unweighted
from margins.training.problem import Prepared
from margins.training.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_CALIBRATIONS: dict[str, type[Calibration]] = {
    "temperature": Temperature, "vector": VectorScaling, "isotonic": Isotonic,
}  # fmt: skip
SHOWN = {
    "classes": ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece"),
    "label_sets": ("micro_f1", "macro_f1", "average_precision"),
    "values": ("rmse", "mae", "r2"),
    "matches": ("map@r", "precision@1"),
}  # fmt: skip


def fitted_calibration(recipe: Recipe, select: SelectPredictions) -> Calibration | None:
    """The calibration that the recipe asks for, of class probabilities."""
    name = recipe.decisions.calibration
    return None if name is None or recipe.task != "classes" else _CALIBRATIONS[name].fit(select)


def fitted_thresholds(recipe: Recipe, select: SelectPredictions) -> Thresholds | None:
    """The thresholds that the recipe asks for, of label sets."""
    scope = recipe.decisions.thresholds
    if scope is None or recipe.task != "label_sets":
        return None
    return fit_thresholds(select, recipe.decisions.goal, scope=scope)


def scores_of(fabric: Fabric, model: Model, prepared: Prepared) -> dict[str, dict[str, float]]:
    """The metrics of the finished model, by role; the report rows are opened here, once."""
    found: dict[str, dict[str, float]] = {}
    if len(prepared.problem.division.select):
        select = prepared.select
        found["select"] = _measured(fabric, model, select.inputs, select.targets)
    if prepared.report is not None:
        inputs, targets = prepared.report.open()
        found["report"] = _measured(fabric, model, inputs, targets)
    return found


def measured_outputs(model: Model, scores: Tensor, targets: Targets) -> dict[str, float]:
    """The metrics of scores [N, C] of a model, decided as the model decides; those that rows allow."""
    names = dict.fromkeys([model.recipe.metric, *SHOWN[model.recipe.task]])
    found: dict[str, float] = {}
    for name in names:
        value = _value(metric_of(model.recipe.task, name), model, scores, targets)
        if value is not None:
            found[name] = value
    return found


def described_model(model: Model, frame: Frame, scores: dict[str, dict[str, float]]) -> Model:
    """The model with a description of where it comes from."""
    about: dict[str, Any] = {
        "data": frame.source,
        "fingerprint": frame.fingerprint,
        "scores": scores,
        "versions": {
            "margins": margins.__version__, "torch": version("torch"), "python": platform.python_version(),
        },
    }  # fmt: skip
    return replace(model, about=about)


def _measured(fabric: Fabric, model: Model, inputs: Any, targets: Targets) -> dict[str, float]:
    return measured_outputs(model, outputs_of(fabric, model.network, inputs)[0], targets)


def _value(metric: Metric, model: Model, scores: Tensor, targets: Targets) -> float | None:
    weight = None if targets.row_weight is None else targets.row_weight.double().numpy()
    predictions, truth = judged_by(metric, model, scores, targets)
    try:
        return metric.measure(predictions, truth, weight=weight).value
    except MarginsError:
        if metric.name == model.recipe.metric:
            raise
        return None  # beside the one asked for: it has no meaning for these rows (one class only, ...)


def judged_by(metric: Metric, model: Model, scores: Tensor, targets: Targets) -> tuple[Any, Any]:
    """Predictions, decided as the model decides, and the truth, as the metric takes them."""
    if model.recipe.task == "label_sets" and metric.kind in ("f1", "accuracy"):
        return model.shifted(scores).sigmoid(), unweighted(targets)
    restored = model.coding.restored if isinstance(model.coding, ValueCoding) else None
    predictions, truth = judged(metric, model.recipe.task, scores, unweighted(targets), restored)
    if model.recipe.task == "classes":
        decides = metric.kind in ("f1", "accuracy")
        return (model.decision_shares(scores) if decides else model.probabilities(scores)), truth
    return predictions, truth
