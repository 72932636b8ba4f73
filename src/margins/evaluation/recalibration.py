"""Probabilities from a model whose loss had its optimum elsewhere than at the true shares."""

from __future__ import annotations

from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from margins.cards import Card, carded
from margins.errors import MarginsError
from margins.evaluation.records import Array, Floats, as_array

Probabilities = TypeVar("Probabilities", Tensor, Floats)


@carded(
    Card(
        name="Recalibration of comp-sum losses",
        summary="probabilities of a model that was trained with CompSum at another tau than 1",
        paper="Mao, Mohri, Zhong, Cross-Entropy Loss Functions, 2023, arXiv 2304.07288",
        kind="decision",
        stations=("after training",),
        targets=("classes", "scores"),
        entry=95,
        tests=("tests/test_robust_losses.py::test_recalibration_gives_back_the_shares_that_labels_have",),
    )
)
def recalibrate_comp_sum(probabilities: Probabilities, *, tau: float) -> Probabilities:
    r"""The shares of labels of which a comp-sum loss makes these probabilities.

    Use it after training with `CompSum` at another tau than 1, before a temperature is fitted, when
    probabilities matter; decisions stay the same. It is exact where the loss was minimised row by row, which
    an overfitted model does not do: there a temperature fitted on held-out rows is safer alone.

    $q_k \propto p_k^{2 - \tau}$, because the loss is least at a softmax in proportion to $q^{1/(2-\tau)}$.

    Args:
        probabilities: [N, C] >= 0.
        tau: in [0, 2) of the loss; at 2 its optimum is a certain prediction, whatever the shares.

    Returns:
        [N, C] of the type that was given, rows that sum to one.

    Raises:
        MarginsError: tau out of range, negative or non-finite entries, a row of zeros.

    Example:
        >>> recalibrate_comp_sum(torch.tensor([[0.9, 0.1]]), tau=1.5)
        tensor([[0.7500, 0.2500]])

    References:
        Mao, Mohri, Zhong 2023, arXiv 2304.07288; that the optimum is at a power of the shares is ours to
        use.
    """
    if not 0 <= tau < 2:
        raise MarginsError("tau", expected="a number in [0, 2)", received=str(tau))
    given = as_array("probabilities", cast("Array", probabilities))
    if given.ndim != 2 or given.dtype.kind != "f":
        raise MarginsError(
            "probabilities", expected="[N, C] floats", received=f"{list(given.shape)} {given.dtype}"
        )
    values = given.astype(np.float64)
    is_fit = bool(np.isfinite(values).all() and (values >= 0).all() and values.any(axis=1).all())
    if not is_fit:
        raise MarginsError(
            "probabilities", expected="finite numbers >= 0, one above 0 in every row", received="others",
            fix="pass probabilities: logits.softmax(1)",
        )  # fmt: skip
    if given.shape[1]:
        # Over the largest first, so that small rows do not underflow.
        values = (values / values.max(axis=1, keepdims=True)) ** (2 - tau)
        values = values / values.sum(axis=1, keepdims=True)
    if isinstance(probabilities, Tensor):
        return torch.from_numpy(values).to(probabilities)
    return cast("Probabilities", values.astype(given.dtype))
