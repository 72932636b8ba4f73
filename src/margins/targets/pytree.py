"""Targets as a pytree, so that tools that walk nested tensors (data loaders, device moves) see inside them.

Tensors and nested records are children; numbers and the taxonomy are structure.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import Tensor
from torch.utils import _pytree  # pyright: ignore[reportPrivateUsage]  (torch has no public name for it)

from margins.targets.columns import Columns
from margins.targets.composed import Appended, Mixed
from margins.targets.dense import DenseGrades, Matches, TreeGrades, Values
from margins.targets.reading import Margins
from margins.targets.storage import ClassIndex, Paired, SparseRows
from margins.targets.targets import Targets

_RECORDS = (
    *(Appended, ClassIndex, Columns, DenseGrades, Matches, Mixed, Paired, SparseRows, TreeGrades, Values),
    *(Margins, Targets),
)


def register() -> None:
    """Registers every record that targets are made of."""
    for record in _RECORDS:
        _register_record(record)


def _register_record(record: type) -> None:
    def flatten(value: Any) -> tuple[list[Any], tuple[tuple[str, Any], ...]]:
        children: list[Any] = []
        structure: list[tuple[str, Any]] = []
        for field in fields(record):
            if field.metadata.get("derived"):
                continue
            part = getattr(value, field.name)
            is_child = isinstance(part, (Tensor, tuple)) or hasattr(part, "map_tensors")
            structure.append((field.name, _CHILD if is_child else part))
            if is_child:
                children.append(part)
        return children, tuple(structure)

    def unflatten(children: Any, structure: Any) -> Any:
        parts = iter(children)
        return record(**{name: next(parts) if part == _CHILD else part for name, part in structure})

    _pytree.register_pytree_node(
        record, flatten, unflatten, serialized_type_name=f"margins.{record.__name__}"
    )


_CHILD = "child"
