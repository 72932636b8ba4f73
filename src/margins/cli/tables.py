"""Small tables of numbers on the terminal; plain columns when piped."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 160


def console() -> Console:
    """Standard output; without colour or boxes, and wide enough, when piped."""
    out = Console(markup=False, highlight=False, emoji=False)
    return out if out.is_terminal else Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)


def score_table(scores: Mapping[str, Mapping[str, float]], *, boxed: bool) -> Table:
    """Metrics down, roles across."""
    from margins.evaluation import find_metric

    table = Table(box=box.SIMPLE_HEAD if boxed else None, pad_edge=False)
    table.add_column("metric")
    for role in scores:
        table.add_column(f"{role} rows", justify="right")
    for name in dict.fromkeys(name for found in scores.values() for name in found):
        cells = [f"{found[name]:.4f}" if name in found else "" for found in scores.values()]
        table.add_row(Text(find_metric(name).title), *cells)
    return table
