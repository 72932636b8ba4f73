"""What training minimises: a loss, and how plain class ids and logits are made into what it takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from margins.targets import Targets


class Objective(nn.Module):
    """A loss with the targets and scores it is to see.

    Args:
        loss: called as `loss(scores, targets)`, gives a scalar; its own parameters are trained too.
        targets: makes targets of class ids [B]; class ids as they are by default.
        scores: makes scores of logits [B, C]; the logits by default.
    """

    def __init__(
        self,
        loss: nn.Module,
        *,
        targets: Callable[[Tensor], Tensor | Targets] | None = None,
        scores: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self._targets = targets
        self._scores = scores

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The scalar to minimise for logits [B, C] and class ids [B]."""
        targets = self._targets(labels) if self._targets else labels
        scores = self._scores(logits) if self._scores else logits
        return self.loss(scores, targets)
