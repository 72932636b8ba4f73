"""The report shows what the result holds, as text and never as markup, in one file that loads nothing."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from made_up_results import made_up_result
from margins.compare.candidates.spaces import Choice, Span
from margins.compare.results import ComparisonResult
from margins.errors import MarginsError
from margins.report import numbers, plots, write_report
from margins.report.render import MAX_LISTED_CLASSES, render
from margins.report.rows import RecipeRow, pair_rows, recipe_rows

HOSTILE = "<script>alert(1)</script><b>bold</b><img src=x onerror=alert(1)> %{x} &lt;i&gt; \"'"


class Page(HTMLParser):
    """The elements of a page, the text of its scripts, and all text that a reader sees."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.css = ""
        self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif self._inside == "style":
            self.css += data
        else:
            self.text += data

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    def figures(self) -> dict[str, Any]:
        """Return the plots that the page carries, by the id of their script."""
        return {
            str(attributes["id"]): json.loads(text)
            for attributes, text in self.scripts
            if attributes.get("type") == "application/json"
        }


def hostile_result() -> ComparisonResult:
    """Make a result in which every text is hostile."""
    result = made_up_result(
        class_counts={HOSTILE: 300, "harmless": 20},
        source=HOSTILE, inputs=[HOSTILE, "b"], target=HOSTILE, encoder=HOSTILE, protocol=[HOSTILE],
        versions={HOSTILE: HOSTILE}, fingerprint=HOSTILE, started=HOSTILE,
    )  # fmt: skip
    recipes = [
        dataclasses.replace(
            recipe,
            title=f"{place} {HOSTILE}",
            why=HOSTILE,
            settings={HOSTILE: HOSTILE},
            prior=[HOSTILE],
            space={HOSTILE: {"kind": "choice", "options": [HOSTILE]}},
            found=[{HOSTILE: HOSTILE}],
        )
        for place, recipe in enumerate(result.recipes)
    ]
    (failed,) = result.failed
    return dataclasses.replace(
        result, recipes=recipes, answer=HOSTILE, warnings=[HOSTILE], left_out={HOSTILE: HOSTILE},
        failed=[dataclasses.replace(failed, title=HOSTILE, error=HOSTILE)],
    )  # fmt: skip


