"""Probabilities for a population whose classes have other shares than the training rows had."""

from __future__ import annotations

from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from margins.errors import MarginsError
from margins.evaluation.records import Array, Floats, as_array

Logits = TypeVar("Logits", Tensor, Floats)


def corrected_for_prior(logits: Logits, *, trained_on: Array, of: Array) -> Logits:
    """Logits whose softmax is right where classes have the shares `of`.

    Use it when the classes look alike in both populations and only their shares differ (Saerens et al. 2002),
    also to undo a resampling of the training rows. Not after training with a prior-adjusted loss, whose
    softmax is already free of the prior.

    z_c + log of_c - log trained_on_c, by Bayes' rule; exact if the softmax was right on `trained_on`.

    Args:
        logits: [N, C] class logits, or log probabilities.
        trained_on: [C] shares > 0 of the classes as training saw them.
        of: [C] shares >= 0 of the classes where the probabilities will be used.

    Returns:
        [N, C], of the type of the logits; -inf for a class of share 0.

    Raises:
        MarginsError: shares that do not fit, do not sum to one, or are zero where training needed them.

    Example:
        >>> balanced = torch.tensor([[0.0, 0.0]])
        >>> even, rare = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
        >>> corrected_for_prior(balanced, trained_on=even, of=rare).softmax(1)
        tensor([[0.9000, 0.1000]])
    """
    given = as_array("logits", cast("Array", logits))
    if given.ndim != 2 or given.dtype.kind != "f":
        raise MarginsError("logits", expected="[N, C] floats", received=f"{list(given.shape)} {given.dtype}")
    before, after = (_shares(n, v, given.shape[1]) for n, v in (("trained_on", trained_on), ("of", of)))
    if not before.all():
        raise MarginsError(
            "trained_on", expected="shares > 0", received=f"0 for class {int(before.argmin())}",
            fix="a class without training rows has no logit to correct",
        )  # fmt: skip
    with np.errstate(divide="ignore"):
        shift = np.log(after) - np.log(before)
    if isinstance(logits, Tensor):
        return logits + torch.from_numpy(shift).to(logits)
    return cast("Logits", logits + shift)


def _shares(name: str, value: Array, num_classes: int) -> Floats:
    shares = as_array(name, value).astype(np.float64)
    if shares.shape != (num_classes,):
        raise MarginsError(name, expected=f"[C] = [{num_classes}]", received=str(list(shares.shape)))
    if not (np.isfinite(shares).all() and (shares >= 0).all()) or abs(shares.sum() - 1) > 1e-4:
        raise MarginsError(
            name, expected="shares >= 0 that sum to one", received=str(shares)[:60],
            fix="counts / counts.sum()",
        )  # fmt: skip
    return shares
