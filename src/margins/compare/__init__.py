"""The main job: which training objective is best on these data, and how sure is that."""

from margins.compare.candidates.candidate import Candidate, read_candidates
from margins.compare.candidates.catalogue import all_candidates, find_candidate
from margins.compare.problem.folding import Spoiling
from margins.compare.protocols.learning_curve import (
    fit_logistic_regression,
    fit_naive_bayes,
    learning_curve,
)
from margins.compare.protocols.novel_class import (
    JointScore,
    NovelClassScore,
    TrainedEmbedding,
    novel_class,
)
from margins.compare.protocols.transfer import (
    ProbedTask,
    ProbeScore,
    TransferScore,
    linear_probe,
    transfer,
)
from margins.compare.results import ComparisonResult, Difference, Left, Preview, RecipeResult, RunDescription
from margins.compare.run import compare
from margins.compare.trials.scheduling import TrialDone
from margins.training.request import Roles

__all__ = [
    "Candidate",
    "ComparisonResult",
    "Difference",
    "JointScore",
    "Left",
    "NovelClassScore",
    "Preview",
    "ProbeScore",
    "ProbedTask",
    "RecipeResult",
    "Roles",
    "RunDescription",
    "Spoiling",
    "TrainedEmbedding",
    "TransferScore",
    "TrialDone",
    "all_candidates",
    "compare",
    "find_candidate",
    "fit_logistic_regression",
    "fit_naive_bayes",
    "learning_curve",
    "linear_probe",
    "novel_class",
    "read_candidates",
    "transfer",
]
