"""Margins of labels by how rare they are, for label sets."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError, describe, values_are_readable
from margins.losses.forms.base import in_range


@carded(
    Card(
        name="Multi-label LDAM",
        summary="label sets with a long tail: positives of rare labels must clear a larger margin",
        paper="Biswas, Pham, Zhang, TransICD: Transformer Based Code-wise Attention Model for Explainable "
        "ICD Coding, 2021, arXiv 2104.10652 (after Cao et al., 2019, arXiv 1906.07413)",
        kind="targets",
        stations=("set targets",),
        targets=("label sets",),
        entry=18,
        recipe={"objective": {"loss": "binary_cross_entropy", "targets": {"class_margins": 3.0}}},
        tests=(
            "tests/test_label_attention.py::test_margins_fall_with_the_fourth_root_of_the_count",
            "tests/test_label_attention.py::test_margins_on_positives_are_the_reference_under_every_evaluator",
            "tests/test_label_attention.py::test_no_margin_is_binary_cross_entropy",
        ),
        study="label_attention",
    )
)
def label_margins(counts: Tensor, *, strength: float = 3.0) -> Float[Tensor, " labels"]:
    r"""The label-distribution-aware margin of each label: $\Delta_l = C / n_l^{1/4}$, $C$ without a positive.

    Give it to the targets, on positives alone, and train with `BinaryCrossEntropy`: positives then score
    $s_{il} - \Delta_l$ in training, while nothing is subtracted in use.

    Use it where rare labels are missed, and thresholds are fitted afterwards. Probabilities of rare labels
    come out too high: trained scores stand for $p / (1 - p) = \sigma(s) / \sigma(\Delta - s)$, so that a
    threshold of one half is no longer that of accuracy. Do not use it where probabilities count. A threshold
    for each label, chosen on held-out rows, is the plain rival.

    Args:
        counts: [L] training rows that have each label, >= 0.
        strength: $C$ >= 0, the largest margin; 0 gives none.

    Raises:
        MarginsError: not a vector, a negative count, or a strength out of its range.

    Reduces to:
        plain binary cross-entropy for strength = 0.

    References:
        Biswas, Pham, Zhang 2021, arXiv 2104.10652; Cao et al. 2019, arXiv 1906.07413, eq. 13.

    Example:
        >>> from margins.losses import BinaryCrossEntropy
        >>> from margins.targets import Targets
        >>> margin = label_margins(torch.tensor([81, 1, 0]))
        >>> margin
        tensor([1., 3., 3.])
        >>> targets = Targets.of_label_sets([[0], [0, 1]], 3).margin(candidates=margin, on="positives")
        >>> BinaryCrossEntropy()(torch.zeros(2, 3), targets)
        tensor(1.2924)
    """
    in_range("strength", strength, low=0)
    is_counts = counts.ndim == 1 and not counts.is_complex() and counts.dtype != torch.bool
    if not is_counts or (values_are_readable(counts) and bool((counts < 0).any())):
        raise MarginsError("counts", expected="[L] numbers of rows, >= 0", received=describe(counts))
    return strength * counts.to(torch.get_default_dtype()).clamp(min=1) ** -0.25
