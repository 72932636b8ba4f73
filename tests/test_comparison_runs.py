"""A comparison as it runs: killed and gone on with, in several processes, with searches and failures."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import comparison_job
import margins
from made_up_comparisons import QUICK, bench_of, blob_columns, design_of, quick
from margins import load
from margins.compare import Candidate, ComparisonResult, Roles, TrialDone, compare, planning
from margins.compare.execution import Done, InProcess
from margins.compare.kept.folder import RESULTS, STORE
from margins.compare.kept.store import RunStore
from margins.compare.planning import digest_of
from margins.compare.problem.folding import Spoiling
from margins.compare.trials.scheduling import Memory, Schedule
from margins.compare.trials.searching import judged_in
from margins.data import ReportRows, read_frame
from margins.diagnose import collapse_of
from margins.errors import MarginsError

JOB = Path(comparison_job.__file__)


def table_of(result: ComparisonResult) -> dict[str, Any]:
    """All of a result but times, memory and where its model lies."""
    plain = dataclasses.asdict(result)
    for key in ("started", "seconds"):
        del plain["description"][key]
    for recipe in plain["recipes"]:
        del recipe["seconds"], recipe["peak_bytes"]
    plain["left"].pop("model")
    return plain


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    return table_of(comparison_job.run(None))


def killed_after(folder: Path, num_trials: int, on: str) -> int:
    """Starts the job, kills it with -9 when so many trials are done; gives how many had been stored."""
    sources = [JOB.parent, Path(margins.__file__).parents[1]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, sources))}
    with subprocess.Popen(
        [sys.executable, str(JOB), str(folder), on], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[0] == str(num_trials):
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    with RunStore.read(folder / STORE) as store:
        return store.num_trials


@pytest.mark.parametrize(("on", "kills"), [("local", (3, 25)), ("processes:2", (15,))])
def test_killed_with_9_and_run_again_the_table_is_that_of_an_undisturbed_run(
    undisturbed: dict[str, Any], tmp_path: Path, on: str, kills: tuple[int, ...]
):
    known = 0
    for num_trials in kills:
        stored = killed_after(tmp_path / "run", num_trials, on)
        assert stored >= num_trials - 2 >= known  # the pilot's trials count twice where they are judged too
        known = stored
    told: list[TrialDone] = []
    result = comparison_job.run(str(tmp_path / "run"), on, on_trial_done=told.append)
    assert table_of(result) == undisturbed
    assert max(trial.from_store for trial in told) >= known
    assert json.loads((tmp_path / "run" / RESULTS).read_text())["answer"] == result.answer


def test_the_same_command_again_trains_nothing_and_opens_no_report_rows(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = comparison_job.run(str(tmp_path))
    told: list[TrialDone] = []
    said: list[str] = []
    again = comparison_job.run(str(tmp_path), on_trial_done=told.append, tell=said.append)
    assert again == first
    assert told == []
    assert said[-1] == "These results were here already; nothing was trained again."
    # Without its results, but with its trials, a run is judged anew, and the second opening is counted.
    (tmp_path / RESULTS).unlink()
    judged_again = comparison_job.run(str(tmp_path), on_trial_done=told.append)
    assert {t.done - t.from_store for t in told} == {0}
    assert (first.left.num_openings, judged_again.left.num_openings) == (1, 2)
    expected = {**undisturbed, "left": {**undisturbed["left"], "num_openings": 2}}
    assert table_of(judged_again) == expected
    with RunStore.read(tmp_path / STORE) as store:
        assert len(store.openings()) == 2


def test_trials_of_other_code_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick(out=tmp_path, candidates=["focal"])
    (tmp_path / RESULTS).unlink()
    told: list[TrialDone] = []
    quick(out=tmp_path, candidates=["focal"], on_trial_done=told.append)
    assert told[-1].from_store == 6
    monkeypatch.setattr(planning, "code_version", lambda: "another")
    again = quick(out=tmp_path, candidates=["focal"], on_trial_done=told.append)
    assert told[-1].from_store == 0  # though results of the other code lie there
    assert not again.looked


def test_the_order_in_which_trials_end_changes_nothing(undisturbed: dict[str, Any], monkeypatch):
    class Shuffled(InProcess):
        """Does what is pending in a random order, and gives some of it late."""

        slots = 5

        def __init__(self, work: Any) -> None:
            super().__init__(work)
            self._draws, self._late = random.Random(3), list[Done]()

        @property
        def pending(self) -> int:
            return len(self._tasks) + len(self._late)

        def wait(self) -> list[Done]:
            self._draws.shuffle(self._tasks)
            while self._tasks:
                self._late += super().wait()
            self._draws.shuffle(self._late)
            given = self._late[: self._draws.randint(1, len(self._late))]
            self._late = self._late[len(given) :]
            return given

    monkeypatch.setattr("margins.compare.run.executor_for", lambda _, work: Shuffled(work))
    assert table_of(comparison_job.run(None)) == undisturbed


def test_more_repeats_search_the_first_ones_as_before():
    once, twice = (design_of(budget="3", num_repeats=num) for num in (1, 2))
    for fold in range(3):
        strands = [judged_in(design, fold, design.candidates[1]) for design in (once, twice)]
        first, second = ([trial.key for trial in next(strand)] for strand in strands)
        assert first == second
        assert len(set(first)) == 3


def test_a_model_that_cannot_be_left_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(*_: Any, **__: Any) -> Any:
        raise MarginsError("loss", expected="a finite number", received="nan")

    monkeypatch.setattr("margins.compare.leaving.train_problem", failing)
    result = quick(out=tmp_path, candidates=["focal"])
    assert result.left is None
    told = "No model is left: Cross-entropy: loss: expected a finite number"
    assert [warning for warning in result.warnings if warning.startswith(told)]
    assert ComparisonResult.load(tmp_path / RESULTS) == result


def test_that_results_were_shown_is_remembered_before_they_can_be(tmp_path: Path, monkeypatch):
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ComparisonResult, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        quick(out=tmp_path, candidates=["focal"])
    with RunStore.read(tmp_path / STORE) as store:
        assert len(store.looks()) == 1


def test_a_search_spends_the_same_on_every_recipe_and_goes_on_with_the_best_on_select_rows(tmp_path: Path):
    design = design_of(budget="6", training={"max_epochs": 6, "patience": None}, num_folds=2)
    with InProcess(bench_of(design)) as executor:
        store = Memory()
        schedule = Schedule(store, executor, [roles.name for roles in design.places])
        found = schedule.run({c.name: (judged_in(design, 0, c), 9) for c in design.candidates})
    rows = len(design.folds[0].train)
    for judged in found.values():
        assert [(t.number, t.epochs) for t in judged.tried[:6]] == [(n, 2) for n in range(6)]
        assert judged.row_visits == (6 * 2 + 2 * 6) * rows
        best = sorted(judged.tried[:6], key=lambda t: (-t.score, t.number))[:2]
        assert {t.number for t in judged.tried[6:]} == {t.number for t in best}
        assert {t.epochs for t in judged.tried[6:]} == {6}
        last = max(judged.tried[6:], key=lambda t: (t.score, -t.number))
        assert judged.values == last.values
        assert len(judged.outcomes) == 1
    assert found["focal"].tried[1].values.keys() == {
        "objective.settings.gamma", "optimizer.learning_rate", "optimizer.weight_decay"
    }  # fmt: skip
    kinds = Counter(trial.spec["kind"] for trial in store._trials.values())
    assert kinds == {"search": 24, "outer": 3}
    assert all(("test" in t.value) == (t.spec["kind"] == "outer") for t in store._trials.values())


def test_a_search_that_helps_is_found_and_what_it_found_is_what_is_judged():
    # The default does not learn; all other rates of the space do.
    rates = {"kind": "span", "low": 100, "high": 1000, "log": True, "times_default": True}
    slow = Candidate(
        name="slow", title="Slow", changes={"optimizer": {"learning_rate": 1e-5}},
        space={"optimizer.learning_rate": rates},
    )  # fmt: skip
    plain, searched = (quick(candidates=[slow], budget=budget) for budget in ("quick", "3"))
    means = [next(r.mean for r in result.recipes if r.name == "slow") for result in (plain, searched)]
    assert means[1] > means[0] + 0.15
    (found,) = [r for r in searched.recipes if r.name == "slow"]
    assert len(found.found) == 3
    assert all(100 <= values["optimizer.learning_rate"] <= 1000 for values in found.found)
    assert found.row_visits > 0


BROKEN = Candidate(name="broken", title="A broken one", changes={"optimizer": {"learning_rate": 1e30}})


def test_a_recipe_that_fails_in_every_fold_is_told_with_its_error_and_the_rest_go_on():
    result = quick(candidates=["focal", BROKEN])
    (failed,) = result.failed
    assert (failed.name, failed.num_failed, failed.num_folds) == ("broken", 3, 3)
    assert "finite" in failed.error
    assert [r.name for r in result.recipes if r.name == "broken"] == []
    assert {r.name for r in result.recipes} == {"cross_entropy", "focal"}


def test_a_setting_that_fails_is_passed_over_and_a_baseline_that_fails_is_an_error(monkeypatch):
    with pytest.raises(MarginsError, match="a baseline that can be trained"):
        quick(training={**QUICK, "optimizer": {"learning_rate": 1e30}})
    wild = Candidate(
        name="wild", title="Wild",
        space={"optimizer.learning_rate": {"kind": "span", "low": 1e29, "high": 1e30, "times_default": True}},
    )  # fmt: skip
    result = quick(candidates=[wild], budget="3")
    assert result.failed == []
    (found,) = [r.found for r in result.recipes if r.name == "wild"]
    assert found == [{}] * 3  # only the defaults, which every search tries first, can be trained


def strong(num: int = 90) -> Any:
    """Data on which a recipe is clearly better than another."""
    return read_frame(blob_columns(num, shift=4.0))


WORSE = {"candidates": [Candidate(name="lame", title="Lame", changes={"optimizer": {"learning_rate": 1e-7}})]}


def test_repeats_added_after_looking_are_remembered_and_withdraw_better(tmp_path: Path):
    asked = {"roles": Roles(target="y"), "out": tmp_path, **WORSE, "training": {"max_epochs": 6}}
    first = quick(strong(), **asked)
    assert first.difference("cross_entropy", "lame").verdict == "better"
    more = quick(strong(), **asked, num_repeats=2)
    assert more.looked
    assert more.difference("cross_entropy", "lame").verdict == "undecided"
    assert "after results had been seen" in more.answer
    # The first results are kept, and asking for them again is no new look.
    assert quick(strong(), **asked) == first
    (other,) = [path.name for path in tmp_path.glob("results-*.json")]
    names = {path.name for path in tmp_path.iterdir() if "trials" not in path.name}
    assert names == {"model", f"model-{other[8:16]}", "refits", "results.json", other}
    assert ComparisonResult.load(tmp_path / "results.json") == first
    assert ComparisonResult.load(tmp_path / other) == more
    another = quick(strong(), **asked, seed=1)
    assert another.looked  # other draws of the same question are a look too
    fresh = quick(strong(), **{**asked, "out": None}, num_repeats=2)
    assert not fresh.looked
    assert fresh.difference("cross_entropy", "lame").verdict == "better"


def test_report_rows_are_seen_by_nothing_and_opened_once_for_winner_and_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    good = Candidate(name="good", title="Good", changes={"optimizer": {"learning_rate": 1e-2}})
    frame = strong(150)
    slow = {"max_epochs": 8, "patience": 8, "optimizer": {"learning_rate": 1e-7}}
    seen: set[int] = set()
    real = ReportRows.open
    monkeypatch.setattr(ReportRows, "open", lambda self: (seen.add(len(self)), real(self))[1])
    result = quick(
        frame, roles=Roles(target="y"), candidates=[good], training=slow, report_share=0.2, out=tmp_path,
        metric="macro_f1", num_folds=5,
    )  # fmt: skip
    design = design_of(frame, "macro_f1", roles=Roles(target="y"), report_share=0.2)
    report = set(design.rows.report.tolist())
    assert len(report) == 30
    for roles in design.folds:
        assert not report & {*roles.train.tolist(), *roles.select.tolist(), *roles.test.tolist()}
    assert not report & {*design.last.train.tolist(), *design.last.select.tolist()}
    left = result.left
    assert left.recipe == "good"
    assert set(left.scores) == {"good", "cross_entropy"}
    assert left.num_openings == 1
    assert left.low <= left.difference <= left.high
    assert left.difference == pytest.approx(left.scores["good"] - left.scores["cross_entropy"])
    model = load(tmp_path / left.model)
    assert model.recipe.optimizer.learning_rate == pytest.approx(1e-2)
    predicted = model.predict(frame)
    truth = np.array(frame.table["y"].to_list())[design.rows.report]
    assert (predicted[design.rows.report] == truth).mean() > 0.8
    rows = frame.take(torch.from_numpy(design.last.train))
    found = collapse_of(model, rows, rows.table["y"].to_list())
    layer = left.last_layer
    assert (layer.spread, layer.disagreement) == pytest.approx((found.nc1, found.nc4))
    lengths = dict(zip(model.classes, found.weight_norms, strict=True))
    assert lengths[layer.shortest] == min(lengths.values()) < max(lengths.values())
    assert layer.length == pytest.approx(min(lengths.values()) / max(lengths.values()))
    assert ComparisonResult.load(tmp_path / RESULTS).left == left


def test_the_last_layer_is_that_of_rows_as_training_saw_them():
    moved = Spoiling(lambda rows, classes, _: (rows, (classes + 1) % 3), "every class becomes the next")
    training = {"max_epochs": 8, "patience": 8, "optimizer": {"learning_rate": 1e-2}}
    result = quick(
        strong(), roles=Roles(target="y"), candidates=["focal"], training=training, spoiling=moved,
        report_share=0.2, num_folds=2,
    )  # fmt: skip
    assert result.left.last_layer.disagreement < 0.3, "a head of moved classes agrees with their means"


def test_where_nothing_beats_the_baseline_it_is_what_is_left(tmp_path: Path):
    result = quick(strong(), roles=Roles(target="y"), out=tmp_path, report_share=0.2, **WORSE)
    assert result.left.recipe == "cross_entropy"
    assert result.left.difference is None
    assert load(tmp_path / "model").recipe.objective.loss == "cross_entropy"


def test_a_folder_of_other_data_or_other_files_is_refused_and_nothing_in_it_is_lost(tmp_path: Path):
    quick(out=tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    other = read_frame(blob_columns(90, seed=1))
    with pytest.raises(MarginsError, match="one that exists with other data"):
        quick(other, roles=Roles(target="y"), out=tmp_path / "run")
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert after.keys() == before.keys()
    assert {k: v for k, v in after.items() if "lock" not in k} == {
        k: v for k, v in before.items() if "lock" not in k
    }
    forced = quick(other, roles=Roles(target="y"), out=tmp_path / "run", force=True)
    assert forced.description.fingerprint == other.fingerprint
    assert (tmp_path / "run" / "trials.db.1.old").is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(MarginsError, match="which holds files already"):
        quick(out=tmp_path / "full")
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def test_a_folder_in_use_is_refused(tmp_path: Path):
    design = design_of()
    with (
        RunStore.open(tmp_path / STORE, design=design.to_data()),
        pytest.raises(MarginsError, match="process"),
    ):
        quick(out=tmp_path)


def test_the_stores_of_two_machines_make_one_table(tmp_path: Path):
    whole = quick(out=tmp_path / "whole", num_repeats=2)
    quick(out=tmp_path / "a")  # the first repeat is part of both
    with RunStore.read(tmp_path / "whole" / STORE) as store:
        num_whole = store.num_trials
    design = design_of(num_repeats=2)
    with RunStore.open(tmp_path / "b" / STORE, design=design.to_data()) as store:
        merged = store.merge(tmp_path / "whole" / STORE)
        assert merged.added == num_whole
        again = store.merge(tmp_path / "a" / STORE)
        assert (again.added, again.different) == (0, 0)
    told: list[TrialDone] = []
    result = quick(out=tmp_path / "b", num_repeats=2, on_trial_done=told.append)
    assert told[-1].from_store == told[-1].done
    # Results were shown in the other folders, so here they count as looked at.
    assert [r.fold_scores for r in result.recipes] == [r.fold_scores for r in whole.recipes]


def test_the_preview_comes_before_any_recipe_is_judged_and_names_what_folds_cannot_show():
    events: list[str] = []
    frame = read_frame(blob_columns(60))
    result = compare(
        frame, "accuracy", roles=Roles(target="y"), candidates=["focal", "mixup"], num_folds=2,
        training=QUICK, tell=events.append,
        on_trial_done=lambda trial: events.append(f"trained {trial.recipe}"),
    )  # fmt: skip
    sentence = next(place for place, event in enumerate(events) if "found four times in five" in event)
    assert set(events[sentence - 4 : sentence]) == {"trained cross_entropy"}
    assert not any(event == "trained focal" for event in events[:sentence])
    assert any(event.startswith("These are too few folds to expect") for event in events[sentence:])
    preview = result.preview
    assert 0 < preview.low <= preview.high
    assert preview.sentences == [e for e in events if e in preview.sentences]


def test_label_sets_values_and_matches_are_compared_too(tmp_path: Path):
    draws = np.random.default_rng(0)
    x = draws.normal(size=(200, 3))
    plain = {name: x[:, k].copy() for k, name in enumerate("abc")}
    noisy = x + draws.normal(size=x.shape) / 2
    tags = ["|".join(n for n, v in zip("pqr", row, strict=True) if v > 1) for row in noisy]
    sets = quick(
        read_frame({**plain, "tags": tags}), "macro_f1", candidates=None, report_share=0.2, out=tmp_path,
        roles=Roles(target="tags", target_kind="label_set", inputs=["a", "b", "c"]),
        training={"max_epochs": 6},
    )  # fmt: skip
    assert sets.baseline == "binary_cross_entropy"
    names = {r.name for r in sets.recipes}
    assert {"binary_cross_entropy", "binary_cross_entropy_tuned", "labels_adjusted"} <= names
    assert sets.difference("binary_cross_entropy_tuned", "binary_cross_entropy").mean != 0
    adjusted = next(r for r in sets.recipes if r.name == "labels_adjusted")
    assert "as training sees it (logit_adjustment 1)" in adjusted.prior[0]
    assert load(tmp_path / "model").predict(read_frame(plain))
    wide = Candidate(name="wide", title="Wide", changes={"encoder": {"width": 32}}, tasks=("values",))
    values = quick(
        read_frame({**plain, "y": x.sum(1)}), "rmse", roles=Roles(target="y"), candidates=[wide],
        training={"max_epochs": 12}, report_share=0.2,
    )  # fmt: skip
    assert values.rope is None
    assert values.description.num_classes == 0
    assert all(0 < r.mean < 1.5 for r in values.recipes)
    matches = quick(
        read_frame(blob_columns(90)), "map@r", roles=Roles(target="y"), candidates=["multi_similarity"],
        training={"task": "matches", "max_epochs": 3}, report_share=0.2,
    )  # fmt: skip
    assert matches.baseline == "sup_con"
    assert set(matches.left.scores) == {matches.left.recipe, "sup_con"}


def test_a_trial_is_named_by_all_that_it_depends_on_and_by_nothing_else():
    design = design_of()

    def key(changed: Any = design, place: int = 0, recipe: int = 0, kind: str = "outer", **more: Any) -> str:
        return digest_of(changed.spec(place, kind, changed.candidates[recipe], {}, **{"seed": 1, **more}))

    assert key() == key(design_of(confidence=0.9, num_seeds=3, budget="5", rope=0.1))
    others = [
        key(design_of(seed=1)), key(design_of(metric="macro_f1")), key(place=1), key(recipe=1),
        key(kind="search"), key(seed=2), key(max_epochs=1),
        key(design_of(read_frame(blob_columns(90, seed=1)), roles=Roles(target="y"))),
        key(design_of(roles=Roles(target="y", inputs=["a", "b"]))),
    ]  # fmt: skip
    assert len({key(), *others}) == len(others) + 1
