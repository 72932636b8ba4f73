"""The station `mix`: rows of a batch are mixed with others of it, and their targets with them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from margins.data.settings import Settings
from margins.targets import Targets
from margins.training.randomness import generator_of


@dataclass(frozen=True, eq=False)
class MixingPlan:
    """Each row keeps `share` of itself and takes the rest from its partner.

    Args:
        partner: [B] numbers of rows of the batch.
        share: [B] in [0, 1].
    """

    partner: Tensor
    share: Tensor

    def features(self, embeddings: Tensor) -> Tensor:
        """The embeddings [B, d], mixed."""
        share = self.share.to(embeddings)[:, None]
        return share * embeddings + (1 - share) * embeddings[self.partner]

    def targets(self, targets: Targets) -> Targets:
        """The targets of the rows, mixed the same way."""
        return targets.mix(targets.take(self.partner), self.share.to(targets.device))


class Mix(Settings):
    """A way to mix."""

    name: Any  # a literal string in each part

    @abstractmethod
    def plan(self, num_rows: int, purpose: tuple[int | str, ...]) -> MixingPlan | None:
        """Who is mixed with whom in a batch; None leaves it as it is.

        Args:
            num_rows: of the batch.
            purpose: what the draws are for; the same purpose gives the same plan.
        """


class NoMix(Mix):
    """Rows stay as they are."""

    name: Literal["none"] = "none"

    def plan(self, num_rows: int, purpose: tuple[int | str, ...]) -> MixingPlan | None:
        return None


class FeatureMixup(Mix):
    """Mixup of embeddings, between encoder and head; works for every kind of input.

    Each batch draws one share from Beta(alpha, alpha). With several micro-batches or ranks, rows mix within
    their own part.

    Args:
        alpha: > 0; small values mix little, 1 draws shares evenly.

    References:
        Verma et al., Manifold Mixup, 2019, arXiv 1806.05236 (here at the last hidden layer only).
    """

    name: Literal["feature_mixup"] = "feature_mixup"
    alpha: Annotated[float, Field(gt=0)] = 0.2

    def plan(self, num_rows: int, purpose: tuple[int | str, ...]) -> MixingPlan | None:
        generator = generator_of(*purpose)
        partner = torch.randperm(num_rows, generator=generator)
        share = _beta(self.alpha, generator)
        return MixingPlan(partner, torch.full((num_rows,), share))


AnyMix = Annotated[NoMix | FeatureMixup, Field(discriminator="name")]


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha), as the share of two gamma draws."""
    concentration = torch.full((2,), alpha, dtype=torch.float64)
    gammas = torch._standard_gamma(concentration, generator=generator)  # noqa: SLF001 - the only seeded one  # pyright: ignore[reportPrivateUsage]
    total = float(gammas.sum())
    return float(gammas[0]) / total if total > 0 else 0.5
