"""The soft top-k and its threshold."""
