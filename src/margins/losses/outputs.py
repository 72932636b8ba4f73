"""Losses of several named outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from margins.cards import LossCard, carded
from margins.errors import MarginsError
from margins.losses.forms.base import Loss, in_range
from margins.losses.forms.outputs import OutputsLoss
from margins.targets import Targets


@carded(
    LossCard(
        name="Multi-head loss",
        summary="several heads at once, each with its own targets and objective, added with fixed weights",
        paper="Caruana, Multitask Learning, Machine Learning 1997",
        targets=("classes", "label sets", "scores", "values", "taxonomy"),
        distributed="independent",
        comparable=True,
        collapse="the weighted sum of the heads' own",
        limits=("one head of weight 1: that head's loss",),
    )
)
class MultiHead(OutputsLoss):
    r"""$L = \sum_h w_h L_h(outputs_h, targets_h)$.

    No other form fits: the heads have score matrices of different candidates and their own reductions.

    Args:
        heads: loss of each named head.
        weights: $w_h$ >= 0; 1 for a head that is not named.

    Example:
        >>> from margins.losses import CrossEntropy, SquaredError
        >>> loss = MultiHead({"kind": CrossEntropy(), "price": SquaredError()}, weights={"price": 0.1})
        >>> loss({"kind": torch.zeros(2, 4), "price": torch.zeros(2, 1)},
        ...      {"kind": torch.tensor([0, 3]), "price": Targets.of_values(torch.tensor([1.0, 3.0]))})
        tensor(1.8863)
    """

    def __init__(self, heads: Mapping[str, Loss], *, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(reduction="mean")
        if not heads:
            raise MarginsError("heads", expected="at least one named loss", received="none")
        for name, head in heads.items():
            if head.reduction == "none":
                raise MarginsError(
                    "heads", expected="losses that reduce to a number", received=f"{name!r}: reduction='none'"
                )
        self.heads = nn.ModuleDict(dict(heads))
        self.weights = dict.fromkeys(heads, 1.0)
        for name, weight in (weights or {}).items():
            if name not in self.weights:
                raise MarginsError("weights", expected=f"heads {sorted(heads)}", received=repr(name))
            self.weights[name] = in_range(f"weights[{name!r}]", weight, low=0)

    def forward(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Targets | Tensor]
    ) -> Float[Tensor, ""]:
        """The weighted sum over heads.

        Args:
            outputs: scores by head; exactly the heads' names.
            targets: targets by head; exactly the heads' names.
        """
        for argument, given in (("outputs", outputs), ("targets", targets)):
            if set(given) != set(self.weights):
                raise MarginsError(
                    argument, expected=f"heads {sorted(self.weights)}", received=f"{sorted(given)}"
                )
        return torch.stack(
            [self.weights[name] * head(outputs[name], targets[name]) for name, head in self.heads.items()]
        ).sum()
