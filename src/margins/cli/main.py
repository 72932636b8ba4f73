"""The entry point: runs the command line and turns what a user can mend into one line and exit code 2.

Nothing heavy is imported here, so that `margins --help` answers at once, and nothing of the extra
`compare` either, so that its absence can be told.
"""

from __future__ import annotations

import sys

_EXTRA = frozenset(
    {
        "jinja2", "lightning_fabric", "markupsafe", "plotly", "polars", "pydantic", "rich", "safetensors",
        "scipy", "sklearn", "typer", "yaml",
    }
)  # fmt: skip


def run() -> None:
    """Run `margins` with the arguments of this process and exit."""
    try:
        from margins.cli.app import app
        from margins.cli.stopping import Stopped

        try:
            app(prog_name="margins")
        except Stopped as stopped:
            _stop(str(stopped), code=stopped.code)
    except KeyboardInterrupt:
        _stop("stopped", code=130)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        _stop(f'this command needs {missing}, which is not installed; pip install "margins[tool]"', code=2)
    except ValueError as error:
        from margins.errors import MarginsError

        if not isinstance(error, MarginsError):
            raise
        _stop(str(error), code=2)


def one_line(text: str) -> str:
    r"""Return the text without line breaks or control characters, whatever a file's cells held.

    Example:
        >>> one_line("column 'a\nb'")
        "column 'a b'"
    """
    return "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))


def _stop(text: str, *, code: int) -> None:
    sys.stderr.write(f"margins: {one_line(text)}\n")
    sys.exit(code)