def strings(value: Any) -> list[str]:
    """Every string in a nest of lists and mappings."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def row_of(rows: list[RecipeRow], name: str) -> RecipeRow:
    return next(row for row in rows if row.recipe.name == name)


def test_texts_of_the_data_never_become_elements() -> None:
    page, peaceful = Page(render(hostile_result())), Page(render(made_up_result()))
    # What a search found folds out, and the made-up result has none.
    assert set(page.tags()) - {"details", "summary"} == set(peaceful.tags()) - {"details", "summary"}
    assert page.tags().count("script") == peaceful.tags().count("script") == 5
    assert not {"img", "b", "i"} & set(page.tags())
    assert page.text.count(HOSTILE) > 20  # each shown as it was written
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_a_helper_that_looks_for_elements_finds_unescaped_ones() -> None:
    assert {"script", "b", "img"} <= set(Page(f"<p>{HOSTILE}</p>").tags())


def test_plot_labels_hold_no_markup_of_the_data() -> None:
    figures = Page(render(hostile_result())).figures()
    assert set(figures) == {"plot-ranking", "plot-folds", "plot-classes"}
    for figure in figures.values():
        texts = strings([figure["wide"], figure["narrow"]])
        assert not [text for text in texts if "<" in text.replace("<br>", "")]
        assert any("&lt;script&gt;" in text for text in texts)
    assert "hovertemplate" not in json.dumps(figures)  # a template would fill in %{x}
    assert "texttemplate" not in json.dumps(figures)


@settings(max_examples=200, derandomize=True)
@given(st.text(max_size=60))
def test_a_plain_label_reads_back_as_the_text_on_one_line(text: str) -> None:
    label = plots.plain(text)
    assert "<" not in label
    assert ">" not in label
    shown = label.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert shown == " ".join(text.split())


def test_the_page_loads_nothing() -> None:
    page = Page(render(hostile_result()))
    loading = ("src", "href", "srcset", "data", "poster", "action", "formaction", "background")
    targets = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in loading
    ]
    assert len(targets) >= 2  # the icon and the link to the warnings
    assert all(target and target.startswith(("#", "data:,")) for target in targets)
    assert "color" in page.css
    assert "url(" not in page.css
    assert "@import" not in page.css
    own = [text for attributes, text in page.scripts if not attributes and "plotly.js v" not in text]
    assert len(own) == 1
    assert "http" not in own[0]


def test_plotly_is_inside_once() -> None:
    assert render(made_up_result()).count(get_plotlyjs()) == 1


def test_the_answer_is_the_only_heading_of_the_first_level_and_levels_never_jump() -> None:
    result = made_up_result()
    source = render(result)
    levels = [int(tag[1]) for tag in Page(source).tags() if tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    first, rest = numbers.unbroken(result.answer).split(" So did ")
    assert f"<h1>{html.escape(first)}</h1>" in source
    assert f">{html.escape('So did ' + rest)}</p>" in source


def test_every_table_has_a_caption_and_every_plot_a_name() -> None:
    page = Page(render(made_up_result()))
    tags = page.tags()
    assert tags.count("table") == tags.count("caption") == 4
    drawings = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(drawings) == 3
    assert all(len(attributes["aria-label"] or "") > 30 for attributes in drawings)
    assert ("html", {"lang": "en"}) in page.elements


def test_the_page_shows_the_numbers_of_the_result() -> None:
    result = made_up_result()
    text = Page(render(result)).text
    for recipe in result.recipes:
        assert numbers.score(recipe.mean) in text
    for d in (pair.difference for pair in pair_rows(result)):
        assert numbers.signed(d.mean) in text
        assert numbers.interval(d.low, d.high) in text
        assert numbers.p_value(d.p_holm) in text
    assert result.description.fingerprint in text
    assert numbers.score(result.detectable_difference) in text
    for word in ("Nadeau and Bengio", "Holm", "agreement with the labels", "Undecided", *result.warnings):
        assert word in text


def test_every_pair_stands_once_with_the_better_mean_first() -> None:
    result = made_up_result()
    means = {numbers.unbroken(recipe.title): recipe.mean for recipe in result.recipes}
    pairs = pair_rows(result)
    assert (
        len({frozenset((pair.first, pair.second)) for pair in pairs})
        == math.comb(len(means), 2)
        == len(pairs)
    )
    assert all(means[pair.first] >= means[pair.second] for pair in pairs)


def test_whiskers_end_where_the_interval_to_the_baseline_ends() -> None:
    result = made_up_result()
    rows = recipe_rows(result)
    figure = Page(render(result)).figures()["plot-ranking"]["wide"]
    seen = 0
    for trace in figure["data"]:
        for x, place, up, down in zip(
            trace["x"], trace["y"], trace["error_x"]["array"], trace["error_x"]["arrayminus"], strict=True
        ):
            d = rows[place].difference
            if d is None:
                assert (x, up, down, trace["error_x"]["visible"]) == (0.0, 0.0, 0.0, False)
            else:
                assert (d.first, d.second) == (rows[place].recipe.name, result.baseline)
                assert (x - down, x, x + up) == pytest.approx((d.low, d.mean, d.high))
            seen += 1
    assert seen == len(rows)
    # better, undecided, worse, practically the same and the baseline all occur
    assert len({row.standing for row in rows}) == 5


def test_verdicts_differ_by_shape_and_by_colour() -> None:
    figure = Page(render(made_up_result())).figures()["plot-ranking"]["wide"]
    marks = [trace["marker"] for trace in figure["data"]]
    assert (
        len(marks) == len({mark["symbol"] for mark in marks}) == len({mark["color"] for mark in marks}) == 5
    )


def test_every_fold_is_a_line_through_its_scores() -> None:
    result = made_up_result(folds=5)
    lines = [t for t in Page(render(result)).figures()["plot-folds"]["wide"]["data"] if "lines" in t["mode"]]
    assert [line["x"] for line in lines] == [
        [r.fold_scores[fold] for r in result.recipes] for fold in range(5)
    ]


def test_the_page_tells_what_the_design_could_show_what_failed_and_what_the_report_rows_say() -> None:
    result = made_up_result()
    text = Page(render(result)).text
    assert result.preview is not None
    assert result.left is not None
    assert result.preview.sentences[0] in text
    assert "Ranking surrogate could not be trained in 3 of 10 outer folds" in text
    assert "it is for other metrics than macro_f1" in text
    assert numbers.signed(0.0297) in text
    assert "opened once" in text
    assert "differently on 0.6\u202f% of the rows" in text
    assert "row of refund is the shortest, 0.4100 of the longest" in text
    others = dataclasses.replace(result.left, last_layer=None)
    assert "nearest class mean" not in Page(render(dataclasses.replace(result, left=others))).text
    twice = dataclasses.replace(result, left=dataclasses.replace(result.left, num_openings=2))
    assert "opened 2 times" in Page(render(twice)).text
    for absent in ("preview", "left"):
        assert render(dataclasses.replace(result, **{absent: None}))


def test_searched_values_are_shown_with_their_space_fold_by_fold() -> None:
    result = made_up_result()
    space = {
        "objective.settings.tau": Span(low=1.1, high=1.9).model_dump(),
        "objective.targets.class_weight": Choice(options=("balanced", "effective_number")).model_dump(),
        "optimizer.learning_rate": Span(low=0.25, high=4, log=True, times_default=True).model_dump(),
    }
    found = [{"objective.settings.tau": 1.23456, "optimizer.learning_rate": 0.5}, {}]
    searched = dataclasses.replace(result.recipes[0], space=space, found=found, row_visits=12345)
    result = dataclasses.replace(result, recipes=[searched, *result.recipes[1:]])
    text = " ".join(Page(render(result)).text.split())
    for words in ("1.23, default", "1.1 to 1.9", "balanced, effective_number", "0.25 to 4 times the default"):
        assert words in text


def test_for_a_metric_that_should_be_low_better_lies_on_the_left() -> None:
    titles = {}
    for name in ("macro_f1", "log_loss"):
        page = Page(render(made_up_result(metric=name)))
        axis = page.figures()["plot-ranking"]["wide"]["layout"]["xaxis"]["title"]["text"]
        titles[name] = axis.index("better") < axis.index("worse")
        assert ("Lower is better" in page.text) == (name == "log_loss")
    assert titles == {"macro_f1": False, "log_loss": True}


def test_thousands_of_classes_are_cut_and_the_page_says_so() -> None:
    counts = {f"kind {i}": 9000 - i for i in range(4000)}
    page = Page(render(made_up_result(class_counts=counts)))
    bars = page.figures()["plot-classes"]["wide"]["data"][0]["y"]
    assert bars == list(counts.values())[: plots.MAX_DRAWN_CLASSES]
    assert page.text.count("kind ") == MAX_LISTED_CLASSES
    assert f"the {MAX_LISTED_CLASSES} largest of" in page.text


@pytest.mark.parametrize("recipes", [1, 2])
def test_few_recipes_make_a_page_too(recipes: int) -> None:
    page = Page(render(made_up_result(recipes=recipes)))
    assert ("only one recipe ran" in page.text) == (recipes == 1)
    assert page.figures()["plot-ranking"]["narrow"]["data"]


def test_a_reloaded_result_is_equal_and_gives_the_same_page(tmp_path: Path) -> None:
    result = hostile_result()
    result.save(tmp_path / "results.json")
    reloaded = ComparisonResult.load(tmp_path / "results.json")
    assert reloaded == result
    assert render(reloaded) == render(result)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_written_file_is_the_page(tmp_path: Path) -> None:
    write_report(made_up_result(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(made_up_result())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("old")
    with pytest.raises(MarginsError, match="no such score"):
        write_report(made_up_result(metric="no such score"), report)
    assert report.read_text() == "old"
    assert list(tmp_path.iterdir()) == [report]


def test_a_failed_write_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        assert list(tmp_path.glob("*.partial"))  # the half file was there
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_report(made_up_result(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
