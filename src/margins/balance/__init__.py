"""Weights of rows and ways to draw them, for what is rare."""

__all__: list[str] = []
