"""`compare`: all recipes on the same folds and seeds with the same budget, judged by rules fixed before."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from margins.compare.answer import answer_of
from margins.compare.candidates.candidate import Candidate
from margins.compare.checks import check_design
from margins.compare.collecting import (
    ByFold,
    description_of,
    failed_baseline,
    fold_scores,
    recipe_results,
    sorted_out,
)
from margins.compare.describe import copies_across_folds, protocol
from margins.compare.designing import Rope, designed
from margins.compare.execution import Executor, executor_for
from margins.compare.judge import Judgement, judge
from margins.compare.kept.folder import ComparisonFolder
from margins.compare.kept.store import RunStore
from margins.compare.leaving import REPORT_SEEDS, refitted, reported
from margins.compare.planning import EVIDENCE, Design
from margins.compare.preview import PILOT_SEEDS, piloted_preview, stated_preview
from margins.compare.problem.folding import Spoiling
from margins.compare.results import ComparisonResult, FailedRecipe, Left, Preview
from margins.compare.trials.bench import Bench
from margins.compare.trials.scheduling import Memory, OnTrialDone, Schedule, TrialStore
from margins.compare.trials.searching import Outcome, RecipeFailedError, found_in, judged_in, judged_with
from margins.data.frame import Frame
from margins.errors import MarginsError
from margins.training.machine import Device
from margins.training.request import Request, Roles


def compare(
    frame: Frame,
    metric: str = "macro_f1",
    *,
    roles: Roles | None = None,
    candidates: Sequence[str | Candidate] | None = None,
    num_folds: int = 5,
    num_repeats: int = 1,
    num_seeds: int = 1,
    budget: str = "quick",
    seed: int = 0,
    confidence: float = 0.95,
    rope: Rope = "auto",
    spread: float | None = None,
    report_share: float = 0.15,
    training: Mapping[str, Any] | None = None,
    positive: str | None = None,
    spoiling: Spoiling | None = None,
    on: str = "local",
    device: Device = "cpu",
    out: str | Path | None = None,
    force: bool = False,
    on_trial_done: OnTrialDone | None = None,
    tell: Callable[[str], None] | None = None,
) -> ComparisonResult:
    """Trains every recipe on the same outer folds and says which is best, and how sure that is.

    The same call on the same machine gives the same scores, also one that was killed and is made again with
    the same folder.

    Args:
        frame: the data, as `read_frame` gives them, with a target.
        metric: name of the metric that judges, and that early stopping uses.
        roles: of columns, where the user says so; the rest is chosen as `choose_columns` does. Rows of a
            group stay in one fold and one role; row weights count in training and in the metric.
        candidates: names of those that take part, or candidates of your own; by default those that the data
            speak for. The plain baseline always does.
        num_folds: outer folds, at least 2; every class needs as many rows, or as many groups.
        num_repeats: of the whole division into folds. Small effects need several.
        num_seeds: trainings of a recipe on each fold; their scores are averaged.
        budget: of every recipe's search for hyperparameters inside the rows outside a fold: "quick" (none),
            "standard", "thorough", or "TRIALS" or "TRIALS:PASSES".
        seed: of folds, searches, first weights, dropout and order of rows.
        confidence: of intervals and verdicts.
        rope: differences up to this size do not matter, in the metric's unit; "auto" takes 0.01 for metrics
            between 0 and 1 and none for others; None says nothing of it.
        spread: standard deviation over folds of the difference of two recipes, if you know a bound: the
            detectable difference is then told from it, without a pilot.
        report_share: of the rows, kept to judge the winner and the baseline once at the end, where no column
            says which; 0 for none.
        training: keys of the recipe that all recipes share which are not to have their defaults, nested as
            in YAML.
        positive: of two classes the one that is looked for; without it, ranking metrics take the rarer one.
        spoiling: a change of the rows outside each outer test fold, for experiments.
        on: where trials run: "local", "processes:N", "ray" or "ray:ADDRESS".
        device: that each training uses; "auto" takes a GPU if there is one.
        out: folder for trials, results and the winner's model; None keeps all in memory.
        force: puts trials of other data in that folder aside.
        on_trial_done: told after each trial.
        tell: called with a sentence for everything that is decided or odd, and for what the design can show,
            before the first recipe is judged.

    Returns:
        scores, differences, verdicts and the answer in words.

    Raises:
        MarginsError: before any training: columns, a metric, recipe or positive class that cannot be used,
            too few rows, folds or seeds, parts that correct the class prior twice, a folder of other data.
            Later: the baseline cannot be trained.

    Example:
        >>> import numpy as np
        >>> from margins.data.reading import read_frame
        >>> sizes = np.random.default_rng(0).normal(size=60)
        >>> frame = read_frame({"size": sizes, "label": ["big" if size > 0 else "small" for size in sizes]})
        >>> result = compare(frame, candidates=["focal"], num_folds=3, training={"max_epochs": 2})
        >>> result.baseline, len(result.recipes), len(result.differences)
        ('cross_entropy', 2, 1)
    """
    design = designed(
        frame, metric, roles=roles, candidates=candidates, num_folds=num_folds, num_repeats=num_repeats,
        num_seeds=num_seeds, budget=budget, seed=seed, confidence=confidence, rope=rope,
        report_share=report_share, training=training, positive=positive, spoiling=spoiling,
    )  # fmt: skip
    if spread is not None and not 0 < spread < float("inf"):
        raise MarginsError("spread", expected="a number above 0", received=str(spread))
    Request(device=device)  # says what is wrong with it
    folder = None if out is None else ComparisonFolder(Path(out))
    say = tell or (lambda _: None)
    if folder is not None:
        folder.check()
        if (known := folder.finished(design.digest)) is not None:
            say("These results were here already; nothing was trained again.")
            return folder.save(known)
    bench = Bench(design.rows, {roles.digest(): roles for roles in design.places}, device=device)
    prior = check_design(design, bench.inputs)
    for sentence in _told_first(design, prior):
        say(sentence)
    with executor_for(on, bench) as executor, _opened(design, folder, force=force) as (store, looked):
        course = _Course(design, store, executor, on_trial_done, spread=spread)
        return _run(course, bench, folder, prior, say, looked=looked)


def _run(
    course: _Course,
    bench: Bench,
    folder: ComparisonFolder | None,
    prior: Mapping[str, list[str]],
    say: Callable[[str], None],
    *,
    looked: bool,
) -> ComparisonResult:
    """Previews, trains, judges and leaves; a model that cannot be left costs no result."""
    design, clock = course.design, _Clock()
    preview = course.preview()
    for sentence in preview.sentences:
        say(sentence)
    judged, failed = sorted_out(design, course.judged())
    judgement = _judgement(design, judged, looked=looked)
    if folder is not None:
        folder.make_room(design.digest)
    left, notes = None, list[str]()
    try:
        left = course.leave(judgement, bench, folder=None if folder is None else folder.path)
    except RecipeFailedError as error:
        notes.append(f"No model is left: {error}")
    result = _result(design, clock, judged, failed, judgement, prior)
    result = replace(
        result, preview=preview, left=left, looked=looked, warnings=[*result.warnings, *notes]
    )  # fmt: skip
    result = replace(result, answer=answer_of(result, design.metric))
    course.record_look()  # before anybody can see them: a crash in between must not hide that they were there
    return result if folder is None else folder.save(result)


class _Clock:
    """When it began, and how long ago."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


