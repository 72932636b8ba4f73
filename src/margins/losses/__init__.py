"""Training objectives. A loss holds hyperparameters; call it with scores and targets.

loss = CompSum(tau=1.7)
loss(logits, class_ids)                       # reduced
loss.per_anchor(logits, class_ids)            # one value a row
loss.on_candidates(embeddings, class_vectors, class_ids, evaluator=Blockwise())
SupCon().on_embeddings(embeddings, labels)    # metric losses
"""

from margins.losses.adversarial import PatchAdversarial, PatchDiscriminator, Patches
from margins.losses.aggregated import Aggregated, bag_means
from margins.losses.attribution import AttributionEntropy, ConceptExplanation
from margins.losses.binary import BinaryCrossEntropy, BinaryFocal
from margins.losses.by_error import ErrorNormalized
from margins.losses.contrastive import DecoupledSoftmax, InfoNCE, MultiSimilarity, SoftInfoNCE, SupCon
from margins.losses.counterfactual import CounterfactualPair
from margins.losses.counts import AnyLoss
from margins.losses.cumulative import Cumulative, NestedDice
from margins.losses.features import OrthogonalProjection, PrototypeOrthogonalProjection
from margins.losses.forms import Loss, StatisticsLoss
from margins.losses.forward_model import ForwardModelLoss
from margins.losses.hypotheses import HypothesisReport, MinOverHypotheses
from margins.losses.maps import SSIM, DeepSupervision, HybridMask, SoftIoU
from margins.losses.noise_robust import (
    AsymmetricGCE,
    AsymmetricUnhinged,
    JensenShannon,
    NormalizedCrossEntropy,
    ReverseCrossEntropy,
    SymmetricCrossEntropy,
    TruncatedGCE,
)
from margins.losses.order_search import OrderSearch, SequentialDecoder, order_log_prob
from margins.losses.outputs import MultiHead
from margins.losses.overlap import Dice, Tversky
from margins.losses.ranking import LambdaRank, MannWhitney
from margins.losses.rare_labels import label_margins
from margins.losses.robust import ALDRKL, LDRKL, ALDRKLMemory
from margins.losses.softmax import CompSum, CrossEntropy, Focal
from margins.losses.spherical import SphericalSoftmax, SquaredError, TaylorSoftmax, ZLoss
from margins.losses.stochastic import EnsLoss
from margins.losses.temperature import LearnedTemperature
from margins.losses.topk import SoftTopK
from margins.losses.triplet import SemiHardTriplet
from margins.losses.weighted_sum import WeightedSum

__all__ = [
    "ALDRKL",
    "LDRKL",
    "SSIM",
    "ALDRKLMemory",
    "Aggregated",
    "AnyLoss",
    "AsymmetricGCE",
    "AsymmetricUnhinged",
    "AttributionEntropy",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "CompSum",
    "ConceptExplanation",
    "CounterfactualPair",
    "CrossEntropy",
    "Cumulative",
    "DecoupledSoftmax",
    "DeepSupervision",
    "Dice",
    "EnsLoss",
    "ErrorNormalized",
    "Focal",
    "ForwardModelLoss",
    "HybridMask",
    "HypothesisReport",
    "InfoNCE",
    "JensenShannon",
    "LambdaRank",
    "LearnedTemperature",
    "Loss",
    "MannWhitney",
    "MinOverHypotheses",
    "MultiHead",
    "MultiSimilarity",
    "NestedDice",
    "NormalizedCrossEntropy",
    "OrderSearch",
    "OrthogonalProjection",
    "PatchAdversarial",
    "PatchDiscriminator",
    "Patches",
    "PrototypeOrthogonalProjection",
    "ReverseCrossEntropy",
    "SemiHardTriplet",
    "SequentialDecoder",
    "SoftInfoNCE",
    "SoftIoU",
    "SoftTopK",
    "SphericalSoftmax",
    "SquaredError",
    "StatisticsLoss",
    "SupCon",
    "SymmetricCrossEntropy",
    "TaylorSoftmax",
    "TruncatedGCE",
    "Tversky",
    "WeightedSum",
    "ZLoss",
    "bag_means",
    "label_margins",
    "order_log_prob",
]
