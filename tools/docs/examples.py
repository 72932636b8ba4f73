"""Runs what the pages of docs/ show, and puts real outputs into them.

A page is run from top to bottom in one scratch folder. Its ```python blocks share a namespace; in its
```console blocks every line after `$ ` is a command, and what follows is what it prints. A ```text block
right after a python block is what that block prints. A line `...` stands for lines left out.

A comment before a block changes how it is run:

    <!-- not run: REASON -->    neither run nor compared
    <!-- exits with 2 -->       the command is to fail
    <!-- killed at FILE -->     the command is killed as soon as this file is there
    <!-- needs PACKAGE -->      run where the package is installed, only compiled elsewhere

To write the outputs anew: python tools/docs/examples.py PAGE...
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"[+\-−]?\d+(?:[.,]\d+)*(?:e[+\-]?\d+)?")
_PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the comment before it, and where the text stands."""

    language: str
    text: str
    mark: str
    start: int
    end: int
    line: int

    @property
    def is_run(self) -> bool:
        """Whether it is code that is run."""
        return self.language in ("python", "console") and not self.mark.startswith("not run")


@dataclass(frozen=True)
class Command:
    """A command of a console block with the output that the page shows."""

    line: str
    shown: list[str]


@dataclass(frozen=True)
class Outcome:
    """What a command or a python block was shown to print and what it printed."""

    what: str
    shown: list[str]
    real: list[str]
    code: int = 0
    wanted: int = 0


@dataclass
class Page:
    """A page on its way through its blocks."""

    path: Path
    text: str
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    @classmethod
    def read(cls, path: Path) -> Page:
        """The page of a file."""
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def blocks(self) -> list[Block]:
        """Its fenced blocks, in order."""
        return [
            Block(
                m["language"], m["text"], m["mark"] or "", m.start("text"), m.end("text"),
                self.text.count("\n", 0, m.start("text")),
            )
            for m in _BLOCK.finditer(self.text)
        ]  # fmt: skip

    def outcomes(self) -> Iterator[tuple[Block, list[Outcome]]]:
        """Runs every block in the present folder; gives each block that shows output with its outcomes."""
        blocks = self.blocks
        for place, block in enumerate(blocks):
            if not block.is_run:
                continue
            if block.language == "console":
                yield block, [_outcome(command, block.mark) for command in commands_of(block.text)]
                continue
            real = self._printed(block)
            follower = blocks[place + 1] if place + 1 < len(blocks) else None
            if follower is not None and follower.language == "text" and _adjoin(self.text, block, follower):
                yield follower, [Outcome(f"{self.path.name}:{block.line}", follower.text.splitlines(), real)]

    def _printed(self, block: Block) -> list[str]:
        # Empty lines before the code, so that a traceback names the line of the page.
        code = compile("\n" * block.line + block.text, str(self.path), "exec")
        needed = re.fullmatch(r"needs (\w+)", block.mark)
        if needed and importlib.util.find_spec(needed[1]) is None:
            return []
        out = io.StringIO()
        with redirect_stdout(out):
            exec(code, self.namespace)  # noqa: S102 - the documentation's own code
        return out.getvalue().splitlines()


