"""Docstrings as mkdocstrings wants them: examples are code, formulas and signs stand as they are written."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe


class HouseDocstrings(griffe.Extension):
    """Rewrites every docstring on its way into the reference."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = for_reference(obj.docstring.value)


def for_reference(docstring: str) -> str:
    r"""The docstring with `Examples:` for `Example:`, formulas as code, and no `>` that would quote.

    Example:
        >>> for_reference("Sum $s_i$.\n\nArgs:\n    tau: > 0.\n\nExample:\n    >>> 1 + 1")
        'Sum `s_i`.\n\nArgs:\n    tau: \\> 0.\n\nExamples:\n    >>> 1 + 1'
    """
    text = re.sub(r"^(\s*)Example:$", r"\1Examples:", docstring, flags=re.MULTILINE)
    text = re.sub(r"^(\s+\w+: )>(?==? )", r"\1\\>", text, flags=re.MULTILINE)
    text = "\n\n".join(_as_code(part) if _is_code(part) else part for part in text.split("\n\n"))
    return re.sub(r"\$\$?([^$]+?)\$?\$", lambda m: "`" + " ".join(m[1].split()) + "`", text)


def _is_code(paragraph: str) -> bool:
    """Whether several lines at the margin are Python that calls something."""
    if "\n" not in paragraph or "(" not in paragraph or paragraph.startswith(" "):
        return False
    try:
        ast.parse(paragraph)
    except SyntaxError:
        return False
    return True


def _as_code(paragraph: str) -> str:
    return f"```python\n{paragraph.strip()}\n```"
