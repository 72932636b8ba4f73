"""The pages of docs/ do what they show, miss nothing that the code has, and fetch nothing from elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from margins.evaluation import all_metrics
from tools_of_docs import tool

ROOT = Path(__file__).parent.parent
DOCS, SOURCE = ROOT / "docs", ROOT / "src" / "margins"
SLOW = {"how-to/text.md", "how-to/several-processes.md"}
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
NOT_RUN = {
    "index.md": ["installs packages", "needs a copy of the repository and takes minutes"],
    "how-to/text.md": ["needs a folder with a pretrained model"],
}
PACKAGES = (
    "losses", "targets", "engine", "data", "encoders", "heads", "evaluation", "training", "compare",
    "balance", "diagnose", "distill", "hierarchy", "labels", "mining", "pretrain", "retrieval", "robust",
    "evidence",
)  # fmt: skip
FETCHES = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=\"?(?:https?:)?//[^>]*>"
    r"|<link\b[^>]*\brel=\"?(?:stylesheet|preconnect|preload|icon|dns-prefetch)\"?[^>]*href=\"?(?:https?:)?//[^>]*>"
    r"|@import\s+(?:url\()?['\"]?(?:https?:)?//|url\(['\"]?(?:https?:)?//"
)


examples, generated = tool("examples"), tool("generated")


def wrong_in(path: Path) -> list[str]:
    """What a page shows and its run in the present folder did not give."""
    wrong: list[str] = []
    for _, outcomes in examples.Page.read(path).outcomes():
        for outcome in outcomes:
            if outcome.code != outcome.wanted:
                wrong.append(f"{outcome.what}: ended with {outcome.code}: {outcome.real[-1:]}")
            wrong += [f"{outcome.what}: not printed: {line}" for line in examples.missing_lines(outcome)]
    return wrong


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in PAGES])
def test_a_page_prints_what_it_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    assert wrong_in(DOCS / name) == []


def page_of(tmp_path: Path, *blocks: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text("\n\n".join(blocks) + "\n")
    return page


@pytest.mark.parametrize(
    ("block", "seen"),
    [
        ("```console\n$ margins --version\nmargins 9 of 10\n```", "not printed: margins 9 of 10"),
        ("```console\n$ margins train nothing.csv\n```", "ended with 2"),
        ("<!-- exits with 2 -->\n```console\n$ margins --version\n```", "ended with 0"),
        ("```console\n$ ls no-such-file\n```", "ended with"),
        ("```python\nprint('a 1')\n```\n\n```text\nb 1\n```", "not printed: b 1"),
        ("<!-- killed at never -->\n```console\n$ margins --version\n```", "ended with 0"),
    ],
)
def test_a_wrong_example_is_seen(
    block: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert any(seen in found for found in wrong_in(page_of(tmp_path, block)))


def test_a_python_example_that_raises_is_seen_with_its_line(tmp_path: Path) -> None:
    page = page_of(tmp_path, "# Title", "```python\nundefined_name\n```")
    with pytest.raises(NameError) as raised:
        wrong_in(page)
    assert raised.traceback[-1].lineno + 1 == 4


def test_a_package_that_is_not_there_leaves_its_example_compiled_only(tmp_path: Path) -> None:
    block = "<!-- needs no_such_package -->\n```python\n{}\n```"
    assert wrong_in(page_of(tmp_path, block.format("import no_such_package"))) == []
    with pytest.raises(SyntaxError):
        wrong_in(page_of(tmp_path, block.format("import import")))


def test_numbers_may_differ_and_words_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        wrong_in(page_of(tmp_path, "```python\nprint('score  0.51')\n```\n\n```text\nscore 0.49\n```")) == []
    )
    assert wrong_in(page_of(tmp_path, "```python\nprint('loss 0.51')\n```\n\n```text\nscore 0.51\n```"))


def test_every_fence_is_a_block_that_the_runner_knows() -> None:
    for name in PAGES:
        page = examples.Page.read(DOCS / name)
        assert len(re.findall(r"^\s*```", page.text, re.MULTILINE)) == 2 * len(page.blocks), name
        assert {block.language for block in page.blocks} <= {"python", "console", "text"}, name
        marks = [block.mark for block in page.blocks if block.mark]
        assert all(re.match(r"(not run: |exits with |killed at |needs |generated: )", m) for m in marks), name


def test_no_example_shows_that_it_failed() -> None:
    shown = [b.text for name in PAGES for b in examples.Page.read(DOCS / name).blocks if b.language == "text"]
    assert sum("True" in text for text in shown) >= 4, "vacuous: no example says how it went"
    assert [text for text in shown if "False" in text] == []


def test_blocks_that_are_not_run_are_these_few() -> None:
    found = {
        name: [b.mark.removeprefix("not run: ") for b in blocks if b.mark.startswith("not run")]
        for name in PAGES
        if (blocks := examples.Page.read(DOCS / name).blocks)
    }
    assert {name: reasons for name, reasons in found.items() if reasons} == NOT_RUN
    run = [b for name in PAGES for b in examples.Page.read(DOCS / name).blocks if b.is_run]
    assert len(run) > 60, "vacuous: hardly any example"


def test_the_floors_drawn_are_those_that_import_linter_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = [re.findall(r"\w+", layer) for layer in contracts[0]["layers"]]
    drawn: dict[str, list[str]] = {}
    for y, kind, name in re.findall(r'<text x="[\d.]+" y="(\d+)" class="(\w+)">(\w+)', generated.floors()):
        drawn.setdefault(y, []).extend([name] if kind == "name" else [])
    assert list(drawn.values()) == held
    packages = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.name[0] not in "_."}
    assert packages - {"py.typed"} == {name for floor in held for name in floor}


def test_generated_parts_name_everything_there_is() -> None:
    from margins.cli.app import app
    from margins.evidence import all_methods
    from margins.training import Recipe

    wanted = {
        "metrics": [f"`{metric.name}`" for metric in all_metrics()],
        "methods": [
            f"**{card.name}**<br>`{card.component.removeprefix('margins.')}`"
            for method in all_methods()
            for card in method.cards
        ],
        "recipe_keys": [f"`{key}`" for key in Recipe.model_fields],
        "command_line": [
            f"## margins {c.name or getattr(c.callback, '__name__', '').replace('_', '-')}"
            for c in app.registered_commands
        ],
    }
    for part, names in wanted.items():
        text = generated.PARTS[part]()
        assert len(names) > 5, "vacuous: nothing to name"
        assert [name for name in names if name not in text] == [], part


def test_every_key_of_every_part_of_a_recipe_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", generated.recipe_keys(), re.MULTILINE)
    assert len(rows) > 80
    assert {key for key, meaning in rows if not meaning} <= {"version"}


def test_every_generated_part_stands_on_a_page() -> None:
    asked = re.findall(r"<!-- generated: (\w+) -->", "".join((DOCS / name).read_text() for name in PAGES))
    assert sorted(asked) == sorted(generated.PARTS)


def test_every_warning_has_its_place() -> None:
    raised = {code for path in SOURCE.rglob("*.py") for code in re.findall(r'"(MG\d{3})"', path.read_text())}
    explained = set(re.findall(r"^## (MG\d{3})$", (DOCS / "look-up/warnings.md").read_text(), re.MULTILINE))
    assert raised
    assert explained == raised


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason=f"{package}, of the extra docs, is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_builds_strictly_with_every_page(site: Path) -> None:
    assert [name for name in PAGES if not (site / name).with_suffix(".html").is_file()] == []


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > len(PAGES)
    assert {str(path): found for path in files if (found := FETCHES.findall(path.read_text()))} == {}


@pytest.mark.parametrize(
    "text",
    ['<script src="https://cdn.example/x.js"></script>', '<img src="//example/x.png">',
     '<link rel="stylesheet" href="https://fonts.example/css">', "@import url(https://example/x.css)"],
)  # fmt: skip
def test_what_would_be_fetched_is_seen(text: str) -> None:
    assert FETCHES.search(text)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_name(site: Path, package: str) -> None:
    page = (site / "reference" / f"{package}.html").read_text()
    module = importlib.import_module(f"margins.{package}")
    assert module.__all__
    shown = set(re.findall(rf'id="margins\.{package}\.(?:\w+\.)?(\w+)"', page))
    assert set(module.__all__) - shown == set()
