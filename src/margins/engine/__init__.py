"""How losses are evaluated: score rules, evaluators, reduction, and the gather over ranks."""

from margins.engine.blockwise import Blockwise
from margins.engine.evaluators import Dense, Evaluator
from margins.engine.gather import gather_rows
from margins.engine.gradient_cache import GradientCache
from margins.engine.reduction import Reduction, RowLosses
from margins.engine.sampled import Sampled
from margins.engine.score_rules import (
    Cosine,
    Custom,
    Dot,
    Euclidean,
    ScoreRule,
    SquaredEuclidean,
    UnitEuclidean,
)
from margins.engine.sharded import Sharded, before_averaging
from margins.engine.spherical import Spherical
from margins.engine.spherical_layer import SphericalLayer
from margins.engine.topk import log_soft_topk, soft_topk

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
