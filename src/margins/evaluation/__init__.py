"""Metrics of predicted probabilities, and the statistics that compare them."""

from margins.evaluation.metrics import Metric, all_metrics, find_metric

__all__ = ["Metric", "all_metrics", "find_metric"]
