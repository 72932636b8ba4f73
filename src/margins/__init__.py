"""Train, compare and explain discriminative models.

The parts a library user takes are `margins.losses`, `margins.targets` and `margins.engine`: they need
torch, numpy and jaxtyping alone. The tool (`margins.train`, `margins.load`, the command line) needs the extra
`margins[tool]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from margins.estimators import MarginsClassifier, MarginsEmbedder, MarginsRegressor
    from margins.training.fit import resume, train
    from margins.training.model import Model, load
    from margins.training.onnx_export import export_onnx

__version__ = "0.1.0"

__all__ = [
    "MarginsClassifier",
    "MarginsEmbedder",
    "MarginsRegressor",
    "Model",
    "export_onnx",
    "load",
    "resume",
    "train",
]

# Found when first asked for: the losses alone import none of it.
_HOMES = {
    "MarginsClassifier": "margins.estimators", "MarginsEmbedder": "margins.estimators",
    "MarginsRegressor": "margins.estimators", "export_onnx": "margins.training.onnx_export",
    "Model": "margins.training.model", "load": "margins.training.model",
    "resume": "margins.training.fit", "train": "margins.training.fit",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'margins' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
