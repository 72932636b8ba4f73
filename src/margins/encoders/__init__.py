"""Encoders: inputs of rows to embeddings."""

from margins.encoders.base import Dropout, Encoder, linear
from margins.encoders.hashing import HashedTexts, hash_texts
from margins.encoders.numeric import Numbers, NumericEncoder
from margins.encoders.text import TextEncoder

__all__ = [
    "Dropout",
    "Encoder",
    "HashedTexts",
    "Numbers",
    "NumericEncoder",
    "TextEncoder",
    "hash_texts",
    "linear",
]
