"""Candidates that are made or chosen to be hard."""

__all__: list[str] = []
