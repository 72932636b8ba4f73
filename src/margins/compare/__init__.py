"""The main job: which training objective is best on these data, and how sure is that."""

from margins.compare.encoding import default_training
from margins.compare.results import ComparisonResult, Difference, RecipeResult, RunDescription
from margins.compare.run import compare
from margins.compare.trials import Spoiling

__all__ = [
    "ComparisonResult",
    "Difference",
    "RecipeResult",
    "RunDescription",
    "Spoiling",
    "compare",
    "default_training",
]
