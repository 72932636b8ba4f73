"""How losses are evaluated: score rules, evaluators, reduction, and the gather over ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from margins.engine.blocks.blockwise import Blockwise
from margins.engine.evaluators import Dense, Evaluator
from margins.engine.reduction import Reduction, RowLosses
from margins.engine.score_rules import (
    Cosine,
    Custom,
    Dot,
    Euclidean,
    ScoreRule,
    SquaredEuclidean,
    UnitEuclidean,
)
from margins.engine.spherical.evaluator import Spherical

if TYPE_CHECKING:
    from margins.engine.across_ranks.gather import gather_rows
    from margins.engine.across_ranks.sharded import Sharded, before_averaging
    from margins.engine.caching.gradient_cache import GradientCache
    from margins.engine.sampling.sampled import Sampled
    from margins.engine.spherical.layer import SphericalLayer
    from margins.engine.topk.soft_topk import log_soft_topk, soft_topk

__all__ = [
    "Blockwise",
    "Cosine",
    "Custom",
    "Dense",
    "Dot",
    "Euclidean",
    "Evaluator",
    "GradientCache",
    "Reduction",
    "RowLosses",
    "Sampled",
    "ScoreRule",
    "Sharded",
    "Spherical",
    "SphericalLayer",
    "SquaredEuclidean",
    "UnitEuclidean",
    "before_averaging",
    "gather_rows",
    "log_soft_topk",
    "soft_topk",
]

# Found when first asked for: losses need none of it.
_HOMES = {
    "GradientCache": "caching.gradient_cache",
    "Sampled": "sampling.sampled",
    "Sharded": "across_ranks.sharded",
    "SphericalLayer": "spherical.layer",
    "before_averaging": "across_ranks.sharded",
    "gather_rows": "across_ranks.gather",
    "log_soft_topk": "topk.soft_topk",
    "soft_topk": "topk.soft_topk",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'margins.engine' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"margins.engine.{_HOMES[name]}"), name)
