"""Parts of the pages that are made from the code when the site is built.

`<!-- generated: NAME -->` in a page becomes what the function NAME gives.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_NESTED = {"objective.targets": "TargetSettings", "objective.penalties": "PenaltySettings"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What mkdocs calls for each page."""
    return _MARK.sub(lambda mark: PARTS[mark[1]](), markdown)


def metrics() -> str:
    """A table of all metrics."""
    from margins.evaluation import all_metrics

    rows = [
        [f"`{m.name}`", m.title, "higher" if m.higher_is_better else "lower", m.kind, ", ".join(m.tasks)]
        for m in all_metrics()
    ]
    return _table(["name", "in reports", "better is", "looks at", "tasks"], rows)


def methods() -> str:
    """A table of all methods: their components, and what each reduces to."""
    from margins.cards import LossCard
    from margins.evidence import all_methods
    from margins.training.objective_settings import snake_case

    rows: list[list[str]] = []
    for method in all_methods():
        parts: list[str] = []
        for card in method.cards:
            name = card.component.rpartition(".")[2]
            recipe = f" (`{snake_case(name)}`)" if isinstance(card, LossCard) else ""
            parts.append(f"**{card.name}**<br>`{card.component.removeprefix('margins.')}`{recipe}")
        said = [line for card in method.cards for line in (card.summary, *(f"*{x}*" for x in card.limits))]
        kinds = [*method.kinds, *(f"form {form}" for form in method.forms), ", ".join(method.targets)]
        rows.append(["<br>".join(parts), "<br>".join(kinds), "<br>".join(said), "<br>".join(method.papers)])
    return _table(["method", "kind and targets", "when to use it, and *what it reduces to*", "source"], rows)


