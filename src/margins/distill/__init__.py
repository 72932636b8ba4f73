"""Teachers: training one model on what others say."""

__all__: list[str] = []
