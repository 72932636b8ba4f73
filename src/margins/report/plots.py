"""The three plots of the report: data in, plotly figures out.

Each plot comes in two layouts, for a wide page and for a narrow one, where labels stand above their rows.
Plotly reads a little HTML in every label, so each text passes through `plain` first.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from margins.evaluation import Metric
from margins.report import numbers
from margins.report.rows import SIGNS, WORDS, RecipeRow, Standing

Width = Literal["wide", "narrow"]

# Okabe and Ito's blue and vermilion keep apart for every kind of colour vision, and in grey by their shapes.
COLOURS: dict[Standing, str] = {
    "better": "#0072b2",
    "worse": "#c2410c",
    "practically the same": "#00785a",
    "undecided": "#6b7280",
    "baseline": "#1f2328",
}
SYMBOLS: dict[Standing, str] = {
    "better": "triangle-up",
    "worse": "triangle-down",
    "practically the same": "square-open",
    "undecided": "circle-open",
    "baseline": "diamond",
}
INK, QUIET, LINE, BAR = "#1f2328", "#57606a", "#e3e6ea", "#7c93ab"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
_TICK_GAP: dict[str, Any] = {"ticks": "outside", "ticklen": 12, "tickcolor": "rgba(0,0,0,0)"}
MAX_LABELLED_CLASSES = 12
MAX_DRAWN_CLASSES = 500


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot for both widths, and the words that stand for it where it cannot be seen."""

    wide: go.Figure
    narrow: go.Figure
    alt: str


