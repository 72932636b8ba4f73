"""Sums over the positive and negative pairs of scores, without a list of pairs."""
