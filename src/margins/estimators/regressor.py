"""A regressor for scikit-learn."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from margins.data.extras import extra
from margins.errors import MarginsError
from margins.estimators.base import MarginsEstimator, target_name
from margins.estimators.posing import value_coding
from margins.training.recipe import Task

with extra("tool"):
    import polars as pl
    from sklearn.base import RegressorMixin


class MarginsRegressor(RegressorMixin, MarginsEstimator):
    """A network that predicts a number, which it standardises for itself.

    X, the parameters, rows that are equal and their weights: see `MarginsClassifier`. The select rows choose
    the epoch by the root mean squared error; ask for another metric with `recipe={"metric": "mae"}`.

    Attributes:
        n_features_in_: columns of X; not of texts.
        feature_names_in_: their names, if X was a data frame that has them.
        model_: the trained `margins.Model`, with `save`.
        n_iter_: epochs that were trained.
        notes_: what was decided or is odd, one sentence each.

    Raises:
        MarginsError: cells, kinds or a recipe that cannot be used.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(300, 2))
        >>> regressor = MarginsRegressor(max_epochs=30).fit(X, 100 + 5 * X[:, 0])
        >>> bool(abs(regressor.predict([[1.0, 0.0]])[0] - 105) < 1)
        True
    """

    _task: ClassVar[Task] = "values"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains on rows with their numbers.

        Args:
            X: see the class.
            y: [N] finite numbers.
            sample_weight: [N] not negative, not all 0.
        """
        cells = pl.Series(target_name(y), _numbers(self._target(y)))
        rows = self._rows(X, cells, sample_weight)
        return self._train(rows, value_coding(rows), {})

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Numbers [N] in the unit of y."""
        model = self._fitted_model()
        return self._outputs(X, lambda frame: np.asarray(model.predict(frame), dtype=np.float64))


def _numbers(target: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    try:
        return target.astype(np.float64)
    except (TypeError, ValueError):
        raise MarginsError("y", expected="numbers", received=f"an array of type {target.dtype}") from None
