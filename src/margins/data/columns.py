"""What each column of a table is for: its role, as plain data that travels with the model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

InputKind = Literal["text", "text_pair", "image", "numeric", "categorical", "embedding"]
"""What the model sees. Two `text_pair` columns belong together: the first holds the anchors (queries)."""

TargetKind = Literal["label", "label_set", "path", "value"]
"""What it predicts: one class; several labels; a way down a taxonomy; a number."""


class Columns(BaseModel):
    """The roles of columns. A column that is not named plays none.

    Args:
        inputs: columns that the model sees, in order, with their kinds.
        target: the column to predict; None for pairs of texts, which are their own targets.
        target_kind: what its cells mean.
        separator: stands between the labels of a set, or the steps of a path, in a cell of text.
        class_order: classes from the lowest to the highest, where they are grades or levels.
        weight: a column of row weights, finite and not negative.
        group: rows of a group stay in one role (patients, users, documents).
        domain: where a row comes from (site, language); reported on, not trained on.
        id: a name of the row that outlives reordering.
        split: holds the role of each row: "train", "select" or "report" (aliases: validation, dev, test).
        time: rows are split in its order when asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[str, InputKind]
    target: str | None = None
    target_kind: TargetKind | None = None
    separator: str = "|"
    class_order: tuple[str, ...] | None = None
    weight: str | None = None
    group: str | None = None
    domain: str | None = None
    id: str | None = None
    split: str | None = None
    time: str | None = None

    def inputs_of(self, *kinds: InputKind) -> list[str]:
        """The input columns of these kinds, in order.

        Example:
            >>> Columns(inputs={"age": "numeric", "note": "text"}).inputs_of("text")
            ['note']
        """
        return [name for name, kind in self.inputs.items() if kind in kinds]
