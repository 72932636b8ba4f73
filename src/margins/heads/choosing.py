"""Any head's settings as one type."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from margins.heads.concepts import ConceptSettings
from margins.heads.cosine import CosineSettings
from margins.heads.disposable import DisposableSettings
from margins.heads.label_attention import LabelAttentionSettings
from margins.heads.linear import LinearSettings
from margins.heads.multi import MultiSettings
from margins.heads.nested import NestedSettings
from margins.heads.no_prop_head import NoPropSettings
from margins.heads.projection import ProjectionSettings
from margins.heads.spherical import SphericalSettings

AnyHead = Annotated[
    LinearSettings
    | CosineSettings
    | DisposableSettings
    | LabelAttentionSettings
    | ConceptSettings
    | ProjectionSettings
    | MultiSettings
    | NestedSettings
    | NoPropSettings
    | SphericalSettings,
    Field(discriminator="name"),
]
"""The settings of any head; in data, `name` tells which."""
