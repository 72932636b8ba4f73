"""The page of evidence: what studies found of the claims of published methods."""

from __future__ import annotations

import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "studies"


@cache
def studies() -> dict[str, Any]:
    """Every study by name."""
    from margins.evidence import load_study

    names = sorted(path.stem for path in STUDIES.glob("*.py") if path.stem != "run")
    return {name: load_study(STUDIES / f"{name}.py") for name in names}


@cache
def results() -> dict[str, Any]:
    """The newest row of each study."""
    from margins.evidence import latest, read_records

    return latest(read_records(STUDIES / "results.jsonl"))


@cache
def remarks() -> dict[str, str]:
    """What was looked at after results were recorded, by study."""
    return tomllib.loads((STUDIES / "remarks.toml").read_text(encoding="utf-8"))


def summary() -> str:
    """How many claims were shown."""
    found = Counter(results()[name].outcome for name in studies() if name in results())
    words = [f"{found[word]} {word}" for word in ("shown", "not shown", "opposite", "not run") if found[word]]
    waiting = len(studies()) - sum(found.values())
    return f"{len(studies())} studies: {', '.join(words)}" + (
        f"; {waiting} without a result." if waiting else "."
    )


def table() -> str:
    """A row for each method that has a study: claim, the effect that decides, outcome."""
    from margins.evidence import all_methods

    lines = [
        "| method | claim | what decides, mean over seeds [95 % interval] | outcome |",
        "|" + " --- |" * 4,
    ]
    for method in all_methods():
        for name in method.studies:
            study, record = studies()[name], results().get(name)
            cells = [
                f"**{_named(study)}**<br>{study.source}", _claim(study), _deciding(record),
                f"[{record.outcome if record else 'waits for its first run'}](#{name})",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |")
    return "\n".join(lines)


def details() -> str:
    """What each study did, in words, with the figures of its arms."""
    from margins.evidence import changed

    parts: list[str] = []
    for name, study in studies().items():
        record = results().get(name)
        parts.append(
            f"### {name}\n\n{_claim(study)}\n\n*Data.* {study.data}\n\n*Protocol.* {study.protocol}\n\n"
            f"*Repeat.* `make studies ONLY={name}`"
        )
        if study.tried:
            parts.append(f"*Before the run.* {study.tried}")
        if record is None:
            continue
        if record.missing:
            parts.append(f"Not run: {record.missing}")
            continue
        if name in remarks():
            parts.append(f"*After the run.* {' '.join(remarks()[name].split())}")
        parts.append("\n".join(f"- {_effect(effect)}" for effect in record.effects))
        parts.append(_figures(record))
        since = changed(record.code, ROOT)
        parts.append(
            f"{record.num_seeds} seeds, {record.seconds:.0f} s of trials, commit {record.commit}, "
            f"torch {record.versions['torch']}. "
            + (f"Changed since: {', '.join(since)}." if since else "Its code has not changed since.")
        )
    return "\n\n".join(parts)


def line_of(name: str) -> str:
    """A study's claim and its effects as a list, for a page that rests on them."""
    if name not in results():
        return ""
    study = studies()[name]
    lines = [f"- {_effect(effect)}" for effect in results()[name].effects]
    where = f"([{name}](look-up/evidence.md#{name}))"
    return f"**{_named(study)}.** {_claim(study)} {where}\n\n" + "\n".join(lines)


def _deciding(record: Any) -> str:
    if record is None or record.missing:
        return "" if record is None else record.missing
    return _effect(record.effects[0])


def _claim(study: Any) -> str:
    """The claim as a sentence."""
    return study.claim[0].upper() + study.claim[1:].rstrip(".") + "."


def _effect(effect: Any) -> str:
    text = f"{effect.name}: {effect.mean:+.3g} [{effect.low:+.3g}, {effect.high:+.3g}]"
    if effect.above:
        text += f", claimed above {effect.above:g}"
    if effect.reaches is not None:
        text += f", asked for {effect.reaches:g}{'' if effect.reached else ' and not reached'}"
    return f"{text}: {effect.outcome}"


def _figures(record: Any) -> str:
    names = list(dict.fromkeys(name for figures in record.figures.values() for name in figures))
    lines = ["| arm | settings | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 2)]
    for arm, figures in record.figures.items():
        settings = ", ".join(f"{key} {value}" for key, value in record.settings[arm].items())
        numbers = [f"{figures[name]:.4g}" if name in figures else "" for name in names]
        lines.append(f"| {arm} | {settings} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def _named(study: Any) -> str:
    from margins.cards import all_cards

    return "; ".join(all_cards()[component].name for component in study.cards)
