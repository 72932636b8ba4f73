"""Training an encoder on something else than the task at hand."""

__all__: list[str] = []
