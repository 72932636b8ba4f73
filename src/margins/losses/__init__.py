"""Training objectives. A loss holds hyperparameters; call it with scores and targets.

loss = CompSum(tau=1.7)
loss(logits, class_ids)                       # reduced
loss.per_anchor(logits, class_ids)            # one value a row
loss.on_candidates(embeddings, class_vectors, class_ids, evaluator=Blockwise())
SupCon().on_embeddings(embeddings, labels)    # metric losses
"""

from margins.losses.binary import BinaryCrossEntropy, BinaryFocal
from margins.losses.contrastive import DecoupledSoftmax, InfoNCE, MultiSimilarity, SoftInfoNCE, SupCon
from margins.losses.counts import AnyLoss, Dice
from margins.losses.features import OrthogonalProjection
from margins.losses.forms import Loss, StatisticsLoss
from margins.losses.outputs import MultiHead
from margins.losses.ranking import LambdaRank, MannWhitney
from margins.losses.robust import ALDRKL, LDRKL, ALDRKLMemory
from margins.losses.softmax import CompSum, CrossEntropy, Focal
from margins.losses.spherical import SphericalSoftmax, SquaredError, TaylorSoftmax, ZLoss
from margins.losses.stochastic import EnsLoss
from margins.losses.temperature import LearnedTemperature
from margins.losses.topk import SoftTopK
from margins.losses.triplet import SemiHardTriplet

__all__ = [
    "ALDRKL",
    "LDRKL",
    "ALDRKLMemory",
    "AnyLoss",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "CompSum",
    "CrossEntropy",
    "DecoupledSoftmax",
    "Dice",
    "EnsLoss",
    "Focal",
    "InfoNCE",
    "LambdaRank",
    "LearnedTemperature",
    "Loss",
    "MannWhitney",
    "MultiHead",
    "MultiSimilarity",
    "OrthogonalProjection",
    "SemiHardTriplet",
    "SoftInfoNCE",
    "SoftTopK",
    "SphericalSoftmax",
    "SquaredError",
    "StatisticsLoss",
    "SupCon",
    "TaylorSoftmax",
    "ZLoss",
]
