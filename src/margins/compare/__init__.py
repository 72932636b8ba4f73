"""The main job: which training objective is best on these data, and how sure is that."""

from margins.compare.design import Spoiling
from margins.compare.results import ComparisonResult, Difference, RecipeResult, RunDescription
from margins.compare.run import compare
from margins.training.request import Roles

__all__ = [
    "ComparisonResult",
    "Difference",
    "RecipeResult",
    "Roles",
    "RunDescription",
    "Spoiling",
    "compare",
]
