"""Candidates that are made or chosen to be hard."""

from margins.mining.token_swap import NUMBERS, SwappedTexts, TokenSwapNegatives, WordGroup

__all__ = ["NUMBERS", "SwappedTexts", "TokenSwapNegatives", "WordGroup"]
