"""The class prior that training worked against, and the way back to that of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from margins.evaluation.prior import corrected_for_prior
from margins.training.objective import class_weights
from margins.training.recipe import Recipe


def prior_shift(recipe: Recipe, class_counts: Tensor) -> Tensor | None:
    """[C] what is added to trained scores for probabilities of data with the training rows' class shares.

    A balanced draw, class weights and logit adjustment make a model that answers as if classes had other
    shares. That is wanted in its decisions; its probabilities are right again after Bayes' rule, in logits
    log prior - log (the prior that training saw).

    Args:
        recipe: of the last phase.
        class_counts: [C] training rows of each class; one without any counts as one row.

    Returns:
        the shift in float64, None when training saw the prior as it is.

    Example:
        >>> plain = {"task": "classes", "encoder": {"name": "tabular"}, "metric": "accuracy"}
        >>> balanced = Recipe(**plain, draw={"name": "class_balanced"})
        >>> prior_shift(balanced, torch.tensor([90, 10])).exp()
        tensor([1.8000, 0.2000], dtype=torch.float64)
        >>> prior_shift(Recipe(**plain), torch.tensor([90, 10])) is None
        True
    """
    targets = recipe.objective.targets
    if not (recipe.draw.changes_prior or targets.changes_prior):
        return None
    counts = class_counts.double().clamp(min=1)
    prior = counts / counts.sum()
    seen = torch.full_like(prior, 1 / len(prior)) if recipe.draw.changes_prior else prior
    if targets.class_weight is not None:
        seen = seen * class_weights(targets.class_weight, counts)
    # An adjusted score stands for p / prior ** tau: training itself added the logarithm.
    seen = seen / prior**targets.logit_adjustment
    return corrected_for_prior(torch.zeros(1, len(prior)).double(), trained_on=seen / seen.sum(), of=prior)[0]
