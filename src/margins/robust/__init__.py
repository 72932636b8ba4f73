"""Training against the worst change of an input."""

__all__: list[str] = []
