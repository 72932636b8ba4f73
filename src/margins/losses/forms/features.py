"""Features: a loss of embeddings and labels, with no scores against candidates."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float, Int
from torch import Tensor

from margins.engine.sources import at_least_float32, checked, full_precision
from margins.errors import MarginsError, describe
from margins.losses.forms.base import Loss
from margins.targets.checks import check_labels


class FeaturesLoss(Loss):
    """A penalty on the geometry of a batch of embeddings; its denominator is its own and is named there."""

    form = "features"

    @abstractmethod
    def of_features(
        self, embeddings: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]
    ) -> Float[Tensor, ""]:
        """The penalty; embeddings are checked and in float32 at least."""

    def forward(
        self, embeddings: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]
    ) -> Float[Tensor, ""]:
        """The penalty of a batch.

        Args:
            embeddings: [B, d].
            labels: [B] integers.
        """
        if embeddings.ndim != 2 or not embeddings.is_floating_point():
            raise MarginsError("embeddings", expected="[B, d] floats", received=describe(embeddings))
        check_labels("labels", labels)
        if labels.shape[0] != embeddings.shape[0]:
            raise MarginsError("labels", expected=f"[B] = [{embeddings.shape[0]}]", received=describe(labels))
        with full_precision(embeddings.device):
            return self.of_features(checked("embeddings", at_least_float32(embeddings)), labels)
