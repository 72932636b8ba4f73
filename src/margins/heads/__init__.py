"""Heads: embeddings to class scores."""

from margins.heads.linear import LinearHead

__all__ = ["LinearHead"]
