"""The comparison: paired, blind to its test folds until the end, repeatable, and honest about nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from made_up_comparisons import bench_of, blobs, design_of, outer_value, quick, texts
from margins.compare import ComparisonResult, Roles, TrialDone
from margins.compare.demo import ROLES as DIGITS
from margins.compare.demo import digits_frame, long_tail_with_wrong_labels
from margins.compare.problem.folding import FoldRoles
from margins.compare.problem.rows import compared_rows
from margins.data import Frame, ReportRows, outer_folds, read_frame, train_and_select
from margins.evaluation import find_metric
from margins.evaluation.statistics import corrected_t, holm
from margins.training import finishing, job

BANKING = Path(__file__).parents[2] / "shared" / "data" / "banking77" / "train.csv.gz"


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every trainer that is made for an outer fold, in order, with what it was given and how it began."""
    made: list[Any] = []

    class Spy(job.Trainer):
        def __init__(self, recipe, network, train_rows, select_rows, *, generator, **rest):
            weights = torch.cat([p.detach().flatten() for p in network.parameters()])
            self.start = weights.numpy().tobytes() + generator.get_state().numpy().tobytes()
            self.seed, self.rows = recipe.seed, (train_rows, select_rows)
            made.append(self)
            super().__init__(recipe, network, train_rows, select_rows, generator=generator, **rest)

    monkeypatch.setattr(job, "Trainer", Spy)
    yield made
    assert made, "vacuous: nothing was trained"


def scores_only(result: ComparisonResult) -> dict:
    """All of a result but times."""
    plain = dataclasses.asdict(result)
    for key in ("started", "seconds"):
        del plain["description"][key]
    for recipe in plain["recipes"]:
        del recipe["seconds"]
        del recipe["peak_bytes"]
    return plain


@pytest.fixture(scope="module")
def result() -> ComparisonResult:
    return quick(num_repeats=2, num_seeds=2)


def test_the_result_holds_every_recipe_fold_and_pair_best_mean_first(result: ComparisonResult):
    names = [r.name for r in result.recipes]
    assert sorted(names) == ["cross_entropy", "focal", "label_smoothing"]
    assert all(len(r.fold_scores) == 6 for r in result.recipes)
    assert [r.mean for r in result.recipes] == sorted((r.mean for r in result.recipes), reverse=True)
    assert [(d.first, d.second) for d in result.differences] == list(combinations(names, 2))
    assert result.baseline == "cross_entropy"
    for recipe in result.recipes:
        assert recipe.mean == pytest.approx(np.mean(recipe.fold_scores))
        assert recipe.seed_spread is not None
        assert recipe.seed_spread > 0
    description = result.description
    assert (description.num_folds, description.num_repeats, description.num_seeds) == (3, 2, 2)
    assert description.chance_level == pytest.approx(1 / 3)
    assert description.class_counts == {"u": 30, "v": 30, "w": 30}


def test_the_result_is_saved_and_read_back_whole(result: ComparisonResult, tmp_path: Path):
    result.save(tmp_path / "results.json")
    assert ComparisonResult.load(tmp_path / "results.json") == result


def test_differences_are_those_of_the_fold_scores_and_holm_goes_over_all_pairs(result: ComparisonResult):
    scores = {r.name: np.array(r.fold_scores) for r in result.recipes}
    tests = [corrected_t(scores[d.first] - scores[d.second], test_to_train=0.5) for d in result.differences]
    assert [d.mean for d in result.differences] == pytest.approx([t.mean for t in tests])
    assert [d.low for d in result.differences] == pytest.approx([t.low for t in tests])
    assert [d.p_holm for d in result.differences] == pytest.approx(holm([t.p_value for t in tests]))


def test_the_same_call_gives_the_same_table_and_another_seed_another(result: ComparisonResult):
    assert scores_only(quick(num_repeats=2, num_seeds=2)) == scores_only(result)
    other = quick(num_repeats=2, num_seeds=2, seed=1)
    assert other.recipes[0].fold_scores != result.recipes[0].fold_scores


