"""A classifier for scikit-learn."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from margins.data.extras import extra
from margins.errors import MarginsError
from margins.estimators.base import Array, MarginsEstimator, target_name
from margins.estimators.labels import coded_labels, names_of
from margins.estimators.posing import class_coding
from margins.training.model import Model
from margins.training.recipe import Task

with extra("tool"):
    from sklearn.base import ClassifierMixin

Floats = npt.NDArray[np.float64]


class MarginsClassifier(ClassifierMixin, MarginsEstimator):
    """A network that tells classes apart, trained by any loss of the house.

    Use it where scikit-learn is at home: pipelines, grids, cross-validation. For runs that survive a crash,
    report rows and columns with roles use `margins.train`.

    X is an array [N, d] of numbers, a pandas, polars or Arrow data frame with mixed columns, or a list or
    array of N texts. Missing numbers are gaps that the network learns about. Equal rows become one that
    weighs as much: integer weights are the same as repeated rows, to the bit, and weight 0 is the same as
    no row.

    Args:
        recipe: keys of a recipe that are not to have their defaults, nested as in YAML.
        kinds: what columns of a data frame are where their types say otherwise, e.g. `{"note": "text"}`:
            numbers are "numeric", text and booleans "categorical", lists of floats "embedding". Or one kind
            for all: "embedding" takes the rows of an array as vectors.
        loss: name of a loss; `margins methods` lists them.
        max_epochs: passes over the rows at most.
        learning_rate: the largest of the schedule.
        batch_size: rows a step at most.
        select_share: of the different rows, in [0, 1), in balance: they choose the epoch that is kept and
            calibrate probabilities, and do not train. With fewer than ten of them, or 0, all rows train for
            all epochs.
        random_state: a whole number for the same model every time; a RandomState or None for another one.
        device: "auto" takes a GPU if there is one.

    Attributes:
        classes_: the labels, sorted; columns of probabilities are in this order.
        n_features_in_: columns of X; not of texts.
        feature_names_in_: their names, if X was a data frame that has them.
        model_: the trained `margins.Model`, with `save`; its classes are the labels as text.
        n_iter_: epochs that were trained.
        notes_: what was decided or is odd, one sentence each.

    Raises:
        MarginsError: cells, kinds or a recipe that cannot be used, or one class alone.

    Example:
        >>> draws = np.random.default_rng(0)
        >>> X = draws.normal(size=(200, 2))
        >>> y = np.where(X.sum(1) > 0, "up", "down")
        >>> classifier = MarginsClassifier(max_epochs=20).fit(X, y)
        >>> classifier.predict([[3.0, 2.0], [-2.0, -3.0]])
        array(['up', 'down'], dtype='<U4')
        >>> bool(classifier.score(X, y) > 0.9)
        True
    """

    _task: ClassVar[Task] = "classes"

    classes_: Array

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains on rows with their labels.

        Args:
            X: see the class.
            y: [N] labels: text, whole numbers or booleans.
            sample_weight: [N] not negative, not all 0.
        """
        labels = coded_labels(self._target(y), name=target_name(y))
        rows = self._rows(X, labels.cells, sample_weight)
        self.classes_ = labels.among(rows.target)
        if len(self.classes_) < 2:
            raise MarginsError(
                "y", expected="at least two classes among rows that weigh something",
                received=f"1 class, {self.classes_[0]!r}",
                fix="a classifier needs rows of another class to tell it from",
            )  # fmt: skip
        return self._train(rows, class_coding(rows), {})

    def predict_proba(self, X: Any) -> Floats:
        """Probabilities [N, C], in the order of `classes_`."""
        model = self._fitted_model()
        return self._outputs(X, model.predict_proba)[:, self._places(model)]

    def predict(self, X: Any) -> Array:
        """The label [N] that is decided for, of each row.

        It is the likeliest, unless the recipe works against the class prior or tunes a cut: then rare classes
        are decided for more often than their probabilities alone would have it.
        """
        model = self._fitted_model()
        shares = self._outputs(X, lambda frame: model.decision_shares(model.scores(frame)))
        return self.classes_[shares[:, self._places(model)].argmax(1)]

    def _places(self, model: Model) -> list[int]:
        """Where the model has each of `classes_`."""
        return [model.classes.index(name) for name in names_of(self.classes_)]
