"""What every reader hands over, before types are brought into the house's few."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class Raw:
    """Cells as the source holds them, the folder that paths of images start from, and notes."""

    table: pl.DataFrame
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)
