"""The README's examples run, and the commands it names exist."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from margins.cards import loss_cards
from margins.evidence import latest, read_records
from margins.losses import __all__ as exported
from tools_of_docs import tool

examples = tool("examples")
README = Path(__file__).parent.parent / "README.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_the_python_examples_run_one_after_the_other():
    torch.manual_seed(0)
    blocks = _blocks("python")
    assert len(blocks) >= 5, "vacuous: no examples"
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)  # noqa: S102


def test_an_example_that_fails_is_seen():
    with pytest.raises(NameError):
        exec(compile("undefined_name()", "README", "exec"), {})  # noqa: S102


def test_the_number_of_objectives_is_the_number_of_cards():
    assert exported
    assert f"{len(loss_cards())} objectives" in README.read_text()


def test_the_counts_of_studies_are_those_that_were_recorded():
    records = latest(read_records(README.parent / "studies" / "results.jsonl")).values()
    found, text = Counter(record.outcome for record in records), " ".join(README.read_text().split())
    assert f"{len(records)} small studies" in text
    assert f"{found['shown']} show the effect that decides, {found['not shown']} do not" in text
    assert set(found) == {"shown", "not shown"}


def test_every_make_target_of_the_readme_exists():
    makefile = (README.parent / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z-]+)", README.read_text()))
    assert {"demo", "test"} <= named
    for target in named - {"a", "it"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [c for block in _blocks("console") for c in block.splitlines() if "bin/margins" in c]
    assert len(commands) == 6
    rng = np.random.default_rng(0)
    topics = rng.integers(0, 2, 60)
    words = np.array([["refund money card", "lost parcel late"][t] for t in topics])
    lines = [f"{w} {rng.integers(9)},{'ab'[t]}" for w, t in zip(words, topics, strict=True)]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,topic", *lines]) + "\n")
    for command in commands:
        if "scans" in command:
            continue  # the same command on another kind of column
        arguments = command.split("#")[0].split()[1:]
        quick = {"compare": ["--epochs", "2", "--candidates", "focal"], "train": ["--epochs", "2"]}
        code, printed = examples.margins([*arguments, *quick.get(arguments[0], [])])
        assert code == 0, printed
        assert printed
    shown = subprocess.run(
        [sys.executable, "-m", "margins", "methods"], capture_output=True, text=True, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len(list(tmp_path.glob("runs/*/report.html"))) == 1
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 61
