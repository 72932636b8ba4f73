"""The records of benchmarks and the page made from them. Nothing here depends on how long anything takes."""

from __future__ import annotations

import csv
import doctest
import importlib
import math
import re
import sys
from dataclasses import asdict, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parent.parent
PEAKS = {"ours_peak_mib": 15.0, "peer_peak_mib": 60.0, "gradients_mib": 10.0}
FOLDERS = (ROOT / "benchmarks", ROOT / "tools" / "docs")


def loaded(name: str) -> ModuleType:
    """A module of benchmarks/ or tools/docs/, which are run and not installed."""
    sys.path[:0] = [str(folder) for folder in FOLDERS]
    try:
        return importlib.import_module(name)
    finally:
        del sys.path[: len(FOLDERS)]


recording, limits, speed, contest = (loaded(name) for name in ("recording", "limits", "speed", "contest"))


def row(**known: Any) -> Any:
    """A row with all that a row needs."""
    times = dict.fromkeys(("ours_p20", "ours_p50", "ours_p80", "peer_p20", "peer_p50", "peer_p80"), 10.0)
    return recording.Row(
        **{"name": "a", "size": "s", "peer": "p", "runs": 7, "ratio_p50": 1.0, **times, **known}
    )


def test_every_recorded_row_has_the_columns_of_a_row_and_no_others():
    with (ROOT / "benchmarks" / "results.csv").open(newline="") as file:
        reader = csv.DictReader(file, restval=None)
        rows = list(reader)
    known = {"commit", "date", "device", "versions", *(f.name for f in fields(recording.Row))}
    assert len(rows) > 10
    assert set(reader.fieldnames or []) <= known
    assert [found for found in rows if None in found or None in found.values()] == []
    assert {"name", "size", "peer", "runs", "ours_p50"} <= {
        k for found in rows for k, v in found.items() if v
    }


@pytest.mark.parametrize(
    ("known", "holds"),
    [
        ({}, True),
        ({"limit": 1.0, "limit_of": "ratio"}, True),
        ({"limit": 0.9, "limit_of": "ratio"}, False),
        ({"limit": 10.0, "limit_of": "ms"}, True),
        ({"limit": 9.0, "limit_of": "ms"}, False),
        ({"limit": 0.5, "limit_of": "ratio", "ratio_p50": None, "peer_p50": None}, True),
        ({"memory_limit": 5.0, "memory_limit_of": "MiB", **PEAKS}, True),
        ({"memory_limit": 4.0, "memory_limit_of": "MiB", **PEAKS}, False),
        ({"memory_limit": 0.1, "memory_limit_of": "ratio", **PEAKS}, True),
        ({"memory_limit": 0.09, "memory_limit_of": "ratio", **PEAKS}, False),
    ],
)  # fmt: skip
def test_a_claim_is_broken_just_where_the_measurement_is_beyond_its_limit(known: dict[str, Any], holds: bool):
    assert row(**known).holds is holds
    assert ("BROKEN" in row(**known).told()) is not holds


def test_a_new_column_leaves_the_rows_that_are_there_as_they_are(tmp_path: Path):
    path = tmp_path / "results.csv"
    path.write_text('name,size\na,"b, c"\n')
    recording.append(path, [{"name": "d", "note": "e"}], ["name", "note"])
    recording.append(path, [{"name": "f"}], ["name"])
    assert path.read_text() == 'name,size,note\na,"b, c",\nd,,e\nf,,\n'


def test_records_go_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BENCHMARK_RESULTS", str(tmp_path / "trial.csv"))
    before = (ROOT / "benchmarks" / "results.csv").read_bytes()
    recording.record([row(note="tried")])
    assert (ROOT / "benchmarks" / "results.csv").read_bytes() == before
    (found,) = csv.DictReader((tmp_path / "trial.csv").read_text().splitlines())
    assert found["note"] == "tried"
    assert found["commit"]


class Products(TorchDispatchMode):
    """Counts the operations of matrix products, in place and otherwise, and refuses all other arithmetic."""

    num_operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name in {"mm", "addmm_", "permute", "split", "slice", "view"}, name
        if name in {"mm", "addmm_"}:
            left, right = args[-2:]
            self.num_operations += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("num_rows", "num_columns"), [(7, 5), (2500, 1500), (100, 30_000)])
def test_the_limit_is_three_products_and_no_more(num_rows: int, num_columns: int):
    torch.manual_seed(0)
    x, w = torch.randn(num_rows, 3), torch.randn(num_columns, 3)
    run = limits.three_products(x, w)
    with Products() as products:
        run()
    assert products.num_operations == 3 * 2 * num_rows * num_columns * 3


def test_a_way_that_gives_something_else_is_seen_unless_it_says_why():
    def between(differs: str, found: list[float]) -> None:
        ways = {"margins": contest.Way(make=list), "p": contest.Way(make=list, differs=differs)}
        one = contest.Contest(
            name="a", size="s", inputs=list, small=list, num_learned=1, limit=None, ways=ways
        )
        measured = {"margins": contest.Measured(found=[2.0, 1.0]), "p": contest.Measured(found=found)}
        contest.check_agreement(one, measured)

    between("", [2.0, 1.0001])
    between("by definition", [3.0, 1.0])
    for found in ([2.1, 1.0], [2.0, 1.1]):
        with pytest.raises(contest.ContestError, match="p gives"):
            between("", found)


