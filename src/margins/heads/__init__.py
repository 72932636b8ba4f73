"""Heads: embeddings to class scores, or to embeddings that are compared."""

from margins.heads.choosing import AnyHead
from margins.heads.concepts import ConceptAttention, ConceptHead, ConceptSettings, SlotMemory
from margins.heads.cosine import CosineHead, CosineSettings, largest_temperature
from margins.heads.disposable import Disposable, DisposableSettings, SymmetricReLU, TrainingOnly
from margins.heads.hypotheses import MultiHypothesisConv, MultiHypothesisHead
from margins.heads.label_attention import LabelAttention, LabelAttentionSettings
from margins.heads.linear import LinearHead, LinearSettings
from margins.heads.multi import MultiHead, MultiSettings
from margins.heads.naive_bayes import BernoulliNaiveBayesHead, MultinomialNaiveBayesHead, NaiveBayesHead
from margins.heads.nested import NestedHead, NestedSettings, nested_log_probabilities
from margins.heads.no_prop import NoProp, NoPropPrediction, class_prototypes
from margins.heads.no_prop_head import NoPropHead, NoPropSettings
from margins.heads.probe import FittedProbe, LinearProbe, LogisticGD, NormalizedLogisticGD, Separation
from margins.heads.projection import ProjectionHead, ProjectionSettings
from margins.heads.prototypes import PrototypeHead
from margins.heads.refine import ResidualRefine
from margins.heads.sequential_labels import SequentialLabelDecoder
from margins.heads.settings import HeadSettings
from margins.heads.sharded import ShardedCandidates, shard_range
from margins.heads.spherical import OwnsUpdate, SphericalHead, SphericalSettings
from margins.heads.tokens import TokenHead

__all__ = [
    "AnyHead",
    "BernoulliNaiveBayesHead",
    "ConceptAttention",
    "ConceptHead",
    "ConceptSettings",
    "CosineHead",
    "CosineSettings",
    "Disposable",
    "DisposableSettings",
    "FittedProbe",
    "HeadSettings",
    "LabelAttention",
    "LabelAttentionSettings",
    "LinearHead",
    "LinearProbe",
    "LinearSettings",
    "LogisticGD",
    "MultiHead",
    "MultiHypothesisConv",
    "MultiHypothesisHead",
    "MultiSettings",
    "MultinomialNaiveBayesHead",
    "NaiveBayesHead",
    "NestedHead",
    "NestedSettings",
    "NoProp",
    "NoPropHead",
    "NoPropPrediction",
    "NoPropSettings",
    "NormalizedLogisticGD",
    "OwnsUpdate",
    "ProjectionHead",
    "ProjectionSettings",
    "PrototypeHead",
    "ResidualRefine",
    "Separation",
    "SequentialLabelDecoder",
    "ShardedCandidates",
    "SlotMemory",
    "SphericalHead",
    "SphericalSettings",
    "SymmetricReLU",
    "TokenHead",
    "TrainingOnly",
    "class_prototypes",
    "largest_temperature",
    "nested_log_probabilities",
    "shard_range",
]
