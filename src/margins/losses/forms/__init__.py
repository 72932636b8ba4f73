"""The forms a loss can have, each with its own small declaration."""

from margins.losses.forms.base import Loss
from margins.losses.forms.coefficients import CoefficientsLoss
from margins.losses.forms.counts import CountsLoss
from margins.losses.forms.features import FeaturesLoss
from margins.losses.forms.lists import ListLoss
from margins.losses.forms.outputs import OutputsLoss
from margins.losses.forms.pairs import PairsLoss
from margins.losses.forms.rows import RowsLoss
from margins.losses.forms.statistics import EmbeddingLoss, StatisticsLoss

__all__ = [
    "CoefficientsLoss",
    "CountsLoss",
    "EmbeddingLoss",
    "FeaturesLoss",
    "ListLoss",
    "Loss",
    "OutputsLoss",
    "PairsLoss",
    "RowsLoss",
    "StatisticsLoss",
]
