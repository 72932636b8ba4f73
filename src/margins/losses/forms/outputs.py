"""Outputs: any function of the named tensors of a step. Dense only; its card says why no other form fits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from margins.losses.forms.base import Loss
from margins.targets import Targets


class OutputsLoss(Loss):
    """A loss of several named outputs and their targets."""

    form = "outputs"

    @abstractmethod
    def forward(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Targets | Tensor]
    ) -> Float[Tensor, ""]:
        """The loss of a step."""
