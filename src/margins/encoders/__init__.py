"""Encoders: inputs of rows to embeddings."""

from margins.data.settings import Settings
from margins.encoders.base import (
    Dropout,
    Encoder,
    EncoderSettings,
    Preparation,
    StoredPreparation,
    generator_on,
    linear,
    perceptron,
)
from margins.encoders.choosing import AnyEncoder, default_encoder
from margins.encoders.combined import CombinedEncoder, CombinedPreparation, CombinedSettings
from margins.encoders.concatenated import ConcatenatedEncoder
from margins.encoders.convolution import SmallResNet, SmallResNetSettings
from margins.encoders.embeddings import EmbeddingPreparation, EmbeddingSettings, VectorEncoder, Vectors
from margins.encoders.hashed_text import (
    HashedTextPreparation,
    HashedTextSettings,
    TextColumns,
    TextColumnsEncoder,
)
from margins.encoders.hashing import HashedTexts, hash_texts
from margins.encoders.images import ImagePreparation, Images
from margins.encoders.inputs import Pairs, Parts, TensorRows
from margins.encoders.numeric import Numbers, NumericEncoder
from margins.encoders.pooling import Pooling, PoolingName, new_pooling
from margins.encoders.pretrained_text import PretrainedTextSettings
from margins.encoders.set_pooling import (
    GatedAttentionSetPool,
    MeanSetPool,
    PMASetPool,
    Set2Set,
    SetPool,
    SetPoolName,
    SumSetPool,
    new_set_pool,
)
from margins.encoders.tabular import TabularEncoder, TabularPreparation, TabularRows, TabularSettings
from margins.encoders.text import TextEncoder
from margins.encoders.text_columns import PairEncoder
from margins.encoders.tokens import TokenEncoder, TokenGrid, TokenNames
from margins.encoders.transformer_text import TransformerTextEncoder, TransformerTextSettings
from margins.encoders.vision_transformer import SmallViT, SmallViTSettings
from margins.encoders.words import WordSequences

__all__ = [
    "AnyEncoder",
    "CombinedEncoder",
    "CombinedPreparation",
    "CombinedSettings",
    "ConcatenatedEncoder",
    "Dropout",
    "EmbeddingPreparation",
    "EmbeddingSettings",
    "Encoder",
    "EncoderSettings",
    "GatedAttentionSetPool",
    "HashedTextPreparation",
    "HashedTextSettings",
    "HashedTexts",
    "ImagePreparation",
    "Images",
    "MeanSetPool",
    "Numbers",
    "NumericEncoder",
    "PMASetPool",
    "PairEncoder",
    "Pairs",
    "Parts",
    "Pooling",
    "PoolingName",
    "Preparation",
    "PretrainedTextSettings",
    "Set2Set",
    "SetPool",
    "SetPoolName",
    "Settings",
    "SmallResNet",
    "SmallResNetSettings",
    "SmallViT",
    "SmallViTSettings",
    "StoredPreparation",
    "SumSetPool",
    "TabularEncoder",
    "TabularPreparation",
    "TabularRows",
    "TabularSettings",
    "TensorRows",
    "TextColumns",
    "TextColumnsEncoder",
    "TextEncoder",
    "TokenEncoder",
    "TokenGrid",
    "TokenNames",
    "TransformerTextEncoder",
    "TransformerTextSettings",
    "VectorEncoder",
    "Vectors",
    "WordSequences",
    "default_encoder",
    "generator_on",
    "hash_texts",
    "linear",
    "new_pooling",
    "new_set_pool",
    "perceptron",
]
