"""What can be wrong with a user's files and options: one line that names it, exit code 2, nothing changed.

Each case makes its files in a folder of its own and gives a command line; `{d}` is that folder, `{run}` a
finished run of another folder.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from margins.cli.main import run

GOOD = "text,label\n" + "".join(f"good film number {i},yes\nbad film number {i},no\n" for i in range(30))
NUMBERS = "a,b,label\n" + "".join(f"{i},{i % 7},{'x' if i % 3 else 'y'}\n" for i in range(60))


class Case(NamedTuple):
    name: str
    files: Callable[[Path], Any]
    command: str
    words: tuple[str, ...]


def text_file(content: str | bytes, name: str = "t.csv") -> Callable[[Path], Any]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda d: (d / name).write_bytes(raw)


def nothing(_: Path) -> None:
    pass


def parquet_of(table: dict[str, Any]) -> Callable[[Path], Any]:
    def write(d: Path) -> None:
        import polars as pl

        pl.DataFrame(table).write_parquet(d / "t.parquet")

    return write


def arrays(name: str, **content: Any) -> Callable[[Path], Any]:
    return lambda d: np.savez(d / name, **content)


def npy(array: Any, *, pickled: bool = False) -> Callable[[Path], Any]:
    return lambda d: np.save(d / "v.npy", array, allow_pickle=pickled)


def both(*makers: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda d: [make(d) for make in makers]


def images(extra: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def write(d: Path) -> None:
        from PIL import Image

        for label, shade in (("dark", 10), ("light", 240)):
            (d / "p" / label).mkdir(parents=True)
            for k in range(12):
                Image.new("L", (8, 8), shade + k % 3).save(d / "p" / label / f"{k}.png")
        extra(d / "p")

    return write


def bomb(folder: Path) -> None:
    """A file of a few kilobytes whose header promises 40 000 x 40 000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 40_001)) + chunk(b"IEND", b"")
    (folder / "dark" / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def pickled_npz(d: Path) -> None:
    np.savez(d / "x.npz", embedding=np.array([{"a": 1}, {"b": 2}], dtype=object), label=np.array([0, 1]))


def broken_npz(d: Path) -> None:
    arrays("x.npz", embedding=np.ones((4, 2)))(d)
    (d / "x.npz").write_bytes((d / "x.npz").read_bytes()[:60])


def zipped_text(d: Path) -> None:
    with zipfile.ZipFile(d / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")


def edited_run(edit: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A small run in this folder, edited."""

    def make(d: Path) -> None:
        (d / "t.csv").write_text(NUMBERS)
        from margins.training.fit import train

        train(d / "t.csv", target="label", recipe={"max_epochs": 1}, out=d / "r")
        edit(d)

    return make


def checkpoint_without(key: str) -> Callable[[Path], Any]:
    def edit(d: Path) -> None:
        from margins.training.checkpoint import read_checkpoint, write_checkpoint

        state = read_checkpoint(d / "r" / "checkpoint.safetensors")
        del state["trainer"][key]
        write_checkpoint(d / "r" / "checkpoint.safetensors", state)

    return edit


TRAIN = "train {d}/t.csv --out {d}/run"
YAML = "train {d}/t.csv --recipe {d}/r.yaml --out {d}/run"
CASES = [
    # Files that are not there or not what they seem.
    Case("no such file", nothing, TRAIN, ("t.csv", "no such file")),
    Case("folder in place of a file", lambda d: (d / "t.csv").mkdir(), TRAIN, ("t.csv",)),
    Case("empty file", text_file(""), TRAIN, ("t.csv", "empty")),
    Case("header alone", text_file("text,label\n"), TRAIN, ("t.csv", "header")),
    Case("blank lines alone", text_file("\n\n\n"), TRAIN, ("t.csv", "empty")),
    Case("unknown suffix", text_file("x", "t.xyz"), "train {d}/t.xyz --out {d}/run", ("t.xyz",)),
    Case("broken gzip", text_file(gzip.compress(GOOD.encode())[:60], "t.csv.gz"), "train {d}/t.csv.gz --out {d}/run", ("t.csv.gz", "gzip")),
    Case("gzip by name only", text_file(GOOD, "t.csv.gz"), "train {d}/t.csv.gz --out {d}/run", ("t.csv.gz", "gzip")),
    Case("broken UTF-8", text_file(GOOD.encode() + b"caf\xe9,yes\n"), TRAIN, ("t.csv", "0xe9", "line 62")),
    Case("UTF-16", text_file(GOOD.encode("utf-16")), TRAIN, ("t.csv", "UTF-8")),
    Case("too many cells", text_file(GOOD + "a,b,c,d\n"), TRAIN, ("t.csv",)),
    Case("too few cells", text_file("a,b,label\n1,2,x\n1\n" * 10), TRAIN, ("t.csv", "line")),
    Case("column twice", text_file(GOOD.replace("text,label", "label,label")), TRAIN + " --target label", ("label",)),
    Case("broken Parquet", text_file("PAR1 no", "t.parquet"), "train {d}/t.parquet --out {d}/run", ("t.parquet",)),
    Case("broken JSON line", text_file('{"text": "a", "label": "x"}\n{"text": oh}\n', "t.jsonl"), "train {d}/t.jsonl --out {d}/run", ("t.jsonl", "line 2")),
    Case("JSON that is no object", text_file("[1, 2]\n[3, 4]\n", "t.jsonl"), "train {d}/t.jsonl --out {d}/run", ("t.jsonl",)),
    Case("broken npz", broken_npz, "train {d}/x.npz --out {d}/run", ("x.npz",)),
    Case("npz without arrays", zipped_text, "train {d}/x.npz --out {d}/run", ("x.npz",)),
    Case("npz with objects", pickled_npz, "train {d}/x.npz --out {d}/run", ("x.npz", "pickled objects")),
    Case("arrays of other lengths", arrays("x.npz", embedding=np.ones((4, 2)), label=np.zeros(3)), "train {d}/x.npz --out {d}/run", ("4", "3")),
    Case("broken idx", text_file(b"\0\0\x08\x03\0\0\0\x05", "images-idx3-ubyte"), "train {d}/images-idx3-ubyte --out {d}/run", ("images-idx3-ubyte",)),
    Case("folder without images", lambda d: (d / "p" / "dark").mkdir(parents=True), "train {d}/p --out {d}/run", ("p",)),
    # Columns and cells.
    Case("no such target", text_file(GOOD), TRAIN + " --target lable", ("lable", "did you mean label")),
    Case("no such input", text_file(GOOD), TRAIN + " --input txt --target label", ("txt", "did you mean text")),
    Case("target among the inputs", text_file(GOOD), TRAIN + " --input text,label --target label", ("label", "target")),
    Case("no target in sight", text_file("u,v\n" + "1.5,2.5\n2.5,1.5\n" * 10), TRAIN, ("target",)),
    Case("one class", text_file("text,label\n" + "a film,yes\n" * 20), TRAIN, ("label", "yes", "two classes")),
    Case("empty class cell", text_file(GOOD + "some text,\n"), TRAIN, ("label", "empty", "row 61")),
    Case("nothing but empty inputs", text_file("text,label\n" + ",yes\n,no\n" * 12), TRAIN + " --input text --target label", ("text",)),
    Case("NaN among numbers", text_file(NUMBERS + "nan,1,x\n"), TRAIN + " --input a,b --target label --kind a=numeric --report-share 0.05", ("a", "row 61")),
    Case("infinity among numbers", text_file(NUMBERS + "inf,1,x\n"), TRAIN + " --input a,b --target label", ("a",)),
    Case("text among numbers", text_file(NUMBERS + "oops,1,x\n"), TRAIN + " --input a,b --target label --kind a=numeric", ("a", "oops")),
    Case("NaN in a value", text_file("a,price\n" + "".join(f"{i},{i * 1.5}\n" for i in range(30)) + "3,nan\n"), TRAIN + " --target price --target-kind value", ("price", "row 31")),
    Case("words as values", text_file(GOOD), TRAIN + " --target label --target-kind value", ("label", "numbers")),
    Case("negative weight", text_file("a,w,label\n" + "1,1,x\n2,1,y\n" * 12 + "1,-1,x\n"), TRAIN + " --input a --target label --weight w", ("w", "-1", "row 25")),
    Case("weights of zero", text_file("a,w,label\n" + "1,0,x\n2,0,y\n" * 12), TRAIN + " --input a --target label --weight w", ("w",)),
    Case("unknown split word", text_file("text,label,split\n" + "a b,x,train\nc d,y,exam\n" * 10), TRAIN, ("exam", "rows 2")),
    Case("no training rows", text_file("text,label,split\n" + "a b,x,test\nc d,y,test\n" * 10), TRAIN, ("train",)),
    Case("two roles for a column", text_file(GOOD), TRAIN + " --target label --group label", ("label",)),
    Case("unknown kind of input", text_file(GOOD), TRAIN + " --kind text=poem", ("poem", "text")),
    Case("kind without a column", text_file(GOOD), TRAIN + " --kind text", ("--kind", "COLUMN=KIND")),
    Case("unknown kind of target", text_file(GOOD), TRAIN + " --target-kind labels", ("labels",)),
    # Embeddings and images.
    Case("embeddings of other rows", both(text_file(GOOD), npy(np.ones((59, 3)))), TRAIN + " --embeddings {d}/v.npy", ("59", "60")),
    Case("embeddings with objects", both(text_file(GOOD), npy(np.array([{}] * 60, dtype=object), pickled=True)), TRAIN + " --embeddings {d}/v.npy", ("v.npy",)),
    Case("embeddings with NaN", both(text_file(GOOD), npy(np.full((60, 3), np.nan))), TRAIN + " --embeddings {d}/v.npy --input embedding --target label", ("embedding",)),
    Case("embeddings of one number", both(text_file(GOOD), npy(np.ones(60))), TRAIN + " --embeddings {d}/v.npy", ("v.npy",)),
    Case("image that is none", images(lambda p: (p / "dark" / "x.png").write_text("no image")), "train {d}/p --out {d}/run", ("x.png",)),
    Case("image cut short", images(lambda p: (p / "dark" / "0.png").write_bytes((p / "dark" / "0.png").read_bytes()[:40])), "train {d}/p --out {d}/run", ("0.png",)),
    Case("image that would burst", images(bomb), "train {d}/p --out {d}/run", ("bomb.png", "pixels")),
    # Recipes and options.
    Case("no recipe file", text_file(GOOD), YAML, ("r.yaml", "No such file")),
    Case("recipe that makes objects", both(text_file(GOOD), text_file("a: !!python/object/apply:os.getcwd []", "r.yaml")), YAML, ("r.yaml", "tags")),
    Case("recipe that is no mapping", both(text_file(GOOD), text_file("- a", "r.yaml")), YAML, ("r.yaml", "keys")),
    Case("recipe with an unknown key", both(text_file(GOOD), text_file("optimiser: {name: sgd}", "r.yaml")), YAML, ("optimiser", "did you mean optimizer")),
    Case("recipe of another type", both(text_file(GOOD), text_file("max_epochs: soon", "r.yaml")), YAML, ("max_epochs", "soon")),
    Case("unknown loss", text_file(GOOD), TRAIN + " --loss cross_entrop", ("cross_entrop", "did you mean cross_entropy")),
    Case("unknown encoder", text_file(GOOD), TRAIN + " --encoder bert", ("encoder", "bert")),
    Case("encoder for other inputs", text_file(GOOD), TRAIN + " --encoder tabular", ("tabular", "text")),
    Case("unknown metric", text_file(GOOD), TRAIN + " --metric acuracy", ("acuracy", "did you mean accuracy")),
    Case("metric of another task", text_file(GOOD), TRAIN + " --metric rmse", ("rmse", "classes")),
    Case("no epochs", text_file(GOOD), TRAIN + " --epochs 0", ("max_epochs", "0")),
    Case("set without a value", text_file(GOOD), TRAIN + " --set max_epochs", ("--set", "KEY=VALUE")),
    Case("set below a number", text_file(GOOD), TRAIN + " --set max_epochs=3 --set max_epochs.x=1", ("--set",)),
    Case("unknown device", text_file(GOOD), TRAIN + " --device tpu", ("--device", "tpu")),
    Case("unknown precision", text_file(GOOD), TRAIN + " --precision fp8", ("precision", "fp8")),
    Case("unknown logger", text_file(GOOD), TRAIN + " --logger paper", ("logger", "paper")),
    Case("no rows to select by", text_file(GOOD), TRAIN + " --select-share 0", ("select",)),
    Case("shares beyond all", text_file(GOOD), TRAIN + " --select-share 0.6 --report-share 0.6", ("share",)),
    Case("neither file nor run", nothing, "train", ("FILE",)),
    Case("file and run", text_file(GOOD), "train {d}/t.csv --resume {d}", ("FILE", "both")),
    # Folders.
    Case("out is a file", both(text_file(GOOD), text_file("mine", "run")), TRAIN, ("out", "file")),
    Case("out is in use", both(text_file(GOOD), lambda d: ((d / "run").mkdir(), (d / "run" / "mine").write_text("x"))), TRAIN, ("out", "holds files")),
    Case("resume without a run", nothing, "train --resume {d}/none", ("run.json",)),
    Case("resume with other data", edited_run(lambda d: (d / "t.csv").write_text(NUMBERS + "1,1,x\n")), "train --resume {d}/r", ("other content",)),
    Case("resume without the data", edited_run(lambda d: (d / "t.csv").unlink()), "train --resume {d}/r", ("t.csv", "no such file")),
    Case("resume with a broken checkpoint", edited_run(lambda d: (d / "r" / "checkpoint.safetensors").write_bytes(b"\x10" * 50)), "train --resume {d}/r", ("checkpoint.safetensors",)),
    Case("resume without the averages", edited_run(checkpoint_without("averaged")), "train --resume {d}/r", ("averaged",)),
    Case("resume without the optimiser", edited_run(checkpoint_without("optimizer")), "train --resume {d}/r", ("optimizer",)),
    Case("resume with a broken request", edited_run(lambda d: (d / "r" / "run.json").write_text("{")), "train --resume {d}/r", ("run.json",)),
    # A model in use.
    Case("no model", text_file(GOOD), "predict {d} {d}/t.csv", ("model.json",)),
    Case("rows without an input", text_file("txt\na\n"), "predict {run} {d}/t.csv", ("column 'b'",)),
    Case("rows without the target", text_file("a,b\n1,2\n"), "evaluate {run} {d}/t.csv", ("label",)),
    Case("rows of an unknown class", text_file("a,b,label\n1,2,z\n"), "evaluate {run} {d}/t.csv", ("'z'", "row 1")),
    Case("output that exists", both(text_file("a,b\n1,2\n"), text_file("mine", "o.csv")), "predict {run} {d}/t.csv --out {d}/o.csv", ("--out", "exists")),
    Case("vectors that exist", both(text_file("a,b\n1,2\n"), text_file("mine", "o.npy")), "embed {run} {d}/t.csv --out {d}/o.npy", ("--out", "exists")),
    Case("a run without NaN", nothing, "explain-nan {run}", ("nonfinite.json",)),
    Case("a profile of nothing", text_file(""), "profile {d}/t.csv", ("t.csv", "empty")),
    Case("a measure of another task", text_file("a,b,label\n1,2,x\n"), "evaluate {run} {d}/t.csv --metric mae", ("mae", "classes")),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "t.csv").write_text(NUMBERS)
    from margins.training.fit import train

    train(folder / "t.csv", target="label", recipe={"max_epochs": 1}, out=folder / "r")
    return folder / "r"


def contents(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def called(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit code and what was written to standard error."""
    errors = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["margins", *arguments])
    monkeypatch.setattr(sys, "stderr", errors)
    with pytest.raises(SystemExit) as ended:
        run()
    return int(ended.value.code or 0), errors.getvalue()


def test_there_are_at_least_sixty_cases_of_different_names():
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_what_is_wrong_is_told_in_one_line_and_nothing_is_changed(
    case: Case, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    if "images" in case.command or "image" in case.name:
        pytest.importorskip("PIL", reason="pillow is not installed")
    case.files(tmp_path)
    before = contents(tmp_path) | contents(finished)
    arguments = [part.format(d=tmp_path, run=finished) for part in case.command.split()]
    code, errors = called(arguments, monkeypatch)
    told = errors.strip().splitlines()[-1] if errors.strip() else ""
    assert code == 2, errors
    assert told.startswith("margins: ")
    assert "Traceback" not in errors
    missing = [word for word in case.words if word not in told]
    assert not missing, f"{told!r} does not say {missing}"
    assert contents(tmp_path) | contents(finished) == before
    assert not (tmp_path / "run").is_dir() or (tmp_path / "run" / "mine").exists()


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "t.csv").write_text(GOOD)
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    # The super-user may write anywhere, so the system's answer is given to it here.
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != locked)
    code, errors = called(["train", str(tmp_path / "t.csv"), "--out", str(locked / "r")], monkeypatch)
    assert code == 2
    assert "not writable" in errors
    assert not list(locked.iterdir())


def test_a_disk_that_fills_up_is_told_and_the_run_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "t.csv").write_text(NUMBERS)
    real, calls = os.fsync, []

    def fill(number: int) -> None:
        calls.append(number)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", fill)
    command = [
        "train",
        str(tmp_path / "t.csv"),
        "--target",
        "label",
        "--epochs",
        "3",
        "--out",
        str(tmp_path / "r"),
    ]
    code, errors = called([*command, "--checkpoint-every", "0"], monkeypatch)
    assert code == 2
    assert "No space left on device" in errors
    assert not list((tmp_path / "r").rglob("*.partial"))
    monkeypatch.setattr(os, "fsync", real)
    monkeypatch.setattr(sys, "argv", ["margins", "train", "--resume", str(tmp_path / "r"), "--json"])
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as ended:
        run()
    assert not ended.value.code
    assert json.loads(out.getvalue())["scores"]