def candidates() -> str:
    """What can take part in a comparison by name: a table for each task, its baseline first."""
    from margins.compare import all_candidates
    from margins.compare.candidates.catalogue import BASELINES
    from margins.compare.candidates.spaces import EVERYONES

    everyones = "".join(f"- {_dimension(path, dimension)}\n" for path, dimension in EVERYONES.items())
    parts = [f"Of every one of them a search changes what the last column says, and:\n\n{everyones}"]
    for task, baseline in BASELINES.items():
        rows = [
            [f"`{c.name}`" + (" (baseline)" if c.name == baseline else ""), c.title, c.why,
             ", ".join(c.metrics) or "all", "<br>".join(_dimension(*each) for each in c.space.items())]
            for c in all_candidates(task)
        ]  # fmt: skip
        head = ["name", "recipe", "why, and why not", "for metrics of kind", "a search changes"]
        parts.append(f"### {task}\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def recipe_keys() -> str:
    """Every key of a recipe: the top level, then each part with its choices."""
    from margins.training import Recipe

    schema = Recipe.model_json_schema()
    texts = {model.__name__: _documented(model) for model in _models()}
    parts = ["## The keys\n", _keys(schema["properties"], texts["Recipe"], schema["$defs"])]
    for key, field in schema["properties"].items():
        choices = _choices(field)
        if choices:
            parts.append(f"## {key}\n")
            parts += [_part(name, schema["$defs"][name], texts, schema["$defs"]) for name in choices]
    for place, name in _NESTED.items():
        parts += [f"## {place}\n", _part(name, schema["$defs"][name], texts, schema["$defs"])]
    return "\n\n".join(parts)


def command_line() -> str:
    """Every command with its arguments and options."""
    import typer.main

    from margins.cli.app import app

    group: Any = typer.main.get_command(app)
    parts: list[str] = []
    for name, command in group.commands.items():
        rows = [_option(parameter) for parameter in command.params if parameter.name != "help"]
        usage = command.help.strip().replace("\n\n", "\n").splitlines()
        parts.append(f"## margins {name}\n\n" + "\n".join(usage))
        parts.append(_table(["", "", "by default"], rows) if rows else "")
    return "\n\n".join(parts)


def floors() -> str:
    """The floors of pyproject.toml, drawn."""
    names = [[name.strip() for name in layer.split(":")] for layer in layers()]
    height, gap, left, width = 46, 10, 44, 700
    drawn: list[str] = []
    for place, floor in enumerate(names):
        top = place * (height + gap)
        drawn.append(f'<text x="14" y="{top + 29}" class="number">{len(names) - 1 - place}</text>')
        each = (width - gap * (len(floor) - 1)) / len(floor)
        for number, name in enumerate(floor):
            x = left + number * (each + gap)
            drawn.append(f'<rect x="{x:.1f}" y="{top}" width="{each:.1f}" height="{height}" rx="6"/>')
            drawn.append(f'<text x="{x + each / 2:.1f}" y="{top + 29}" class="name">{escape(name)}</text>')
    total = len(names) * (height + gap)
    return (
        f'<svg class="floors" viewBox="0 0 {left + width + 2} {total}" role="img" '
        'aria-label="The floors of margins, the lowest at the bottom">\n' + "\n".join(drawn) + "\n</svg>"
    )


def layers() -> list[str]:
    """The layers that import-linter holds, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(contract["layers"] for contract in contracts if contract["type"] == "layers")


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is no package and may not be on the path."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_SPEED = _beside("speed")
_MANY_LABELS = _beside("many_labels_page")
_COMPARISONS = _beside("comparisons_page")
_EVIDENCE = _beside("evidence_page")
PARTS: dict[str, Callable[[], str]] = {
    **{part.__name__: part for part in (metrics, methods, candidates, recipe_keys, command_line, floors)},
    "speed_drawn": _SPEED.drawn,
    "speed_tables": _SPEED.tables,
    "speed_of_machine": _SPEED.machine,
    "speed_on_cuda": _SPEED.on_cuda,
    "evidence_summary": _EVIDENCE.summary,
    "evidence_table": _EVIDENCE.table,
    "evidence_details": _EVIDENCE.details,
    "many_labels_quality": _MANY_LABELS.quality,
    "many_labels_cost": _MANY_LABELS.cost,
    **{
        f"compared_{path.stem}": partial(_COMPARISONS.ranking, path.stem)
        for path in sorted(_COMPARISONS.FOLDER.glob("*.json"))
    },
    **{
        f"shown_by_{path.stem}": partial(_EVIDENCE.line_of, path.stem)
        for path in sorted(_EVIDENCE.STUDIES.glob("*.py"))
        if path.stem != "run"
    },
}


def _dimension(path: str, dimension: Any) -> str:
    """A key that a search changes, and to what."""
    if dimension.kind == "choice":
        return f"`{path}`: {', '.join(f'`{option}`' for option in dimension.options)}"
    times = " times the default" if dimension.times_default else ""
    return f"`{path}`: {dimension.low:g} to {dimension.high:g}{times}{', in ratios' if dimension.log else ''}"


def _option(parameter: Any) -> list[str]:
    options = (
        ", ".join(f"`{name}`" for name in parameter.opts) if parameter.param_type_name == "option" else ""
    )
    named = parameter.name.upper() + "..." * (parameter.nargs == -1)
    metavar = parameter.metavar or ("" if options else named)
    default = parameter.default
    shown = "required" if parameter.required else "" if default in (None, False) else f"`{default}`"
    return [f"{options} `{metavar}`" if metavar else options, parameter.help or "", shown]


def _part(name: str, schema: dict[str, Any], texts: dict[str, tuple[str, dict[str, str]]], defs: Any) -> str:
    title = schema["properties"].get("name", {}).get("const")
    fields = {key: field for key, field in schema["properties"].items() if not (title and key == "name")}
    own = (
        _keys(fields, texts[name], defs, required=schema.get("required", []))
        if fields
        else "No keys but `name`."
    )
    heading = f"### {title}\n\n" if title else ""
    return f"{heading}{texts[name][0]}\n\n{own}"


def _keys(
    fields: dict[str, Any], text: tuple[str, dict[str, str]], defs: Any, required: list[str] | None = None
) -> str:
    rows = [
        [f"`{key}`", _kind(field, defs), _default(field, key in (required or [])), text[1].get(key, "")]
        for key, field in fields.items()
    ]
    return _table(["key", "takes", "by default", "meaning"], rows)


def _kind(field: dict[str, Any], defs: Any) -> str:
    """What a field of a JSON schema takes, in words."""
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "oneOf" in field or "$ref" in field:
        named = [_named(name, defs) for name in _choices(field)]
        return ", ".join(f"`{name}`" if name else "keys of its own" for name in named)
    if "anyOf" in field:
        return " or ".join(_kind(choice, defs) for choice in field["anyOf"])
    if field.get("type") == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(_kind(item, defs) for item in field["prefixItems"]) + "]"
        return f"list of {_kind(field.get('items', {}), defs)}"
    bounds = " and ".join(f"{sign} {field[key]:.12g}" for key, sign in _BOUNDS.items() if key in field)
    words = {"integer": "whole number", "string": "text", "object": "keys and values", "null": "`null`"}
    word = words.get(field.get("type", ""), field.get("type", "anything"))
    return f"{word} {bounds}".strip()


def _default(field: dict[str, Any], is_required: bool) -> str:
    if "default" not in field:
        return "required" if is_required else "by the data"
    value = field["default"]
    if isinstance(value, dict) and value:
        return f"`{value['name']}`" if "name" in value else "see below"
    return f"`{json.dumps(value)}`"


def _choices(field: dict[str, Any]) -> list[str]:
    """The names of the models that a field may hold."""
    inner = field.get("items", field)
    refs = [inner["$ref"]] if "$ref" in inner else [choice["$ref"] for choice in inner.get("oneOf", [])]
    return [ref.rpartition("/")[2] for ref in refs]


def _named(model: str, defs: Any) -> str | None:
    return defs[model]["properties"].get("name", {}).get("const")


def _models() -> Iterator[type]:
    """Every class of settings: the one that a recipe is a kind of, and all below it."""
    from margins.training import Recipe

    waiting: list[type] = list(Recipe.__bases__)
    while waiting:
        model = waiting.pop()
        yield model
        waiting += model.__subclasses__()


def _documented(model: type) -> tuple[str, dict[str, str]]:
    """What the docstring says first, and what it and those of its bases say of each argument."""
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        meanings |= (
            _arguments(inspect.cleandoc(base.__doc__ or "")) if base.__module__.startswith("margins") else {}
        )
    first = re.split(r"\n\n(?=Args:|Example:|References:)", inspect.cleandoc(model.__doc__ or ""))[0]
    return first, meanings


def _arguments(docstring: str) -> dict[str, str]:
    r"""The names and meanings under `Args:`.

    Example:
        >>> _arguments("One line.\n\nArgs:\n    a: first\n        of two.\n    b: second.")
        {'a': 'first of two.', 'b': 'second.'}
    """
    found = re.search(r"^Args:\n((?:    .*\n?)+)", docstring, re.MULTILINE)
    entries = re.split(r"^    (?=\w+: )", found[1], flags=re.MULTILINE)[1:] if found else []
    return {name: " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries)}


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "&#124;") for cell in line) + " |" for line in lines)