def plain(text: str, *, at_most: int = 80) -> str:
    """Text that plotly shows letter by letter: shortened, on one line, its `&`, `<` and `>` escaped.

    Example:
        >>> plain("<b>cat</b>")
        '&lt;b&gt;cat&lt;/b&gt;'
    """
    one_line = " ".join(text.split())
    short = one_line if len(one_line) <= at_most else one_line[: at_most - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def wrapped(text: str, *, width: int = 34) -> str:
    """Break a label over at most three lines, each escaped."""
    return "<br>".join(plain(line) for line in textwrap.wrap(text, width)[:3]) or " "


def ranking_plot(rows: Sequence[RecipeRow], *, metric: Metric, baseline: str, confidence: float) -> Plot:
    """Every recipe's difference to the baseline with its interval; the verdict by shape and colour."""
    alt = (
        f"Differences in {metric.title} to the baseline, {baseline}, with {numbers.percent(confidence)} "
        "intervals. The table below has the same numbers."
    )

    def draw(width: Width) -> go.Figure:
        figure = go.Figure()
        for standing in WORDS:
            shown = [(place, row) for place, row in enumerate(rows) if row.standing == standing]
            if shown:
                figure.add_trace(_whiskers(standing, shown))
        _rows_layout(figure, [row.title for row in rows], width=width)
        zero = {"x0": 0, "x1": 0, "y0": -0.62, "y1": len(rows) - 0.4, "layer": "below", "name": "zero"}
        figure.add_shape(type="line", line={"color": INK, "width": 1.2}, **zero)
        figure.add_annotation(
            x=0, y=-0.62, text="baseline = 0", yanchor="bottom", yshift=1, **_quiet_text()
        )  # fmt: skip
        left, right = ("worse", "better") if metric.higher_is_better else ("better", "worse")
        title = f"← {left}  ·  difference in {plain(metric.title, at_most=24)}  ·  {right} →"
        figure.update_xaxes(title_text=title, tickformat="+.3~f", labelalias={"+0": "0"})
        return figure

    return Plot(wide=draw("wide"), narrow=draw("narrow"), alt=alt)


def folds_plot(rows: Sequence[RecipeRow], *, metric: Metric) -> Plot:
    """Every recipe's score on every outer fold; a thin line follows one fold from recipe to recipe."""
    alt = (
        f"Scores in {metric.title} of every recipe on every outer fold, a line through the scores of "
        "one fold, and the mean of each recipe. The means are in the table above."
    )

    def draw(width: Width) -> go.Figure:
        figure = go.Figure()
        for fold in range(len(rows[0].recipe.fold_scores)):
            figure.add_trace(_one_fold(rows, fold))
        figure.add_trace(_means(rows))
        _rows_layout(figure, [row.title for row in rows], width=width)
        figure.update_xaxes(title_text=plain(metric.title, at_most=40), tickformat=".3~f")
        return figure

    return Plot(wide=draw("wide"), narrow=draw("narrow"), alt=alt)


def classes_plot(class_counts: dict[str, int]) -> Plot:
    """Rows a class, largest first: named bars for a few classes, their outline for many."""
    shown = dict(list(class_counts.items())[:MAX_DRAWN_CLASSES])
    alt = f"Bar chart of the number of rows of {len(shown)} classes, largest first."
    few = len(shown) <= MAX_LABELLED_CLASSES
    figure = _named_bars(shown) if few else _outline_bars(shown, len(class_counts))
    return Plot(wide=figure, narrow=figure, alt=alt)


def _whiskers(standing: Standing, shown: Sequence[tuple[int, RecipeRow]]) -> go.Scatter:
    """Draw the recipes with one verdict as dots with intervals; the baseline is a dot alone."""
    differences = [row.difference for _, row in shown]
    colour = COLOURS[standing]
    return go.Scatter(
        x=[d.mean if d else 0.0 for d in differences],
        y=[place for place, _ in shown],
        error_x={
            "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 5,
            "visible": standing != "baseline",
            "array": [d.high - d.mean if d else 0.0 for d in differences],
            "arrayminus": [d.mean - d.low if d else 0.0 for d in differences],
        },
        mode="markers",
        marker={
            "symbol": SYMBOLS[standing], "size": 12, "color": colour, "line": {"width": 2, "color": colour},
        },
        name=WORDS[standing],
        hovertext=[_hover(row) for _, row in shown],
        hoverinfo="text",
    )  # fmt: skip


def _hover(row: RecipeRow) -> str:
    title = f"{plain(row.title)}<br>mean {numbers.score(row.recipe.mean)}"
    if row.difference is None:
        return f"{title}<br>{SIGNS['baseline']} the baseline"
    d = row.difference
    return (
        f"{title}<br>{numbers.signed(d.mean)} ({numbers.interval(d.low, d.high)})<br>{row.sign} {row.words}"
    )


def _one_fold(rows: Sequence[RecipeRow], fold: int) -> go.Scatter:
    scores = [row.recipe.fold_scores[fold] for row in rows]
    return go.Scatter(
        x=scores,
        y=list(range(len(rows))),
        mode="lines+markers",
        line={"color": "#c3cbd4", "width": 1},
        marker={"size": 7, "color": "#8fa3b8", "line": {"width": 1, "color": "#ffffff"}},
        hovertext=[
            f"{plain(row.title)}<br>fold {fold + 1}: {numbers.score(value)}"
            for row, value in zip(rows, scores, strict=True)
        ],
        hoverinfo="text",
    )


def _means(rows: Sequence[RecipeRow]) -> go.Scatter:
    return go.Scatter(
        x=[row.recipe.mean for row in rows],
        y=list(range(len(rows))),
        mode="markers",
        marker={
            "symbol": "line-ns", "size": 22,
            "line": {"width": 3, "color": [COLOURS[row.standing] for row in rows]},
        },
        hovertext=[f"{plain(row.title)}<br>mean {numbers.score(row.recipe.mean)}" for row in rows],
        hoverinfo="text",
    )  # fmt: skip


def _rows_layout(figure: go.Figure, titles: Sequence[str], *, width: Width) -> None:
    """One horizontal row a recipe, its title beside the row or, on a narrow page, above it."""
    room = 46 if width == "wide" else 58
    figure.update_layout(**_layout(height=room * len(titles) + 80, top=24))
    figure.update_xaxes(
        gridcolor=LINE, zeroline=False, fixedrange=True, automargin=True, nticks=8 if width == "wide" else 5,
        title_font_size=14, title_standoff=14,
    )  # fmt: skip
    figure.update_yaxes(
        range=[len(titles) - 0.4, -0.62], tickmode="array", tickvals=list(range(len(titles))),
        ticktext=[wrapped(title) for title in titles], **_TICK_GAP, showticklabels=width == "wide",
        showgrid=False, zeroline=False, fixedrange=True, automargin=True,
    )  # fmt: skip
    if width == "narrow":
        for place, title in enumerate(titles):
            figure.add_annotation(
                xref="paper", x=0, xanchor="left", y=place, yanchor="bottom", yshift=9,
                text=plain(title, at_most=46), showarrow=False, font={"size": 13, "color": INK},
                bgcolor="rgba(255,255,255,0.75)", borderpad=1,
            )  # fmt: skip


def _named_bars(shown: dict[str, int]) -> go.Figure:
    places = list(range(len(shown)))
    texts = [plain(name, at_most=28) for name in shown]
    figure = go.Figure(
        go.Bar(
            x=list(shown.values()), y=places, orientation="h", marker_color=BAR, width=0.62,
            text=[numbers.count(rows) for rows in shown.values()], textposition="outside", cliponaxis=False,
            textfont={"size": 13, "color": QUIET}, hoverinfo="skip",
        )
    )  # fmt: skip
    figure.update_layout(**_layout(height=32 * len(shown) + 16, top=4, bottom=12, right=70))
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(
        tickmode="array", tickvals=places, ticktext=texts, **_TICK_GAP, autorange="reversed", automargin=True,
        fixedrange=True, showgrid=False, zeroline=False,
    )  # fmt: skip
    return figure


def _outline_bars(shown: dict[str, int], total: int) -> go.Figure:
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(shown) + 1)), y=list(shown.values()), marker_color=BAR,
            hovertext=[f"{plain(name)}<br>{numbers.count(rows)} rows" for name, rows in shown.items()],
            hoverinfo="text",
        )
    )  # fmt: skip
    figure.update_layout(**_layout(height=200), bargap=0.15)
    which = f"{numbers.count(total)} classes" if total == len(shown) else f"the {len(shown)} largest classes"
    figure.update_xaxes(
        title_text=f"{which}, largest first", showticklabels=False, fixedrange=True, showgrid=False,
        title_font_size=14, title_standoff=6,
    )  # fmt: skip
    figure.update_yaxes(
        title_text="rows", rangemode="tozero", gridcolor=LINE, zeroline=False, fixedrange=True,
        automargin=True, title_font_size=14, nticks=4,
    )  # fmt: skip
    return figure


def _layout(*, height: int, top: int = 10, bottom: int = 48, right: int = 16) -> dict[str, Any]:
    """Give what all plots share: transparent, quiet, without plotly's own look."""
    return {
        "template": go.layout.Template(),
        "height": height,
        "margin": {"l": 8, "r": right, "t": top, "b": bottom},
        "font": {"family": FONT, "size": 14, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hoverlabel": {
            "bgcolor": "#ffffff", "bordercolor": "#9aa4af", "font": {"color": INK}, "align": "left",
        },
        "dragmode": False,
    }  # fmt: skip


def _quiet_text() -> dict[str, Any]:
    return {"showarrow": False, "font": {"size": 12, "color": QUIET}}