def _told_first(design: Design, prior: Mapping[str, list[str]]) -> list[str]:
    """What a user should know before anything is trained."""
    return [
        *design.rows.decided, *design.rows.notes,
        *(f"{candidate.name}: {candidate.why}" for candidate in design.candidates),
        *(f"{name}: {sentences[0]}" for name, sentences in prior.items()),
    ]  # fmt: skip


def _judgement(design: Design, judged: ByFold, *, looked: bool) -> Judgement:
    return judge(
        fold_scores(design, judged), metric=design.metric, test_to_train=design.test_to_train,
        rope=design.rope, confidence=design.confidence, looked=looked,
    )  # fmt: skip


def _result(
    design: Design,
    clock: _Clock,
    judged: ByFold,
    failed: list[FailedRecipe],
    judgement: Judgement,
    prior: Mapping[str, list[str]],
) -> ComparisonResult:
    """All that follows from the scores, but for the answer in words."""
    return ComparisonResult(
        description=description_of(design, protocol(design), started=clock.started, seconds=clock.seconds),
        recipes=recipe_results(design, judged, judgement, prior),
        differences=judgement.differences,
        baseline=design.baseline.name,
        confidence=design.confidence,
        detectable_difference=judgement.detectable_difference,
        answer="",
        warnings=[*design.rows.notes, *copies_across_folds(design), *judgement.warnings],
        rope=design.rope,
        failed=failed,
        left_out=dict(design.left_out),
        design=design.digest,
    )


