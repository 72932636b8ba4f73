"""`--positive LABEL`: which of two classes a ranking metric looks for; without it, the rarer one."""

from __future__ import annotations

from dataclasses import replace

from margins.compare.results import ComparisonResult
from margins.data import Table
from margins.errors import MarginsError


def with_positive(table: Table, label: str | None) -> Table:
    """Return the table with `label` as class 1, the one that ranking metrics take as positive.

    Raises:
        MarginsError: there are not two classes, or none of them is `label`.
    """
    if label is None:
        return table
    if len(table.classes) != 2:
        raise MarginsError(
            "--positive", expected="a table with two classes", received=f"{len(table.classes)} classes",
            fix="leave --positive out",
        )  # fmt: skip
    if label not in table.classes:
        raise MarginsError(
            "--positive", expected=" or ".join(map(repr, table.classes)), received=repr(label)
        )  # fmt: skip
    if table.classes[1] == label:
        return table
    return replace(table, labels=1 - table.labels, classes=table.classes[::-1])


def telling_positive(result: ComparisonResult, label: str | None) -> ComparisonResult:
    """Return the result whose description names the positive class and counts the larger class first."""
    if label is None:
        return result
    description = result.description
    counts = sorted(description.class_counts.items(), key=lambda item: -item[1])
    others = [sentence for sentence in description.protocol if not sentence.startswith("The positive class")]
    protocol = [*others, f"The positive class is {label!r}, as asked for."]
    return replace(result, description=replace(description, class_counts=dict(counts), protocol=protocol))
