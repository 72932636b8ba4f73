"""How losses are evaluated: score rules, evaluators, reduction, and the gather over ranks."""

from margins.engine.blockwise import Blockwise
from margins.engine.evaluators import Dense, Evaluator
from margins.engine.gather import gather_rows
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
from margins.engine.sharded import Sharded, before_averaging
from margins.engine.spherical import Spherical
from margins.engine.spherical_layer import SphericalLayer

__all__ = [
    "Blockwise",
    "Cosine",
    "Custom",
    "Dense",
    "Dot",
    "Euclidean",
    "Evaluator",
    "Reduction",
    "RowLosses",
    "ScoreRule",
    "Sharded",
    "Spherical",
    "SphericalLayer",
    "SquaredEuclidean",
    "UnitEuclidean",
    "before_averaging",
    "gather_rows",
]
