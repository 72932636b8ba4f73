"""The end of a comparison on the terminal: a small ranking, the answer, where report and model lie."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from margins.compare.kept.folder import REPORT
from margins.compare.results import ComparisonResult
from margins.evaluation import find_metric
from margins.report import numbers
from margins.report.rows import RecipeRow, Standing, recipe_rows

_STYLES: dict[Standing, str] = {
    "better": "bold blue",
    "worse": "red",
    "practically the same": "default",
    "undecided": "dim",
    "baseline": "default",
}
PLAIN_WIDTH = 160


def tell(result: ComparisonResult, folder: Path) -> None:
    """Print the ranking, the answer and where things lie; without colour or boxes when piped."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)
    wrapped = not console.is_terminal
    console.print(_ranking(result, boxed=console.is_terminal))
    for failed in result.failed:
        where = f"{failed.num_failed} of {failed.num_folds} folds"
        console.print(
            Text(f"{failed.title} could not be trained in {where}: {failed.error}", style="red"),
            soft_wrap=wrapped,
        )
    console.print(Text(f"\n{result.answer}", style="bold"), soft_wrap=wrapped)
    for warning in result.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=wrapped)
    console.print(f"\nreport: {folder / REPORT}", soft_wrap=True)
    if result.left is not None and result.left.model is not None:
        title = next(r.title for r in result.recipes if r.name == result.left.recipe)
        console.print(f"model: {folder / result.left.model} ({title})", soft_wrap=True)


def _ranking(result: ComparisonResult, *, boxed: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if boxed else None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("recipe")
    table.add_column(Text(find_metric(result.description.metric).title), justify="right")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column(Text(f"{numbers.percent(result.confidence)} interval"), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in recipe_rows(result):
        table.add_row(*_cells(row))
    return table


def _cells(row: RecipeRow) -> list[Text]:
    d = row.difference
    return [
        Text(row.ranks),
        Text(row.recipe.title),
        Text(numbers.score(row.recipe.mean)),
        Text(numbers.signed(d.mean) if d else ""),
        Text(numbers.interval(d.low, d.high) if d else ""),
        Text(f"{row.sign} {row.words}", style=_STYLES[row.standing]),
    ]
