"""Benchmarks of models that match one thing with another."""

from margins.retrieval.substitution import SubstitutionScores, substitution_benchmark

__all__ = ["SubstitutionScores", "substitution_benchmark"]
