"""Training an encoder on something else than the task at hand."""

from margins.pretrain.set_labels import SetLabelPretrain
from margins.pretrain.set_separation import FineClass, coarse_separation

__all__ = ["FineClass", "SetLabelPretrain", "coarse_separation"]
