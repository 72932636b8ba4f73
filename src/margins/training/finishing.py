"""What is done when training is over: calibration and thresholds on select rows, scores, the description."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import margins
from margins.data.frame import Frame
from margins.data.roles import RowInputs, SelectRows, class_ids
from margins.data.value_coding import ValueCoding
from margins.errors import MarginsError
from margins.evaluation import Metric
from margins.evaluation.calibration import Calibration, Isotonic, Temperature, VectorScaling
from margins.evaluation.class_cuts import ClassCut, fit_class_cut
from margins.evaluation.records import Floats
from margins.evaluation.select_role import SelectPredictions
from margins.evaluation.thresholds import Thresholds, fit_thresholds
from margins.targets import Targets
from margins.training.model import Model
from margins.training.predicting import judged, metric_of, outputs_of, probabilities_of, unweighted
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
_OF_CALIBRATION = ("log_loss", "ece")


def fitted_calibration(
    recipe: Recipe, select: SelectPredictions, *, prior_shift: Tensor | None
) -> Calibration | None:
    """The calibration that the recipe asks for, of class probabilities.

    Args:
        recipe: names it.
        select: raw scores of the select rows.
        prior_shift: [C] the offset of the calibration, when training worked against the class prior.
    """
    name = recipe.decisions.calibration
    if name is None or recipe.task != "classes":
        return None
    return _CALIBRATIONS[name].fit(select, offset=prior_shift)


def fitted_thresholds(recipe: Recipe, select: SelectPredictions) -> Thresholds | None:
    """The thresholds that the recipe asks for, of label sets."""
    scope = recipe.decisions.thresholds
    if scope is None or recipe.task != "label_sets":
        return None
    return fit_thresholds(select, recipe.decisions.goal, scope=scope)


def fitted_cut(model: Model, scores: Tensor, rows: SelectRows, prior: Sequence[float]) -> ClassCut | None:
    """The cut that the recipe asks for, of classes.

    Args:
        model: with all else that decides.
        scores: [N, C] raw, of the select rows.
        rows: the select rows.
        prior: [C] shares of the classes in the training rows.
    """
    if model.recipe.decisions.cut == "largest":
        return None
    select = SelectPredictions(model.uncut_logits(scores), rows.class_ids())
    metric = metric_of(model.recipe.task, model.recipe.metric)
    return fit_class_cut(select, metric, prior=np.array(prior), weight=_weight(rows.targets))


@dataclass(frozen=True)
class Judged:
    """What the rows of each role say of a finished model.

    Args:
        scores: role to metric to number.
        calibration: role to "before" and "after" to metric to number: of the softmax or sigmoid of raw
            scores, and of the probabilities that the model gives. None where these are the same.
    """

    scores: dict[str, dict[str, float]]
    calibration: dict[str, dict[str, dict[str, float]]] | None


def scores_of(fabric: Fabric, model: Model, prepared: Prepared) -> Judged:
    """The metrics of the finished model, by role; the report rows are opened here, once."""
    opened: dict[str, tuple[RowInputs, Targets]] = {}
    if len(prepared.problem.division.select):
        opened["select"] = prepared.select.inputs, prepared.select.targets
    if prepared.report is not None:
        opened["report"] = prepared.report.open()
    found, calibration = dict[str, dict[str, float]](), dict[str, dict[str, dict[str, float]]]()
    model.network.to(fabric.device)
    for role, (inputs, targets) in opened.items():
        scores = outputs_of(fabric, model.network, inputs)[0]
        found[role] = measured_outputs(model, scores, targets)
        changed = calibration_change(model, scores, targets)
        calibration |= {} if changed is None else {role: changed}
    model.network.cpu()
    return Judged(found, calibration or None)


def calibration_change(model: Model, scores: Tensor, targets: Targets) -> dict[str, dict[str, float]] | None:
    """How right probabilities are "before" and "after" the correction of the prior and the calibration.

    None for a model without either, which leaves raw scores as they are.
    """
    if model.prior_shift is None and model.calibration is None:
        return None
    is_classes = model.recipe.task == "classes"
    before = probabilities_of(scores) if is_classes else scores.double().sigmoid().numpy()
    given = {"before": before, "after": model.probabilities(scores)}
    truth = class_ids(targets).numpy() if is_classes else unweighted(targets)
    names = _OF_CALIBRATION if is_classes else _OF_CALIBRATION[:1]  # bins of labels have no metric here
    return {
        when: {
            name: metric_of(model.recipe.task, name).measure(
                p if is_classes else torch.from_numpy(p), truth, weight=_weight(targets)
            ).value
            for name in names
        }
        for when, p in given.items()
    }  # fmt: skip


def measured_outputs(model: Model, scores: Tensor, targets: Targets) -> dict[str, float]:
    """The metrics of scores [N, C] of a model, decided as the model decides; those that rows allow."""
    names = dict.fromkeys([model.recipe.metric, *SHOWN[model.recipe.task]])
    found: dict[str, float] = {}
    for name in names:
        value = _value(metric_of(model.recipe.task, name), model, scores, targets)
        if value is not None:
            found[name] = value
    return found


def described_model(model: Model, frame: Frame, judged: Judged) -> Model:
    """The model with a description of where it comes from."""
    about: dict[str, Any] = {
        "data": frame.source,
        "fingerprint": frame.fingerprint,
        "scores": judged.scores,
        "calibration": judged.calibration,
        "versions": {
            "margins": margins.__version__, "torch": version("torch"), "python": platform.python_version(),
        },
    }  # fmt: skip
    return replace(model, about=about)


def _value(metric: Metric, model: Model, scores: Tensor, targets: Targets) -> float | None:
    predictions, truth = judged_by(metric, model, scores, targets)
    try:
        return metric.measure(predictions, truth, weight=_weight(targets)).value
    except MarginsError:
        if metric.name == model.recipe.metric:
            raise
        return None  # beside the one asked for: it has no meaning for these rows (one class only, ...)


def judged_by(metric: Metric, model: Model, scores: Tensor, targets: Targets) -> tuple[Any, Any]:
    """Predictions, decided as the model decides, and the truth, as the metric takes them."""
    if model.recipe.task == "label_sets" and metric.kind in ("f1", "accuracy"):
        return model.shifted(scores).sigmoid(), unweighted(targets)
    if model.recipe.task == "label_sets" and metric.kind != "candidates":
        # Within a row labels stand as their scores do; over rows probabilities are compared.
        scores = model.with_prior(scores)
    restored = model.coding.restored if isinstance(model.coding, ValueCoding) else None
    predictions, truth = judged(metric, model.recipe.task, scores, unweighted(targets), restored)
    if model.recipe.task == "classes":
        decides = metric.kind in ("f1", "accuracy")
        return (model.decision_shares(scores) if decides else model.probabilities(scores)), truth
    return predictions, truth


def _weight(targets: Targets) -> Floats | None:
    return None if targets.row_weight is None else targets.row_weight.double().numpy()
