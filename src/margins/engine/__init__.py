"""How losses are evaluated: score rules, evaluators, reduction, and the gather over ranks."""

from margins.engine.blockwise import Blockwise
from margins.engine.evaluators import Dense, Evaluator
from margins.engine.gather import gather_rows
from margins.engine.gradient_cache import GradientCache
from margins.engine.reduction import Reduction, RowLosses
from margins.engine.score_rules import Cosine, Custom, Dot, Euclidean, ScoreRule, SquaredEuclidean
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
    "ScoreRule",
    "SquaredEuclidean",
    "gather_rows",
    "log_soft_topk",
    "soft_topk",
]
