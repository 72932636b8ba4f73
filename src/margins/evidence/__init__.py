"""The registry of methods, and studies that put their claims to a test."""

__all__: list[str] = []
