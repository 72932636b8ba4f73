"""scikit-learn estimators: `fit` trains a `margins.Model`, and pipelines, grids and clones work as usual."""

from margins.estimators.classifier import MarginsClassifier
from margins.estimators.embedder import MarginsEmbedder
from margins.estimators.regressor import MarginsRegressor

__all__ = ["MarginsClassifier", "MarginsEmbedder", "MarginsRegressor"]
