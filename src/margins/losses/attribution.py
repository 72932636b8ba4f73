"""What shares of concepts are trained for: to be those that people gave, and to be few."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import LossCard, carded
from margins.engine.reduction import RowLosses
from margins.engine.sources import at_least_float32, checked, full_precision
from margins.errors import MarginsError, describe
from margins.losses.forms.base import Loss

_PAPER = (
    "Hong, Park, Pavlic, Concept-Centric Transformers, 2024, arXiv 2305.15775 (after Rigotti et al., "
    "Attention-based Interpretability with Concept Transformers, ICLR 2022)"
)
_GUARD = 1e-8  # under the logarithm


@carded(
    LossCard(
        name="Concept explanation loss",
        summary="beside the loss of classes: shares of concepts are to be those that are labelled",
        paper=_PAPER,
        entry=94,
        targets=("scores",),
        stations=("penalties",),
        distributed="independent",
        comparable=True,
        collapse="1 - 1 / S: even shares, one true concept a row",
        limits=("shares equal to the concepts: 0",),
        tests=("tests/test_concepts.py::test_the_explanation_loss_equals_the_reference",),
        study="concept_head",
    )
)
class ConceptExplanation(Loss):
    r"""The squared distance of the shares of concepts from those that were labelled.

    $L_i = \sum_s (\alpha_{is} - c_{is} / \sum_r c_{ir})^2$: S times the mean squared error, averaged over
    rows that have concepts.

    Use it with `margins.heads.ConceptHead`, times a weight of 5 or so, where concepts are labelled on some of
    the rows; the others are left out by NaN. It cannot make a model right that cannot tell the concepts.

    No other form fits: what it compares are shares inside a head, not scores.

    Args:
        reduction: see `margins.engine.reduction`; a row with a NaN, or without any concept, does not count.

    References:
        Hong, Park, Pavlic 2024, arXiv 2305.15775; Rigotti et al., ICLR 2022.

    Example:
        >>> shares = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
        >>> concepts = torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]])
        >>> ConceptExplanation()(shares, concepts)
        tensor(0.5000)
    """

    form = "outputs"

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(
        self,
        attribution: Float[Tensor, "*rows concepts"],
        concepts: Tensor,
        *,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced loss.

        Args:
            attribution: [..., S] shares of the concepts of rows, or of tokens of rows.
            concepts: [..., S] how much each is there, >= 0 with any sum; NaN where nobody said.
            denominator: divisor to use instead of this batch's own.
        """
        return self.rows(attribution, concepts).reduce(self.reduction, denominator)

    def rows(self, attribution: Float[Tensor, "*rows concepts"], concepts: Tensor) -> RowLosses:
        """Row losses with all that a reduction needs."""
        shares = _shares(attribution)
        if concepts.shape != attribution.shape or concepts.is_complex():
            raise MarginsError(
                "concepts", expected=f"{list(attribution.shape)}, as the attribution",
                received=describe(concepts),
            )  # fmt: skip
        given = concepts.detach().to(shares).reshape(shares.shape)
        sums = given.sum(1, keepdim=True)
        valid = (sums > 0).squeeze(1)  # NaN is not
        true = torch.where(valid[:, None], given, 0.0) / torch.where(valid[:, None], sums, 1.0)
        with full_precision(shares.device):
            values = (shares - true).square().sum(1)
        return RowLosses(torch.where(valid, values, 0.0), counts=valid)


@carded(
    LossCard(
        name="Entropy of attributions",
        summary="beside the loss of classes: each prediction is to rest on few concepts",
        paper=_PAPER,
        entry=94,
        targets=("none",),
        stations=("penalties",),
        distributed="independent",
        comparable=True,
        collapse="log(S) / S: even shares",
        limits=("all on one concept: 0",),
        tests=("tests/test_concepts.py::test_the_entropy_of_attributions_equals_the_reference",),
        study="concept_head",
    )
)
class AttributionEntropy(Loss):
    r"""The mean of $-\alpha \log(\alpha + 10^{-8})$ over rows and concepts.

    Use it with a small weight beside the loss of the classes, where explanations by many concepts are no
    explanations. A large weight fixes the first concept that wins.

    No other form fits: it is of shares inside a head, and has no targets.

    Args:
        reduction: see `margins.engine.reduction`; a row's value is the mean over its concepts.

    References:
        Hong, Park, Pavlic 2024, arXiv 2305.15775.

    Example:
        >>> AttributionEntropy()(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor(0.1733)
    """

    form = "outputs"

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(
        self,
        attribution: Float[Tensor, "*rows concepts"],
        *,
        mask: Tensor | None = None,
        denominator: Tensor | float | None = None,
    ) -> Float[Tensor, "*reduced"]:
        """The reduced entropy.

        Args:
            attribution: [..., S] shares >= 0 of concepts.
            mask: [...] bool, true for what counts (real tokens); None when all do.
            denominator: divisor to use instead of this batch's own.
        """
        return self.rows(attribution, mask=mask).reduce(self.reduction, denominator)

    def rows(self, attribution: Float[Tensor, "*rows concepts"], *, mask: Tensor | None = None) -> RowLosses:
        """Row values with all that a reduction needs."""
        shares = _shares(attribution)
        with full_precision(shares.device):
            values = -(shares * (shares.clamp(min=0) + _GUARD).log()).mean(1)
        if mask is None:
            return RowLosses(values)
        if mask.shape != attribution.shape[:-1] or mask.dtype != torch.bool:
            raise MarginsError(
                "mask", expected=f"{list(attribution.shape[:-1])} bool", received=describe(mask)
            )
        counts = mask.flatten()
        return RowLosses(torch.where(counts, values, 0.0), counts=counts)


def _shares(attribution: Any) -> Tensor:
    if not isinstance(attribution, Tensor) or attribution.ndim < 2 or not attribution.is_floating_point():
        raise MarginsError("attribution", expected="[..., S] floats", received=describe(attribution))
    if attribution.shape[-1] == 0:
        raise MarginsError("attribution", expected="[..., S] with S >= 1", received=describe(attribution))
    return checked("attribution", at_least_float32(attribution.reshape(-1, attribution.shape[-1])))
