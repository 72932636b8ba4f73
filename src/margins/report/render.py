"""Fills the page's template and writes it where nobody ever sees half a file."""

from __future__ import annotations

import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from margins.compare.results import ComparisonResult
from margins.evaluation import find_metric
from margins.report import numbers, plots, rows

MAX_LISTED_CLASSES = 200


def write_report(result: ComparisonResult, path: Path) -> None:
    """Write the page of a comparison: one HTML file that opens offline, on any screen and on paper.

    Args:
        result: a finished comparison; every number on the page comes from it.
        path: the file to write; an existing one is replaced at once.
    """
    page = render(result)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def render(result: ComparisonResult) -> str:
    """Return the page as text."""
    environment = Environment(
        loader=PackageLoader("margins.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("score", "signed", "interval", "p_value", "count", "duration", "percent"):
        environment.filters[name] = getattr(numbers, name)
    return environment.get_template("report.html.j2").render(**_contents(result))


def _contents(result: ComparisonResult) -> dict[str, Any]:
    recipes = rows.recipe_rows(result)
    description = result.description
    metric = find_metric(description.metric)
    counts = description.class_counts
    baseline = rows.baseline_title(result)
    ranking = plots.ranking_plot(recipes, metric=metric, baseline=baseline, confidence=result.confidence)
    return {
        "result": result,
        "answer": rows.answer_parts(result),
        "description": description,
        "metric": metric,
        "recipes": recipes,
        "signs": rows.SIGNS,
        "words": rows.WORDS,
        "pairs": rows.pair_rows(result),
        "baseline_title": baseline,
        "settings_of": {row.recipe.name: rows.setting_rows(row.recipe) for row in recipes},
        "title_of": partial(rows.title_of, result),
        "metric_title": lambda name: find_metric(name).title,
        "listed_classes": list(counts.items())[:MAX_LISTED_CLASSES],
        "plots": {
            "ranking": _figures(ranking),
            "folds": _figures(plots.folds_plot(recipes, metric=metric)),
            **({"classes": _figures(plots.classes_plot(counts))} if counts else {}),
        },
        "css": _own_file("report.css"),
        "script": _own_file("report.js"),
        "plotly": Markup(get_plotlyjs()),  # noqa: S704 - a file of the plotly package, not data
    }


def _figures(plot: plots.Plot) -> dict[str, Any]:
    """Turn a plot into plain data; the template writes it with every `<`, `>` and `&` escaped."""
    return {
        "wide": json.loads(str(plot.wide.to_json())),
        "narrow": json.loads(str(plot.narrow.to_json())),
        "alt": plot.alt,
    }


def _own_file(name: str) -> Markup:
    """Read a style sheet or script that ships with the package: trusted, inserted as it stands."""
    source = resources.files("margins.report").joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(source)  # noqa: S704 - a file of this package, not data