def test_no_global_random_state_and_no_thread_setting_is_changed():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global state that must stay untouched
    quick(candidates=["focal"])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_one_recipe_scores_the_same_whoever_else_takes_part(result: ComparisonResult):
    alone = quick(num_repeats=2, num_seeds=2, candidates=["focal"])
    scores = [next(r.fold_scores for r in c.recipes if r.name == "focal") for c in (alone, result)]
    assert scores[0] == scores[1]


def test_progress_is_told_after_every_trial():
    told: list[TrialDone] = []
    quick(num_seeds=2, on_trial_done=told.append)
    assert [t.done for t in told] == list(range(1, 19))
    assert {(t.total, t.from_store) for t in told} == {(18, 0)}
    names = ("cross_entropy", "focal", "label_smoothing")
    expected = [(name, f"outer fold {fold}") for fold in (1, 2, 3) for name in names for _ in range(2)]
    assert [(t.recipe, t.place) for t in told] == expected


def test_an_outer_test_fold_is_opened_once_a_training_after_it_is_over(monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    opened: list[ReportRows] = []
    real_run, real_open = job.Trainer.run, ReportRows.open
    monkeypatch.setattr(job.Trainer, "run", lambda *a, **k: (real_run(*a, **k), events.append("trained"))[0])
    monkeypatch.setattr(
        ReportRows, "open", lambda self: (events.append("opened"), opened.append(self), real_open(self))[2]
    )
    quick(candidates=["focal"])
    # The last training is the one that is left behind: no rows were kept to report on it.
    assert events == ["trained", "opened"] * 6 + ["trained"]
    assert [rows.openings for rows in opened] == [1] * 6


def test_a_search_is_handed_no_row_that_judges(trainers: list[Any], monkeypatch: pytest.MonkeyPatch):
    opened: list[ReportRows] = []
    real = ReportRows.open
    monkeypatch.setattr(ReportRows, "open", lambda self: (opened.append(self), real(self))[1])
    design = design_of(budget="3")
    spec = design.spec(0, "search", design.candidates[0], {}, seed=1)
    value = bench_of(design)(spec)
    assert "test" not in value
    assert opened == []
    (trainer,) = trainers
    seen = {int(i) for rows in trainer.rows for i in rows.ids}
    assert not seen & set(design.folds[0].test.tolist())


def test_roles_share_no_row_and_cover_the_table(trainers: list[Any]):
    frame = blobs()
    quick(frame, roles=Roles(target="y"), candidates=["focal"])
    labels = compared_rows(frame, Roles(target="y"), report_share=0).targets.positives().columns.numpy()
    folds = outer_folds(labels, num_folds=3)
    assert len(trainers) == 7
    values = torch.stack([frame.floats(name) for name in "abc"], 1)
    for first, second, fold in zip(trainers[:6:2], trainers[1:6:2], folds, strict=True):
        train, select = (set(rows.ids.tolist()) for rows in first.rows)
        assert not train & select
        assert sorted(train | select) == fold.outside.tolist()
        assert [rows.ids.tolist() for rows in first.rows] == [rows.ids.tolist() for rows in second.rows]
        for rows in first.rows:
            assert torch.equal(rows.inputs.numbers, values[rows.ids])


def test_recipes_start_from_the_same_weights_and_order_and_seeds_and_folds_from_others(trainers: list[Any]):
    quick(num_seeds=2)
    starts = [(t.start, t.seed) for t in trainers[:18]]
    # Of every fold: both seeds of one recipe, then of the next.
    by_fold_and_seed = [
        set(starts[6 * fold + seed : 6 * fold + 6 : 2]) for fold in range(3) for seed in (0, 1)
    ]
    assert [len(found) for found in by_fold_and_seed] == [1] * 6
    assert len({start for start, _ in starts}) == len({seed for _, seed in starts}) == 6


def test_labels_of_a_test_fold_change_its_score_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    # If anything before the last step looked at the test fold, predictions would move with its labels.
    def predictions(flip: bool) -> np.ndarray:
        kept: list[np.ndarray] = []
        real = finishing.outputs_of
        design = design_of(candidates=["focal"])
        monkeypatch.setattr(
            finishing, "outputs_of", lambda *a: (found := real(*a), kept.append(found[0].numpy()))[0]
        )
        if flip:
            fold = design.folds[0]
            labels = design.rows.targets.positives().columns.numpy().copy()
            labels[fold.test] = (labels[fold.test] + 1) % 3
            folds = [dataclasses.replace(fold, labels=labels), *design.folds[1:]]
            design = dataclasses.replace(design, folds=folds)
        scores.append(outer_value(design)["test"]["accuracy"])
        monkeypatch.undo()
        return np.concatenate(kept)

    scores: list[float] = []
    assert np.array_equal(predictions(flip=False), predictions(flip=True))
    assert scores[0] != scores[1]


def test_a_text_table_is_compared_end_to_end_and_learns():
    result = quick(texts(), "auroc", candidates=["mann_whitney"], num_folds=2)
    assert all(r.mean > 0.95 for r in result.recipes)
    assert any(s.startswith("The positive class is 'tool'") for s in result.description.protocol)
    assert any("exact copy of their input" in w for w in result.warnings)
    assert "inputs: column 'text' (text)" in result.description.protocol[0]
    assert result.description.kind == "text"


def grouped_blobs() -> Frame:
    """Thirty groups of three rows, each with all classes."""
    return blobs(90, user=[f"user {i // 3}" for i in range(90)])


def test_rows_of_a_group_stay_in_one_role_of_every_fold(trainers: list[Any]):
    result = quick(grouped_blobs(), roles=Roles(target="y", group="user", inputs=["a", "b", "c"]))
    for trainer in trainers[:9]:
        train, select = ({int(i) // 3 for i in rows.ids} for rows in trainer.rows)
        assert train
        assert select
        assert not train & select
        # What is in neither is the test fold: whole groups too.
        assert len(trainer.rows[0].ids) + len(trainer.rows[1].ids) == 3 * len(train | select)
    assert len({frozenset(t.rows[0].ids.tolist()) for t in trainers[:9]}) == 3
    assert any("rows of one 'user' together" in s for s in result.description.protocol)


def test_row_weights_reach_the_rows_that_train_select_and_judge(
    trainers: list[Any], monkeypatch: pytest.MonkeyPatch
):
    opened: list[Any] = []
    real = ReportRows.open
    monkeypatch.setattr(ReportRows, "open", lambda self: (opened.append(real(self)), opened[-1])[1])
    given = torch.arange(1.0, 91.0)
    frame = blobs(90, importance=given.tolist())
    result = quick(frame, roles=Roles(target="y", weight="importance", inputs=["a", "b", "c"]))
    for trainer in trainers:
        for rows in trainer.rows:
            assert torch.equal(rows.targets.row_weight, given[rows.ids])
    outside = [set(t.rows[0].ids.tolist()) | set(t.rows[1].ids.tolist()) for t in trainers[:9]]
    for (_, targets), seen in zip(opened, outside, strict=True):
        judged = torch.tensor(sorted(set(range(90)) - seen))
        assert torch.equal(targets.row_weight, given[judged])
    assert any("weight, 'importance'" in s for s in result.description.protocol)


def test_changes_of_the_recipe_reach_every_training_and_are_named(trainers: list[Any]):
    changes = {
        "max_epochs": 2,
        "optimizer": {"learning_rate": 0.01},
        "encoder": {"name": "tabular", "width": 7},
    }
    result = quick(training=changes)
    assert {t.recipe.optimizer.learning_rate for t in trainers} == {0.01}
    assert {t.network.encoder.width for t in trainers} == {7}
    assert max(r.epochs for r in result.recipes) <= 2
    named = "Set for all recipes: max_epochs = 2, optimizer.learning_rate = 0.01, encoder.name = tabular"
    assert any(s.startswith(named) for s in result.description.protocol)
    assert "7 units" in result.description.encoder


def test_the_demo_spoils_rows_outside_the_fold_alone_long_tailed_and_a_tenth_mislabelled():
    table = compared_rows(digits_frame(), DIGITS, report_share=0)
    assert set(table.columns.inputs.values()) == {"numeric"}
    assert len(table.columns.inputs) == 64
    labels = table.targets.positives().columns.numpy()
    fold = outer_folds(labels, num_folds=5)[0]
    order = [table.names.index(str(d)) for d in range(10)]
    spoil = long_tail_with_wrong_labels(order)
    before = labels.copy()
    rows, given = spoil.change(fold.outside, labels[fold.outside], np.random.default_rng(0))
    assert (labels == before).all()
    assert set(rows.tolist()) <= set(fold.outside.tolist())
    assert len(set(rows.tolist())) == len(rows)
    true_counts = np.bincount(labels[rows], minlength=10)[order]
    assert (np.diff(true_counts) < 0).all()
    assert true_counts[0] / true_counts[-1] == pytest.approx(20, rel=0.08)
    assert (given != labels[rows]).mean() == pytest.approx(0.1, abs=0.002)
    wrong = given[given != labels[rows]]
    assert len(np.unique(wrong)) == 10
    again = spoil.change(fold.outside, labels[fold.outside], np.random.default_rng(0))
    assert (again[0] == rows).all()
    assert (again[1] == given).all()
    assert np.bincount(labels[fold.test]).min() >= 34


@pytest.mark.slow
def test_the_demo_calls_logit_adjustment_better_than_plain_cross_entropy(tmp_path):
    # A process of its own: checking every signature at run time would make it several times slower.
    out = tmp_path / "demo"
    subprocess.run([sys.executable, "-m", "margins", "demo", "--out", str(out)], check=True)
    result = ComparisonResult.load(out / "results.json")
    assert result.difference("logit_adjusted", "cross_entropy").verdict == "better"
    assert (result.description.kind, result.description.inputs) == ("image", ["8 x 8 pixels"])
    assert result.warnings == []
    assert any("10% of them got another class" in s for s in result.description.protocol)


@pytest.mark.slow
@pytest.mark.skipif(not BANKING.exists(), reason="needs ../shared/data/banking77")
def test_plain_cross_entropy_on_banking77_comes_within_two_points_of_tf_idf_and_logistic_regression():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    frames = [read_frame(BANKING.with_name(name)) for name in ("train.csv.gz", "test.csv.gz")]
    columns = [(f.table["text"].to_list(), f.table["label"].to_list()) for f in frames]
    (train_texts, train_labels), (test_texts, _) = columns
    both = read_frame({"text": train_texts + test_texts, "label": columns[0][1] + columns[1][1]})
    num = len(train_texts)
    design = design_of(both, "macro_f1", candidates=["focal"], num_folds=2, training={})
    labels = design.rows.targets.positives().columns.numpy()
    peer = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(train_texts, labels[:num])
    # One "fold": the train split outside, the test split to be scored.
    train, select = train_and_select(labels[:num], generator=np.random.default_rng(0))
    fold = FoldRoles(
        name="test split", repeat=0, fold=0, train=train, select=select, test=np.arange(num, len(both))
    )
    value = outer_value(dataclasses.replace(design, folds=[fold]))
    theirs = find_metric("macro_f1")(peer.predict_proba(test_texts), labels[num:])
    assert len(train_labels) == num
    assert theirs > 0.8
    assert value["test"]["macro_f1"] > theirs - 0.02
