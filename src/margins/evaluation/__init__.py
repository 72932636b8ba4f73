"""Metrics of predictions, what is fitted on select predictions, and the statistics that compare."""

from margins.evaluation.bootstrap import Interval, bootstrap_interval
from margins.evaluation.breakdown import ClassGroups, GroupScore, breakdown, class_values
from margins.evaluation.calibration import Isotonic, Platt, Temperature, VectorScaling, calibration_from
from margins.evaluation.class_cuts import ClassCut, OddsCut, PriorCut, class_cut_from, fit_class_cut
from margins.evaluation.metrics import Measurement, Metric, all_metrics, find_metric
from margins.evaluation.prior import corrected_for_prior
from margins.evaluation.ranking import propensities
from margins.evaluation.recalibration import recalibrate_comp_sum
from margins.evaluation.records import Embeddings
from margins.evaluation.select_role import SelectPredictions
from margins.evaluation.streaming import Accumulator
from margins.evaluation.thresholds import (
    BinaryThreshold,
    Cost,
    Thresholds,
    fit_binary_threshold,
    fit_thresholds,
)

__all__ = [
    "Accumulator",
    "BinaryThreshold",
    "ClassCut",
    "ClassGroups",
    "Cost",
    "Embeddings",
    "GroupScore",
    "Interval",
    "Isotonic",
    "Measurement",
    "Metric",
    "OddsCut",
    "Platt",
    "PriorCut",
    "SelectPredictions",
    "Temperature",
    "Thresholds",
    "VectorScaling",
    "all_metrics",
    "bootstrap_interval",
    "breakdown",
    "calibration_from",
    "class_cut_from",
    "class_values",
    "corrected_for_prior",
    "find_metric",
    "fit_binary_threshold",
    "fit_class_cut",
    "fit_thresholds",
    "propensities",
    "recalibrate_comp_sum",
]