def commands_of(text: str) -> list[Command]:
    r"""The commands of a console block.

    Example:
        >>> commands_of("$ ls a\nx\n$ ls b \\\n    c\n")
        [Command(line='ls a', shown=['x']), Command(line='ls b c', shown=[])]
    """
    found: list[Command] = []
    for part in re.split(r"^\$ ", text.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
        line, *shown = part.splitlines()
        found.append(Command(" ".join(line.split()), shown))
    return found


def masked(line: str) -> str:
    """A line with its numbers and the room between words taken out.

    Example:
        >>> masked("macro F1    0.9745  -3e-4")
        'macro F# # #'
    """
    return " ".join(_NUMBER.sub("#", line).split())


def missing_lines(outcome: Outcome) -> list[str]:
    """Lines that the page shows and the run did not print, but for numbers.

    Example:
        >>> missing_lines(Outcome("", ["a 1", "...", "b"], ["a 2", "c"]))
        ['b']
    """
    real = {masked(line) for line in outcome.real}
    return [line for line in outcome.shown if line.strip() not in ("", "...") and masked(line) not in real]


def refreshed(shown: list[str], real: list[str]) -> list[str]:
    """The real output; where the page leaves lines out, as many first and last lines as it shows.

    Example:
        >>> refreshed(["a", "...", "z"], ["b", "c", "d", "e"])
        ['b', '...', 'e']
    """
    real = [line.rstrip() for line in real]
    if "..." not in shown:
        return real
    first = shown.index("...")
    last = len(shown) - first - 1
    return real if first + last >= len(real) else [*real[:first], "...", *real[len(real) - last :]]


def rewritten(page: Page) -> str:
    """Runs the page in the present folder; gives its text with the outputs of now."""
    text, moved = page.text, 0
    for block, outcomes in page.outcomes():
        if block.language == "text":
            new = "\n".join(refreshed(outcomes[0].shown, outcomes[0].real)) + "\n"
        else:
            parts = re.split(r"^(?=\$ )", block.text, flags=re.MULTILINE)[1:]
            new = "".join(_with_output(part, outcome) for part, outcome in zip(parts, outcomes, strict=True))
        for outcome in outcomes:
            if outcome.code != outcome.wanted:
                raise SystemExit(f"{outcome.what}: ended with {outcome.code}\n" + "\n".join(outcome.real))
        text = text[: block.start + moved] + new + text[block.end + moved :]
        moved += len(new) - len(block.text)
    return text


def _with_output(part: str, outcome: Outcome) -> str:
    lines = part.splitlines()
    head = next(number for number, line in enumerate(lines) if not line.endswith("\\")) + 1
    return "\n".join([*lines[:head], *refreshed(lines[head:], outcome.real)]) + "\n"


def _adjoin(text: str, first: Block, second: Block) -> bool:
    return text[first.end : second.start].split() == ["```", "```text"]


def _outcome(command: Command, mark: str) -> Outcome:
    if killed := re.fullmatch(r"killed at (\S+)", mark):
        code, real = _killed(command.line, Path(killed[1]))
        return Outcome(command.line, command.shown, real, code, -signal.SIGKILL)
    exits = re.fullmatch(r"exits with (\d+)", mark)
    program, *arguments = shlex.split(command.line)
    code, real = margins(arguments) if program == "margins" else _other(program, arguments)
    return Outcome(command.line, command.shown, real, code, int(exits[1]) if exits else 0)


def margins(arguments: list[str]) -> tuple[int, list[str]]:
    """The command in this process, which has torch loaded already."""
    from margins.cli.main import run

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    code: object = 0
    with patch.object(sys, "argv", ["margins", *arguments]), redirect_stdout(out), redirect_stderr(out):
        try:
            run()
        except SystemExit as ended:
            code = ended.code or 0
    out.seek(0)
    return int(str(code)), out.read().splitlines()


def _other(program: str, arguments: list[str]) -> tuple[int, list[str]]:
    done = subprocess.run(
        [program, *arguments], text=True, check=False, env=_environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()


def _killed(line: str, at: Path) -> tuple[int, list[str]]:
    """Runs `margins` in a process of its own and kills it, as hard as can be, when the file is there."""
    command = [sys.executable, "-m", *shlex.split(line)]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=_environment())
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while process.poll() is None and not at.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
        out.seek(0)
        return process.returncode, out.read().splitlines()


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


def main(paths: list[str]) -> None:
    """Writes the outputs of pages anew."""
    import torch

    torch.set_num_threads(1)
    for path in map(Path, paths):
        page, started = Page.read(path.resolve()), time.monotonic()
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            text = rewritten(page)
        page.path.write_text(text, encoding="utf-8")
        print(f"{path}: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
