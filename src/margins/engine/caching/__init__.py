"""Gradient caching: an encoder's batch in chunks, encoded twice."""
