"""Benchmarks of models that match one thing with another."""

__all__: list[str] = []
