"""Decisions that know how far labels are from each other."""

from margins.hierarchy.frechet import FrechetDecoder
from margins.hierarchy.locus import next_label, reachable, spanned_subtree
from margins.hierarchy.metrics import embedding_distances, mean_distance, tree_distances

__all__ = [
    "FrechetDecoder",
    "embedding_distances",
    "mean_distance",
    "next_label",
    "reachable",
    "spanned_subtree",
    "tree_distances",
]
