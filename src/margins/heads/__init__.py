"""Heads: embeddings to class scores, or to embeddings that are compared."""

from margins.heads.choosing import AnyHead
from margins.heads.cosine import CosineHead, CosineSettings
from margins.heads.linear import LinearHead, LinearSettings
from margins.heads.multi import MultiHead, MultiSettings
from margins.heads.projection import ProjectionHead, ProjectionSettings
from margins.heads.settings import HeadSettings
from margins.heads.sharded import ShardedCandidates, shard_range
from margins.heads.spherical import OwnsUpdate, SphericalHead, SphericalSettings

__all__ = [
    "AnyHead",
    "CosineHead",
    "CosineSettings",
    "HeadSettings",
    "LinearHead",
    "LinearSettings",
    "MultiHead",
    "MultiSettings",
    "OwnsUpdate",
    "ProjectionHead",
    "ProjectionSettings",
    "ShardedCandidates",
    "SphericalHead",
    "SphericalSettings",
    "shard_range",
]
