"""Train, compare and explain discriminative models.

The parts a library user takes are `margins.losses`, `margins.targets` and `margins.engine`: they need
torch, numpy and jaxtyping alone. The main job, `margins compare`, needs the extra `margins[tool]`.
"""

__version__ = "0.1.0"
