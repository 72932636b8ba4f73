"""The main job: which training objective is best on these data, and how sure is that."""

from margins.compare.candidates.candidate import Candidate, read_candidates
from margins.compare.candidates.catalogue import all_candidates, find_candidate
from margins.compare.problem.folding import Spoiling
from margins.compare.results import ComparisonResult, Difference, Left, Preview, RecipeResult, RunDescription
from margins.compare.run import compare
from margins.compare.trials.scheduling import TrialDone
from margins.training.request import Roles

__all__ = [
    "Candidate",
    "ComparisonResult",
    "Difference",
    "Left",
    "Preview",
    "RecipeResult",
    "Roles",
    "RunDescription",
    "Spoiling",
    "TrialDone",
    "all_candidates",
    "compare",
    "find_candidate",
    "read_candidates",
]
