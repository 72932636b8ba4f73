"""A transformer for scikit-learn that learns from labels which rows belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from margins.data.extras import extra
from margins.errors import MarginsError
from margins.estimators.base import MarginsEstimator, target_name
from margins.estimators.labels import coded_labels
from margins.estimators.merging import MergedRows
from margins.estimators.posing import class_coding
from margins.estimators.reading import Kinds
from margins.training.machine import Device
from margins.training.recipe import Task

with extra("tool"):
    from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

_MOST_ITEMS = 4


class MarginsEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, MarginsEstimator):
    """Vectors of length one in which rows of a class lie near each other, trained by supervised contrast.

    Use it before a nearest-neighbour search or classifier, for visualising, or for classes that training has
    not seen; to predict the classes themselves use `MarginsClassifier`.

    X, the other parameters, rows that are equal and their weights: see `MarginsClassifier`. Equal rows are
    one item, so a row does not count as its own match.

    Args:
        recipe: keys of a recipe that are not to have their defaults, nested as in YAML.
        dim: of the vectors; None for 128.
        kinds: of columns.
        loss: name of a loss of embeddings.
        max_epochs: passes over the rows at most.
        learning_rate: the largest of the schedule.
        batch_size: rows a step at most.
        select_share: of the different rows, which choose the epoch by the mean average precision at R.
        random_state: a whole number for the same model every time.
        device: "auto" takes a GPU if there is one.

    Attributes:
        n_features_in_: columns of X; not of texts.
        feature_names_in_: their names, if X was a data frame that has them.
        model_: the trained `margins.Model`, with `save`.
        n_iter_: epochs that were trained.
        notes_: what was decided or is odd, one sentence each.

    Raises:
        MarginsError: cells, kinds or a recipe that cannot be used, or no two different rows of one class.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(120, 3))
        >>> embedder = MarginsEmbedder(dim=2, max_epochs=2).fit(X, X[:, 0] > 0)
        >>> embedder.transform(X[:5]).shape, embedder.get_feature_names_out().tolist()
        ((5, 2), ['marginsembedder0', 'marginsembedder1'])
    """

    _task: ClassVar[Task] = "matches"

    def __init__(
        self,
        recipe: Mapping[str, Any] | None = None,
        *,
        dim: int | None = None,
        kinds: Kinds = None,
        loss: str | None = None,
        max_epochs: int | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        select_share: float = 0.15,
        random_state: int | np.random.RandomState | None = 0,
        device: Device = "auto",
    ) -> None:
        super().__init__(
            recipe, kinds=kinds, loss=loss, max_epochs=max_epochs, learning_rate=learning_rate,
            batch_size=batch_size, select_share=select_share, random_state=random_state, device=device,
        )  # fmt: skip
        self.dim = dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # vectors are float32, whatever X was
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains on rows with their labels.

        Args:
            X: see the class.
            y: [N] labels: rows of one label match.
            sample_weight: [N] not negative, not all 0; of rows as anchors.
        """
        labels = coded_labels(self._target(y), name=target_name(y))
        rows = self._rows(X, labels.cells, sample_weight)
        draw = {"name": "several_per_class", "items": _items(rows)}
        self._train(rows, class_coding(rows), {"draw": draw})
        one_row = rows.frame.take(torch.zeros(1, dtype=torch.int64))
        self._n_features_out = self.model_.embed(one_row).shape[1]
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Vectors [N, dim], of length one."""
        model = self._fitted_model()
        return self._outputs(X, model.embed)

    def _named(self) -> list[tuple[str, Any]]:
        return super()._named() + ([] if self.dim is None else [("head.dim", self.dim)])


def _items(rows: MergedRows) -> int:
    """Rows of a class that stand together in a batch: so many that no class with a pair is left out."""
    counts = np.array(rows.target.value_counts(name="count")["count"].to_list())
    if len(counts) < 2 or counts.max() < 2:
        few = "1 class" if len(counts) < 2 else f"{len(counts)} classes of one row each"
        raise MarginsError(
            "y", expected="two classes, and one of them with two different rows that weigh something",
            received=few, fix="embeddings are learned from pairs of rows of a class",
        )  # fmt: skip
    return int(min(_MOST_ITEMS, counts[counts >= 2].min()))
