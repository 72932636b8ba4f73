"""Packages beyond the ground floors are imported where they are used; a missing one names its extra."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from margins.errors import MarginsError


@contextmanager
def extra(name: str) -> Generator[None, None, None]:
    """Turns a failed import inside the block into an error that says what to install.

    Example:
        >>> with extra("tool"):
        ...     import a_package_that_is_not_there
        Traceback (most recent call last):
        margins.errors.MarginsError: a_package_that_is_not_there: expected an installed package, got none; pip
        install 'margins[tool]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MarginsError(
            error.name or "import",
            expected="an installed package",
            received="none",
            fix=f"pip install 'margins[{name}]'",
        ) from error
