"""Ctrl-C, told in one line: typer would end without a word, or with one of its own."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """The user stopped the command; the text says what that left.

    Args:
        text: one line.
        code: what the process ends with.
    """

    def __init__(self, text: str, *, code: int = 130) -> None:
        super().__init__(text)
        self.code = code


class StoppableGroup(TyperGroup):
    """Commands that Ctrl-C ends with `Stopped`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped("stopped") from None
