"""How losses are evaluated: score rules, evaluators, reduction, and the gather over ranks."""

from margins.engine.across_ranks.gather import gather_rows
from margins.engine.across_ranks.sharded import Sharded, before_averaging
from margins.engine.blocks.blockwise import Blockwise
from margins.engine.caching.gradient_cache import GradientCache
from margins.engine.evaluators import Dense, Evaluator
from margins.engine.reduction import Reduction, RowLosses
from margins.engine.sampling.sampled import Sampled
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
