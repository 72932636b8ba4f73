"""What data, features and trained models are like, measured: before training and after it."""

__all__: list[str] = []
