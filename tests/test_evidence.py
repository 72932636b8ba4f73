"""The registry of methods and the studies: what is declared is there, what is run is judged as declared."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from margins.cards import Card, all_cards, carded
from margins.errors import MarginsError
from margins.evidence import (
    Effect,
    Study,
    add_record,
    all_methods,
    changed,
    latest,
    load_study,
    outcome_of,
    read_records,
    run_study,
    settings_to_try,
)
from margins.evidence.code import files_used
from margins.evidence.methods import ROOMS

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "studies"
NAMES = sorted(path.stem for path in STUDIES.glob("*.py") if path.stem != "run")

TOY = """
from pathlib import Path
from margins.evidence import Effect, Study
from margins.evidence.tuning import settings_to_try

def trial(arm, settings, seed):
    with Path(__file__).with_name("calls.txt").open("a") as file:
        file.write(f"{arm} {settings} {seed}\\n")
    assert len(settings_to_try({}, 1)) == 1
    return {"select": -abs(settings.get("lr", 0) - 2), "test": (arm == "new") + 0.01 * (seed % 3)}

STUDY = Study(
    name="toy", cards=("margins.losses.CompSum",), claim="c", source="s", data="d", protocol="p",
    arms={"old": {"lr": (1, 2, 3)}, "new": {}}, budget=3, trial=trial,
    effects=(Effect("new - old", lambda f: f["new"]["test"] - f["old"]["test"] + 0.001 * f["old"]["test"]),
             Effect("not worse", lambda f: f["old"]["test"] - 1, above=-0.5, reaches=0.1)),
)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A study in a repository of its own, committed."""
    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "toy.py"
    path.write_text(TOY)
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "toy")):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command], cwd=tmp_path, check=True
        )
    return path


def _calls(path: Path) -> list[str]:
    file = path.with_name("calls.txt")
    return file.read_text().splitlines() if file.exists() else []


def test_every_entry_is_one_method_and_every_card_belongs_to_one() -> None:
    methods = all_methods()
    entries = [method.entry for method in methods if method.entry is not None]
    assert len(entries) == len(set(entries)) > 15
    assert sorted(card.component for method in methods for card in method.cards) == sorted(all_cards())
    comp_sum = next(method for method in methods if method.entry == 95)
    assert "margins.losses.CompSum" in [card.component for card in comp_sum.cards]


def test_every_room_with_cards_is_asked_and_every_component_is_where_its_card_says() -> None:
    all_methods()
    for path, card in all_cards().items():
        package, _, name = path.rpartition(".")
        assert package.removeprefix("margins.") in ROOMS
        assert getattr(importlib.import_module(package), name).card is card


def test_no_card_points_at_a_missing_test() -> None:
    all_methods()
    named = sorted({test for card in all_cards().values() for test in card.tests})
    assert named, "vacuous: no card names a test"
    assert [test for test in named if not _is_there(test)] == []


def test_a_test_that_is_not_there_is_seen() -> None:
    assert _is_there("tests/test_evidence.py::test_a_test_that_is_not_there_is_seen")
    assert not _is_there("tests/test_evidence.py::test_of_nothing")
    assert not _is_there("tests/test_of_nothing.py::test_of_nothing")


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    path = ROOT / file
    if not path.exists():
        return False
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return name in {node.name for node in found}


def test_cards_and_studies_name_each_other() -> None:
    all_methods()
    by_card = {card.component: card.study for card in all_cards().values() if card.study is not None}
    by_study = {component: name for name in NAMES for component in load_study(STUDIES / f"{name}.py").cards}
    assert by_card, "vacuous: no card names a study"
    assert set(by_card.values()) <= set(NAMES)
    assert set(by_study) <= set(all_cards())
    assert {c: s for c, s in by_card.items() if s not in _studies_of(c)} == {}


def _studies_of(component: str) -> list[str]:
    return [name for name in NAMES if component in load_study(STUDIES / f"{name}.py").cards]


def test_every_study_has_a_recorded_outcome_and_says_what_it_claims() -> None:
    records = latest(read_records(STUDIES / "results.jsonl"))
    remarks = tomllib.loads((STUDIES / "remarks.toml").read_text(encoding="utf-8"))
    assert set(NAMES) - set(records) == set(), "declared and never recorded: `make studies`"
    assert set(remarks) <= set(records), "a remark on what was not recorded"
    for name in NAMES:
        study, record = load_study(STUDIES / f"{name}.py"), records[name]
        assert all((study.claim, study.source, study.data, study.protocol)), name
        assert record.num_seeds >= 5
        if record.outcome not in ("shown", "not run"):
            assert remarks.get(name), f"{name}: {record.outcome}, and nothing says what was checked then"
        if record.outcome != "not run":
            assert [effect.name for effect in record.effects] == [effect.name for effect in study.effects]


def test_a_card_can_hang_on_a_function_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("margins.cards._REGISTRY", {})

    def measure() -> None: ...

    card = Card(name="M", summary="s", paper="p", kind="diagnostic", stations=(), targets=())
    assert carded(card)(measure) is measure
    assert list(all_cards()) == [f"{'.'.join(__name__.split('.')[:2])}.measure"]
    with pytest.raises(MarginsError, match="second one"):
        carded(card)(measure)


def test_a_grid_is_tried_whole_or_by_a_draw_that_is_always_the_same() -> None:
    grid = {"a": tuple(range(5)), "b": tuple(range(5))}
    drawn = settings_to_try(grid, 6)
    assert drawn == settings_to_try(grid, 6)
    assert len({tuple(point.values()) for point in drawn}) == 6
    assert len(settings_to_try(grid, 25)) == 25
    assert settings_to_try({}, 3) == [{}]


@pytest.mark.parametrize(
    ("values", "above", "outcome"),
    [
        ([0.1, 0.12, 0.09, 0.11, 0.1], 0.0, "shown"),
        ([0.1, -0.12, 0.09, -0.11, 0.1], 0.0, "not shown"),
        ([-0.1, -0.12, -0.09, -0.11, -0.1], 0.0, "opposite"),
        ([-0.002, 0.001, -0.001, 0.0, -0.001], -0.01, "shown"),
        ([3.0, 3.0, 3.0, 3.0, 3.0], 0.0, "shown"),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0.0, "not shown"),
    ],
)
def test_an_outcome_is_where_the_interval_lies(values: list[float], above: float, outcome: str) -> None:
    found, low, high = outcome_of(values, above, test_to_train=0.0)
    assert found == outcome
    assert low <= sum(values) / len(values) <= high


def test_dependent_scores_widen_the_interval() -> None:
    values = [0.02, 0.05, 0.01, 0.03, 0.04]
    assert outcome_of(values, 0.0, test_to_train=0.0)[0] == "shown"
    assert outcome_of(values, 0.0, test_to_train=1.0)[0] == "not shown"


def test_a_study_chooses_on_other_seeds_and_judges_the_reported_ones(toy: Path, tmp_path: Path) -> None:
    record = run_study(toy, root=tmp_path)
    assert record.settings == {"old": {"lr": 2}, "new": {}}
    assert record.outcome == "shown"
    assert [effect.outcome for effect in record.effects] == ["shown", "opposite"]
    assert record.effects[1].reached is False
    assert record.effects[0].values[0] == pytest.approx(1.0)
    calls = [line.rpartition(" ")[2] for line in _calls(toy)]
    assert sorted(map(int, calls)) == sorted([*[100, 101] * 3, *[0, 1, 2, 3, 4] * 2])
    assert len(record.commit) == 12
    assert set(record.code) == {"studies/toy.py"}, "files of another root are not this repository's"


def test_a_study_that_was_stopped_goes_on_and_changed_code_runs_again(toy: Path, tmp_path: Path) -> None:
    run_study(toy, root=tmp_path)
    first = len(_calls(toy))
    run_study(toy, root=tmp_path)
    assert len(_calls(toy)) == first > 10
    kept = toy.parent / ".kept" / "toy.jsonl"
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:-3]) + lines[-3][:20])
    run_study(toy, root=tmp_path)
    assert len(_calls(toy)) == first + 3
    toy.write_text(TOY.replace("0.01 * (seed", "0.02 * (seed"))
    run_study(toy, root=tmp_path, develop=True)
    assert len(_calls(toy)) == 2 * first + 3


def test_several_processes_give_the_same_row(toy: Path, tmp_path: Path) -> None:
    alone = run_study(toy, root=tmp_path)
    (toy.parent / ".kept" / "toy.jsonl").unlink()
    together = run_study(toy, root=tmp_path, num_jobs=2)
    assert together.effects == alone.effects
    assert together.figures == alone.figures


def test_nothing_is_recorded_of_what_was_not_committed(toy: Path, tmp_path: Path) -> None:
    toy.write_text(TOY + "\n")
    with pytest.raises(MarginsError, match="committed before the run"):
        run_study(toy, root=tmp_path)
    assert _calls(toy) == []
    assert run_study(toy, root=tmp_path, develop=True).commit == ""


def test_development_uses_seeds_of_its_own(toy: Path, tmp_path: Path) -> None:
    run_study(toy, root=tmp_path, develop=True)
    assert min(int(line.rpartition(" ")[2]) for line in _calls(toy)) == 1000


def test_what_is_missing_is_told_and_nothing_runs(toy: Path, tmp_path: Path) -> None:
    toy.write_text(TOY.replace("budget=3", 'budget=3, missing=lambda: "no such data"'))
    record = run_study(toy, root=tmp_path, develop=True)
    assert (record.outcome, record.missing, record.effects) == ("not run", "no such data", [])
    assert _calls(toy) == []


def test_a_figure_that_is_not_finite_is_refused_with_its_place(toy: Path, tmp_path: Path) -> None:
    toy.write_text(TOY.replace('"test": (', '"test": float("nan") * ('))
    with pytest.raises(MarginsError, match=r"toy: old with {'lr': 1}, seed 1500.*test = nan"):
        run_study(toy, root=tmp_path, develop=True)


def test_a_file_that_declares_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("STUDY = 3\n")
    with pytest.raises(MarginsError, match="STUDY"):
        load_study(tmp_path / "other.py")
    with pytest.raises(MarginsError, match="name of a file"):
        load_study(tmp_path / "none.py")


@pytest.mark.parametrize(
    "wrong", [{"num_seeds": 4}, {"budget": 0}, {"effects": ()}, {"arms": {}}, {"cards": ()}]
)
def test_a_study_that_cannot_be_judged_is_refused(wrong: dict[str, object]) -> None:
    given = {
        "name": "x", "cards": ("a",), "claim": "", "source": "", "data": "", "protocol": "",
        "arms": {"a": {}}, "trial": lambda *_: {}, "effects": (Effect("e", lambda _: 0.0),),
    }  # fmt: skip
    Study(**given)
    with pytest.raises(MarginsError):
        Study(**{**given, **wrong})


def test_the_files_that_took_part_are_found_and_their_changes_seen(tmp_path: Path) -> None:
    (tmp_path / "used_here.py").write_text("def f():\n    return 3\n")
    (tmp_path / "unused_here.py").write_text("def g():\n    return 4\n")
    sys.path.insert(0, str(tmp_path))
    try:
        used, unused = (importlib.import_module(name) for name in ("used_here", "unused_here"))
    finally:
        sys.path.remove(str(tmp_path))
    result, files = files_used(used.f, [tmp_path])
    assert (result, unused.g()) == (3, 4)
    assert [path.name for path in files] == ["used_here.py"]
    from margins.evidence.code import digests

    code = digests(files, tmp_path)
    assert changed(code, tmp_path) == []
    (tmp_path / "used_here.py").write_text("def f():\n    return 5\n")
    assert changed(code, tmp_path) == ["used_here.py"]
    (tmp_path / "used_here.py").unlink()
    assert changed(code, tmp_path) == ["used_here.py"]


def test_rows_are_added_and_read_back_and_a_broken_one_is_told(toy: Path, tmp_path: Path) -> None:
    record, file = run_study(toy, root=tmp_path), tmp_path / "results.jsonl"
    assert read_records(file) == []
    add_record(file, record)
    add_record(file, record.model_copy(update={"seconds": 7.0}))
    assert [row.seconds for row in read_records(file)] == [record.seconds, 7.0]
    assert latest(read_records(file))["toy"].seconds == 7.0
    with file.open("a") as opened:
        opened.write(json.dumps({"study": "toy"}) + "\n")
    with pytest.raises(MarginsError, match="line 3"):
        read_records(file)


def test_the_runner_knows_what_is_due(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "HERE", toy.parent)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.jsonl")
    assert run.due(run.all_studies()) == ["toy"]
    assert run.main(["toy"]) == 0
    assert run.due(run.all_studies()) == []
    toy.write_text(TOY + "# changed\n")
    assert run.due(run.all_studies()) == ["toy"]
    assert run.main([]) == 2, "not committed"
    assert run.main(["--develop"]) == 0
    assert len(read_records(tmp_path / "results.jsonl")) == 1
    with pytest.raises(SystemExit):
        run.main(["tyo"])