def test_a_way_is_measured_with_its_value_and_the_norm_of_its_gradient():
    x = torch.tensor([3.0, 4.0])
    ways = {"margins": contest.Way(make=lambda: lambda x: 0.5 * (x * x).sum(), alone=2)}
    one = contest.Contest(
        name="a", size="s", inputs=lambda: [x.clone()], small=lambda: [x.clone()], num_learned=1, limit=None,
        ways=ways,
    )  # fmt: skip
    measured = contest.alone(one, "margins")
    assert measured.found == pytest.approx([12.5, 5.0])
    assert len(measured.times) == 2
    assert len(contest.in_turns(one, ["margins"])["margins"].times) == one.rounds


def made_up(path: Path, rows: list[tuple[str, Any]]) -> None:
    """A file of rows, each with its date."""
    where = {"commit": "abc", "device": "made-up machine", "versions": "python 3"}
    found = [{**where, "date": date, **asdict(one)} for date, one in rows]
    recording.append(path, found, list(found[0]))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up file: a case measured twice, a peer that failed, a rate."""
    path = tmp_path / "results.csv"
    monkeypatch.setenv("BENCHMARK_RESULTS", str(path))
    within = {"machine_limit_ms": 1.0, "ours_times_limit": 10.0, "ours_peak_mib": 5.0, "peer_peak_mib": 9.0}
    failed = {"peer_p20": None, "peer_p50": None, "peer_p80": None, "ratio_p50": None}
    made_up(path, [
        ("2026-01-01", row(name="slow & <old>", peer="gone", **within, peer_times_limit=2.0)),
        ("2026-01-02", row(name="slow & <old>", peer="tenfold", **within, peer_times_limit=100.0, limit=0.5,
                           limit_of="ratio", memory_limit=50.0, memory_limit_of="MiB")),
        ("2026-01-02", row(name="slow & <old>", peer="big", **within, **failed, note="out of memory: 9 GiB")),
        ("2026-01-02", row(name="no limit")),
        ("2026-01-02", row(name="machine", size="copy", peer="", rate=42.0, rate_of="GB/s")),
    ])  # fmt: skip
    return path


@pytest.mark.usefixtures("results")
def test_the_page_shows_the_last_measurement_of_each_case():
    text = speed.drawn() + speed.tables()
    for wanted in (
        "slow & <old>",
        "no limit",
        "tenfold",
        "out of memory",
        "**broken**",
        "holds",
        "made-up machine",
    ):
        assert wanted in speed.tables(), wanted
    assert "gone" not in text
    assert "no limit" not in speed.drawn()
    assert "42 GB/s" in speed.machine()
    assert "copy" not in text
    assert "unmeasured" in speed.on_cuda()


def test_the_page_can_be_made_from_the_columns_of_the_first_benchmarks(results: Path):
    old = [f.name for f in fields(recording.Row)][:15]
    results.unlink()
    found = {"commit": "abc", "date": "2026", "device": "d", "versions": "v"}
    recording.append(results, [{**found, **{name: asdict(row())[name] for name in old}}], [*found, *old])
    assert "10 ms" in speed.tables()
    assert "No case" in speed.drawn()
    assert "Not measured" in speed.machine()


def test_a_card_of_nvidia_is_no_longer_unmeasured(results: Path):
    results.write_text(results.read_text().replace("made-up machine", "NVIDIA H100"))
    assert "unmeasured" not in speed.on_cuda()
    assert "NVIDIA H100" in speed.on_cuda()


@pytest.mark.usefixtures("results")
def test_a_bar_is_as_long_as_the_logarithm_of_its_value():
    drawn = speed.drawn()
    bars = dict(re.findall(r'<rect [^>]*width="([\d.]+)"[^>]*class="(\w+)"', drawn))
    lengths = {kind: float(width) for width, kind in bars.items()}
    assert set(lengths) == {"ours", "peer"}, "the peer that failed has no bar"
    assert lengths["peer"] / lengths["ours"] == pytest.approx(math.log(100) / math.log(10), rel=1e-2)
    assert "slow &amp; &lt;old&gt;" in drawn
    assert re.search(r">out of memory<", drawn)
    assert "script" not in drawn


def test_bars_below_the_limit_end_at_it():
    drawn = speed.drawing({"c": [("margins", 0.1, "under"), ("p", 10.0, "over")]})
    (low, high) = [
        (float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    ]
    assert low[0] + low[1] == pytest.approx(high[0], abs=0.2)
    assert low[1] == pytest.approx(high[1], abs=0.2)


@pytest.mark.parametrize("values", [[], [1.0], [0.03, 5.0], [2500.0], [0.5]])
def test_the_axis_holds_the_limit_and_every_value(values: list[float]):
    low, high = speed.axis(values)
    assert low < high
    assert all(10.0**low <= value <= 10.0**high for value in [1.0, *values])


def test_the_examples_of_the_page_hold():
    outcome = doctest.testmod(speed)
    assert outcome.attempted > 3
    assert outcome.failed == 0
