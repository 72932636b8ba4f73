"""Labels that stand in a tree or a directed acyclic graph: who is above whom, and how far apart two are."""

from __future__ import annotations

from margins.taxonomy.graph import Taxonomy

__all__ = ["Taxonomy"]