class _Course:
    """The parts of a comparison that train."""

    def __init__(
        self,
        design: Design,
        store: TrialStore,
        executor: Executor,
        on_trial_done: OnTrialDone | None,
        *,
        spread: float | None,
    ) -> None:
        self.design, self.store, self.spread = design, store, spread
        num = design.budget.num_trainings(design.num_seeds)
        expected = len(design.folds) * len(design.candidates) * num
        expected += PILOT_SEEDS * design.num_folds if spread is None else 0
        names = [roles.name for roles in design.places]
        self.schedule = Schedule(store, executor, names, on_trial_done, expected=expected)

    def preview(self) -> Preview:
        """What the design can show, told before anything is judged."""
        design = self.design
        if self.spread is not None:
            return stated_preview(design, self.spread)
        seeds = range(1, PILOT_SEEDS + 1)
        found = self.schedule.run(
            {
                fold: (judged_with(design, fold, design.baseline, {}, seeds=seeds), PILOT_SEEDS)
                for fold in range(design.num_folds)
            }
        )
        scores: list[list[float]] = []
        for fold in range(design.num_folds):
            outcomes: list[Outcome] | RecipeFailedError = found[fold]
            if isinstance(outcomes, RecipeFailedError):
                raise failed_baseline(design, str(outcomes))
            scores.append([float((o.value or {})["test"][design.metric.name]) for o in outcomes])
        return piloted_preview(design, scores)

    def judged(self) -> dict[Any, Any]:
        """Every recipe on every fold: searched, trained and judged, or why it could not be."""
        design = self.design
        num = design.budget.num_trainings(design.num_seeds)
        return self.schedule.run(
            {
                (candidate.name, fold): (judged_in(design, fold, candidate), num)
                for fold in range(len(design.folds))
                for candidate in design.candidates
            }
        )

    def leave(self, judgement: Judgement, bench: Bench, *, folder: Path | None) -> Left:
        """The winner and the baseline, searched and trained on all rows but those kept to report.

        Raises:
            RecipeFailedError: one of them cannot be trained there.
        """
        design, place = self.design, len(self.design.folds)
        by_name = {c.name: c for c in design.candidates}
        winner = by_name[_winner_of(judgement, design.baseline.name)]
        both = dict.fromkeys([winner.name, design.baseline.name])
        num = design.budget.num_trainings(0)
        values = self.schedule.run({name: (found_in(design, place, by_name[name]), num) for name in both})
        for found in values.values():
            if isinstance(found, RecipeFailedError):
                raise found
        num_seeds = REPORT_SEEDS if len(design.rows.report) else 1
        refits = {
            name: refitted(
                design, by_name[name], values[name], num_seeds=num_seeds, bench=bench, folder=folder
            )
            for name in both
        }  # fmt: skip
        return reported(
            design, refits[winner.name], refits[design.baseline.name], folder=folder,
            num_openings=self._count_opening(" and ".join(both)),
        )  # fmt: skip

    def record_look(self) -> None:
        """Remembers that results of this design are shown."""
        if isinstance(self.store, RunStore):
            self.store.looked(self.design.digest, _evidence(self.design))

    def _count_opening(self, what: str) -> int:
        """Counts an opening of the report rows, before it happens."""
        if not len(self.design.rows.report):
            return 0
        return self.store.open_report(what) if isinstance(self.store, RunStore) else 1


@contextmanager
def _opened(
    design: Design, folder: ComparisonFolder | None, *, force: bool
) -> Generator[tuple[TrialStore, bool]]:
    """The store, and whether results that rest on other folds, repeats or seeds were shown before."""
    if folder is None:
        yield Memory(), False
        return
    with RunStore.open(folder.store, design=design.to_data(), force=force) as store:
        store.forget_failed()
        own = _evidence(design)
        yield store, any(look.what["family"] == own["family"] and look.what != own for look in store.looks())


def _evidence(design: Design) -> dict[str, Any]:
    data = design.to_data()
    return {"family": design.family(), **{key: data[key] for key in EVIDENCE}}


def _winner_of(judgement: Judgement, baseline: str) -> str:
    """The recipe of the best mean among those that are better than the baseline; else the baseline."""
    for name in judgement.order:
        for d in judgement.differences:
            if (d.first, d.second, d.verdict) == (name, baseline, "better"):
                return name
    return baseline
