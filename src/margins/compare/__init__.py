"""The main job: which training objective is best on these data, and how sure is that."""

from margins.compare.results import ComparisonResult, Difference, RecipeResult, RunDescription
from margins.compare.run import Spoiling, compare

__all__ = ["ComparisonResult", "Difference", "RecipeResult", "RunDescription", "Spoiling", "compare"]
