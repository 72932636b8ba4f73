"""Scores made block by block, and their gradients."""
