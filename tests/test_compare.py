"""The comparison: paired, blind to its test folds until the end, repeatable, and honest about nothing."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from margins.compare.encoding import encoding_of

from margins.compare import ComparisonResult, Spoiling, compare, default_training, trials
from margins.compare.demo import digits_table, long_tail_with_wrong_labels
from margins.compare.describe import copies_across_folds
from margins.data import ReportRows, Table, outer_folds, read_table
from margins.errors import MarginsError
from margins.evaluation import find_metric
from margins.evaluation.statistics import corrected_t, holm
from margins.training import TrainingSettings, predict_proba, recipes_for

QUICK = TrainingSettings(max_epochs=3, patience=3)
BANKING = Path(__file__).parents[2] / "shared" / "data" / "banking77" / "train.csv.gz"


def blobs(num: int = 90, *, shift: float = 1.5, seed: int = 0) -> Table:
    labels = np.arange(num) % 3
    values = shift * np.eye(3)[labels] + np.random.default_rng(seed).normal(0, 1, (num, 3))
    return Table(
        source="blobs.csv", source_sha256="0" * 64, task="numeric", inputs=["a", "b", "c"], target="y",
        numbers=values, labels=labels, classes=["u", "v", "w"],
    )  # fmt: skip


def quick(table: Table | None = None, metric: str = "accuracy", **asked) -> ComparisonResult:
    options = {"recipes": ["focal", "label_smoothing"], "num_folds": 3, "training": QUICK, **asked}
    return compare(table or blobs(), metric, **options)


def scores_only(result: ComparisonResult) -> dict:
    """All of a result but times."""
    plain = dataclasses.asdict(result)
    for key in ("started", "seconds"):
        del plain["description"][key]
    for recipe in plain["recipes"]:
        del recipe["seconds"]
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
    quick(recipes=["focal"])
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_one_recipe_scores_the_same_whoever_else_takes_part(result: ComparisonResult):
    alone = quick(num_repeats=2, num_seeds=2, recipes=["focal"])
    scores = [next(r.fold_scores for r in c.recipes if r.name == "focal") for c in (alone, result)]
    assert scores[0] == scores[1]


def test_progress_is_told_after_every_trial():
    told: list[tuple[int, int, str, int, int]] = []
    quick(num_seeds=2, on_trial_done=lambda *trial: told.append(trial))
    assert [t[0] for t in told] == list(range(1, 19))
    assert {t[1] for t in told} == {18}
    assert {t[2:] for t in told} == {
        (name, fold, seed)
        for name in ("cross_entropy", "focal", "label_smoothing")
        for fold in range(3)
        for seed in range(2)
    }


def test_an_outer_test_fold_is_opened_once_a_trial_after_training_is_over(monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    opened: list[ReportRows] = []
    real_train, real_open = trials.train, ReportRows.open
    monkeypatch.setattr(trials, "train", lambda *a, **k: (real_train(*a, **k), events.append("trained"))[0])
    monkeypatch.setattr(
        ReportRows, "open", lambda self: (events.append("opened"), opened.append(self), real_open(self))[2]
    )
    quick(recipes=["focal"])
    assert events == ["trained", "opened"] * 6
    assert [rows.openings for rows in opened] == [1] * 6


def test_roles_share_no_row_and_cover_the_table(monkeypatch: pytest.MonkeyPatch):
    seen: list[list[set[bytes]]] = []
    real_train = trials.train

    def spy(model, objective, train_rows, select_rows, **rest):
        seen.append(
            [{row.numpy().tobytes() for row in rows.inputs.values} for rows in (train_rows, select_rows)]
        )
        return real_train(model, objective, train_rows, select_rows, **rest)

    monkeypatch.setattr(trials, "train", spy)
    table = blobs()
    quick(table, recipes=["focal"])
    folds = outer_folds(table.labels, num_folds=3)
    assert len(seen) == 6
    for (train_rows, select_rows), fold in zip(seen[::2], folds, strict=True):
        test = {row.tobytes() for row in table.numbers[fold.test]}
        assert not train_rows & select_rows
        assert not (train_rows | select_rows) & test
        assert len(train_rows | select_rows | test) == len(table)
    assert seen[0] == seen[1]


def test_recipes_start_from_the_same_weights_and_order_and_seeds_and_folds_from_others(
    monkeypatch: pytest.MonkeyPatch,
):
    starts: list[bytes] = []
    real_train = trials.train

    def spy(model, *rest, generator, **named):
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        starts.append(weights.numpy().tobytes() + generator.get_state().numpy().tobytes())
        return real_train(model, *rest, generator=generator, **named)

    monkeypatch.setattr(trials, "train", spy)
    quick(num_seeds=2)
    by_fold_and_seed = [set(starts[k : k + 3]) for k in range(0, 18, 3)]
    assert [len(found) for found in by_fold_and_seed] == [1] * 6
    assert len(set(starts)) == 6


def test_labels_of_a_test_fold_change_its_score_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    # If anything before the last step looked at the test fold, predictions would move with its labels.
    def predictions(flip: bool) -> np.ndarray:
        kept: list[np.ndarray] = []
        monkeypatch.setattr(
            trials,
            "predict_proba",
            lambda model, inputs: (kept.append(predict_proba(model, inputs)), kept[-1])[1],
        )
        table = blobs()
        fold = outer_folds(table.labels, num_folds=3)[0]
        design = trials.Design(
            encoding=encoding_of(table), labels=table.labels.copy(), num_classes=3, folds=[fold],
            recipes=recipe_list(), num_seeds=1, seed=0, metric=find_metric("accuracy"), training=QUICK,
        )  # fmt: skip
        if flip:
            design.labels[fold.test] = (design.labels[fold.test] + 1) % 3
        scores.append([t.score for t in trials.run_trials(design)])
        return np.stack(kept)

    scores: list[list[float]] = []
    assert np.array_equal(predictions(flip=False), predictions(flip=True))
    assert scores[0] != scores[1]


def recipe_list():
    return recipes_for(find_metric("accuracy"), ["focal"])


def test_a_text_table_is_compared_end_to_end_and_learns():
    draws = np.random.default_rng(0)
    words = {"fruit": ["apple", "pear", "plum"], "tool": ["saw", "drill", "lathe"]}
    rows = [(name, " ".join(draws.choice(words[name], 3))) for _ in range(30) for name in words]
    table = Table(
        source="t.csv", source_sha256="0" * 64, task="text", inputs=["text"], target="kind",
        texts=[text for _, text in rows], labels=np.array([list(words).index(name) for name, _ in rows]),
        classes=list(words),
    )  # fmt: skip
    result = quick(table, "auroc", recipes=["mann_whitney"], num_folds=2)
    assert all(r.mean > 0.95 for r in result.recipes)
    assert "The positive class is the rarer one." in result.description.protocol
    assert any("exact copy of their input" in w for w in result.warnings)


def test_defaults_follow_the_kind_of_input():
    assert (
        default_training(blobs()).max_epochs
        > default_training(dataclasses.replace(blobs(), texts=["a"] * 90)).max_epochs
    )


def test_copies_across_folds_are_counted_and_copies_within_a_fold_are_not():
    table = blobs(12)
    folds = outer_folds(table.labels, num_folds=2)
    assert copies_across_folds(table, folds) == []
    first, second = folds[0].test[:2]
    other = folds[1].test[np.flatnonzero(table.labels[folds[1].test] != table.labels[first])[0]]
    table.numbers[second] = table.numbers[first]
    assert copies_across_folds(table, folds) == []
    table.numbers[other] = table.numbers[first]
    (sentence,) = copies_across_folds(table, folds)
    agreeing = int(table.labels[second] == table.labels[other])
    assert sentence.startswith("3 of 12 rows (25.0%) were scored while an exact copy")
    assert f"({3 - 2 * agreeing} of them with other labels only)" in sentence


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"metric": "acuracy"}, ("metric", "'acuracy'", "did you mean accuracy")),
        ({"recipes": ["focl"]}, ("recipe", "did you mean focal")),
        ({"num_folds": 1}, ("folds", "at least 2")),
        ({"num_folds": 31}, ("at least 31 rows in every class", "u (30), v (30), w (30)")),
        ({"num_seeds": 0}, ("seeds", "at least 1", "0")),
        ({"num_repeats": 0}, ("repeats", "at least 1")),
        ({"seed": -1}, ("seed", "not negative")),
        ({"confidence": 1.0}, ("confidence", "(0, 1)")),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_any_training(asked: dict, words: tuple[str, ...]):
    told: list[object] = []
    with pytest.raises(MarginsError) as refused:
        quick(**asked, on_trial_done=lambda *trial: told.append(trial))
    for word in words:
        assert word in str(refused.value)
    assert told == []


def test_the_demo_spoils_rows_outside_the_fold_alone_long_tailed_and_a_fifth_mislabelled():
    table = digits_table()
    fold = outer_folds(table.labels, num_folds=5)[0]
    order = [table.classes.index(str(d)) for d in range(10)]
    spoil = long_tail_with_wrong_labels(order)
    before = table.labels.copy()
    rows, given = spoil.change(fold.outside, table.labels[fold.outside], np.random.default_rng(0))
    assert (table.labels == before).all()
    assert set(rows.tolist()) <= set(fold.outside.tolist())
    assert len(set(rows.tolist())) == len(rows)
    true_counts = np.bincount(table.labels[rows], minlength=10)[order]
    assert (np.diff(true_counts) < 0).all()
    assert true_counts[0] / true_counts[-1] == pytest.approx(20, rel=0.08)
    assert (given != table.labels[rows]).mean() == pytest.approx(0.2, abs=0.002)
    wrong = given[given != table.labels[rows]]
    assert len(np.unique(wrong)) == 10
    again = spoil.change(fold.outside, table.labels[fold.outside], np.random.default_rng(0))
    assert (again[0] == rows).all()
    assert (again[1] == given).all()
    assert np.bincount(table.labels[fold.test]).min() >= 34


def test_a_spoiling_that_reaches_into_the_test_fold_is_refused():
    reaching = Spoiling(lambda _rows, _labels, _draws: (np.arange(90), np.arange(90) % 3), "Reaches.")
    with pytest.raises(MarginsError, match="outside the outer test fold"):
        quick(spoiling=reaching)


@pytest.mark.slow
def test_the_demo_calls_logit_adjustment_better_than_plain_cross_entropy(tmp_path):
    # A process of its own: checking every signature at run time would make it several times slower.
    out = tmp_path / "demo"
    subprocess.run([sys.executable, "-m", "margins", "demo", "--out", str(out)], check=True)
    result = ComparisonResult.load(out / "results.json")
    assert result.difference("logit_adjusted", "cross_entropy").verdict == "better"
    assert result.description.task == "image"
    assert any("20% of them got another class" in s for s in result.description.protocol)


@pytest.mark.slow
@pytest.mark.skipif(not BANKING.exists(), reason="needs ../shared/data/banking77")
def test_plain_cross_entropy_on_banking77_comes_within_two_points_of_tf_idf_and_logistic_regression():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    table, test = (
        read_table(BANKING.with_name(name), ["text"], "label") for name in ("train.csv.gz", "test.csv.gz")
    )
    true = np.array([table.classes.index(test.classes[i]) for i in test.labels])
    peer = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(table.texts, table.labels)
    macro_f1 = find_metric("macro_f1")
    # One "fold": the train split outside, the test split to be scored.
    both = dataclasses.replace(
        table, texts=[*table.texts, *test.texts], labels=np.concatenate([table.labels, true])
    )
    num = len(table)
    design = trials.Design(
        encoding=encoding_of(both), labels=both.labels, num_classes=77,
        folds=[trials.OuterFold(0, 0, np.arange(num), np.arange(num, len(both)))],
        recipes=recipe_list()[:1], num_seeds=1, seed=0, metric=macro_f1, training=default_training(both),
    )  # fmt: skip
    (trial,) = trials.run_trials(design)
    theirs = macro_f1(peer.predict_proba(test.texts), true)
    assert theirs > 0.8
    assert trial.score > theirs - 0.02
