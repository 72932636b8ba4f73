"""The tables of the page on comparisons of real data, from their results as `margins compare` wrote them."""

from __future__ import annotations

from pathlib import Path

from margins.compare import ComparisonResult
from margins.evaluation import find_metric
from margins.report import numbers
from margins.report.rows import recipe_rows, title_of

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "look-up" / "comparisons"


def ranking(name: str) -> str:
    """What was compared, the ranking, and what the report rows said."""
    result = ComparisonResult.load(FOLDER / f"{name}.json")
    described, metric = result.description, find_metric(result.description.metric)
    head = ["rank", "recipe", metric.title, "difference", f"{numbers.percent(result.confidence)} interval",
            "p, Holm", "verdict"]  # fmt: skip
    lines = [_line(head), _line(["---"] * len(head))]
    for row in recipe_rows(result):
        d = row.difference
        told = ["", "", ""] if d is None else [
            numbers.signed(d.mean), numbers.interval(d.low, d.high), numbers.p_value(d.p_holm),
        ]  # fmt: skip
        lines.append(_line([row.ranks, row.recipe.title, numbers.score(row.recipe.mean), *told, row.words]))
    folds = f"{described.num_folds} folds" + (
        f" × {described.num_repeats} repeats" if described.num_repeats > 1 else ""
    )
    facts = (
        f"{numbers.count(described.num_rows)} rows, {described.num_classes} "
        f"{'labels' if described.task == 'label_sets' else 'classes'}, {folds}, budget `{described.budget}`; "
        f"[all of its numbers](comparisons/{name}.json)."
    )
    return "\n\n".join([facts, *_before(result), "\n".join(lines), *_after(result)])


def _before(result: ComparisonResult) -> list[str]:
    return [] if result.preview is None else [f"*Told before:* {' '.join(result.preview.sentences)}"]


def _after(result: ComparisonResult) -> list[str]:
    left = result.left
    if left is None or not left.scores:
        return []
    scores = " and ".join(f"{title_of(result, n)} {numbers.score(v)}" for n, v in left.scores.items())
    told = (
        f"*On the {numbers.count(result.description.num_report)} rows kept to report*, opened once: {scores}"
    )
    if left.difference is None or left.low is None or left.high is None:
        return [f"{told} (means of {left.num_seeds} seeds)."]
    return [
        f"{told} (means of {left.num_seeds} seeds); a difference of {numbers.signed(left.difference)}, "
        f"{numbers.interval(left.low, left.high)}."
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
