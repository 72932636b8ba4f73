"""Which candidates a sampled evaluator draws, and how often each is expected."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from margins.errors import MarginsError, describe, values_are_readable

Proposal = Literal["uniform", "zipf"] | Tensor


class Draw(NamedTuple):
    """Candidates that were drawn, each once, and the logarithm of drawn over expected number."""

    candidates: Int[Tensor, " drawn"]
    log_weight: Float[Tensor, " drawn"]


def probabilities(
    proposal: Proposal, num_candidates: int, device: torch.device
) -> Float[Tensor, " candidates"]:
    """The chance of each candidate in a single draw, in float64.

    "zipf" is log((j + 2) / (j + 1)) / log(C + 1): for candidates sorted by falling frequency.
    """
    if isinstance(proposal, Tensor):
        chosen = proposal.to(device, torch.float64)
        if chosen.shape != (num_candidates,):
            raise MarginsError("proposal", expected=f"[C] = [{num_candidates}]", received=describe(proposal))
        if values_are_readable(chosen) and not bool((chosen.isfinite() & (chosen > 0)).all()):
            raise MarginsError(
                "proposal", expected="probabilities > 0", received=f"{float(chosen.min())}",
                fix="a candidate that is never drawn makes every estimate wrong: give it a small share",
            )  # fmt: skip
    elif proposal == "zipf":
        rank = torch.arange(num_candidates, device=device, dtype=torch.float64)
        chosen = ((rank + 2) / (rank + 1)).log()
    else:
        chosen = torch.ones(num_candidates, device=device, dtype=torch.float64)
    return chosen / chosen.sum()


def with_replacement(chance: Tensor, num_samples: int, generator: torch.Generator) -> Draw:
    """Independent draws; a candidate is expected num_samples times its chance."""
    places = torch.rand(num_samples, generator=generator, device=generator.device, dtype=torch.float64)
    ends = chance.cumsum(0)
    drawn = torch.searchsorted(ends, places.to(chance.device) * ends[-1], right=True)
    candidates, counts = drawn.clamp(max=chance.shape[0] - 1).unique(return_counts=True)
    return Draw(candidates, counts.double().log() - (num_samples * chance[candidates]).log())


def without_replacement(chance: Tensor, num_samples: int, generator: torch.Generator) -> Draw:
    """Distinct candidates, each with probability num_samples times its chance, or 1 where that is more.

    Systematic sampling over a random order: the inclusion probabilities are exact, and with as many samples
    as candidates all are drawn.
    """
    inclusion = _inclusion(chance, num_samples)
    order = torch.randperm(chance.shape[0], generator=generator, device=generator.device).to(chance.device)
    start = torch.rand(1, generator=generator, device=generator.device, dtype=torch.float64).to(chance.device)
    certain = inclusion >= 1
    ends = torch.where(certain, 0.0, inclusion)[order].cumsum(0)
    # Equal steps of 1 from a random start; an entry is drawn when a step falls into its stretch.
    steps = (ends - start).floor()
    before = torch.cat([(-start).floor(), steps[:-1]])
    drawn = certain.clone()
    drawn[order[steps > before]] = True
    candidates = drawn.nonzero()[:, 0]
    return Draw(candidates, -inclusion[candidates].log())


def _inclusion(chance: Tensor, num_samples: int) -> Tensor:
    """Probabilities of being drawn that add up to num_samples, in proportion to chance, at most 1."""
    certain = torch.zeros_like(chance, dtype=torch.bool)
    while True:
        left, rest = num_samples - int(certain.sum()), torch.where(certain, 0.0, chance)
        scaled = torch.where(certain, 1.0, left * rest / rest.sum().clamp(min=torch.finfo(rest.dtype).tiny))
        grown = certain | (scaled >= 1 - 1e-12)
        if bool((grown == certain).all()):
            return scaled
        certain = grown
