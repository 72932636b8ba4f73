"""Decisions that know how far labels are from each other."""

__all__: list[str] = []
