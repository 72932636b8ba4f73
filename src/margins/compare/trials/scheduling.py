"""Runs the trials that are asked for: what the store knows is taken from it, the executor runs the rest."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from margins.compare.execution import Done, Executor
from margins.compare.kept.store import StoredTrial
from margins.compare.trials.searching import Outcome, RecipeFailedError, Strand, Trial


class TrialStore(Protocol):
    """Where outcomes are kept: a `RunStore`, or a `Memory`."""

    def get(self, key: str) -> StoredTrial | None:
        """The trial of this key, if it is known."""
        ...

    def put(self, key: str, trial: StoredTrial) -> None:
        """Keeps a trial; the first of a key stays."""
        ...


class Memory:
    """A store that is gone with its process."""

    def __init__(self) -> None:
        self._trials: dict[str, StoredTrial] = {}

    def get(self, key: str) -> StoredTrial | None:
        """The trial of this key, if it is known."""
        return self._trials.get(key)

    def put(self, key: str, trial: StoredTrial) -> None:
        """Keeps a trial; the first of a key stays."""
        self._trials.setdefault(key, trial)


@dataclass(frozen=True, kw_only=True)
class TrialDone:
    """Told after every trial.

    Args:
        done: trials that are done.
        total: of all, as far as is known.
        from_store: how many of them an earlier run had done.
        recipe: of this one.
        place: of this one, in words.
        seconds: that it took.
    """

    done: int
    total: int
    from_store: int
    recipe: str
    place: str
    seconds: float


OnTrialDone = Callable[[TrialDone], None]


@dataclass(eq=False)
class _Running:
    """A strand that waits for the trials of its last step."""

    name: Hashable
    strand: Strand
    trials: list[Trial] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    expected: int = 0
    had: int = 0

    @property
    def is_ready(self) -> bool:
        return all(trial.key in self.outcomes for trial in self.trials)


class Schedule:
    """Drives strands to their ends, each trial once, whoever asks for it.

    Args:
        store: knows what was done before, and keeps what is done.
        executor: runs the rest, as many at once as it has slots, place after place.
        place_names: of the design's places, for people.
        on_trial_done: told after every trial.
        expected: trials of all strands that it will be given, as far as is known.
    """

    def __init__(
        self,
        store: TrialStore,
        executor: Executor,
        place_names: list[str],
        on_trial_done: OnTrialDone | None = None,
        *,
        expected: int = 0,
    ) -> None:
        self._store, self._executor, self._names, self._told = store, executor, place_names, on_trial_done
        self._queue: list[tuple[int, int, Trial]] = []
        self._order = count()
        self._waiting: dict[str, list[_Running]] = {}
        self._trials: dict[str, Trial] = {}
        self._results: dict[Hashable, Any] = {}
        self._done = self._from_store = 0
        self._total = expected

    def run(self, strands: Mapping[Hashable, tuple[Strand, int]]) -> dict[Hashable, Any]:
        """The results of all strands, by name; of one that cannot go on, the error that says why.

        Args:
            strands: name to strand, and how many trials it is expected to ask for.
        """
        self._results = {}
        running = [_Running(name, strand, expected=num) for name, (strand, num) in strands.items()]
        self._total = max(self._total, self._done + sum(one.expected for one in running))
        for one in running:
            self._advance(one, first=True)
        while len(self._results) < len(running):
            while self._queue and self._executor.pending < self._executor.slots:
                trial = heapq.heappop(self._queue)[2]
                self._executor.submit(trial.key, trial.spec)
            for done in self._executor.wait():
                self._keep(done)
        return self._results

    def _advance(self, one: _Running, *, first: bool = False) -> None:
        """Sends a strand what it waited for, until it needs something that is not known yet."""
        sent: list[Outcome] | None = None if first else [one.outcomes[t.key] for t in one.trials]
        try:
            while True:
                one.trials = next(one.strand) if sent is None else one.strand.send(sent)
                one.had += len(one.trials)
                if one.had > one.expected:
                    self._total += one.had - one.expected
                    one.expected = one.had
                for trial in one.trials:
                    self._ask_for(trial, one)
                if not one.is_ready:
                    return
                sent = [one.outcomes[t.key] for t in one.trials]
        except StopIteration as end:
            self._finish(one, end.value)
        except RecipeFailedError as failed:
            self._finish(one, failed)

    def _finish(self, one: _Running, result: Any) -> None:
        self._total -= one.expected - one.had
        self._results[one.name] = result

    def _ask_for(self, trial: Trial, one: _Running) -> None:
        known = self._store.get(trial.key)
        if known is not None:
            one.outcomes[trial.key] = _outcome(known)
            self._from_store += 1
            self._tell(trial, known.seconds)
            return
        if trial.key not in self._waiting:
            heapq.heappush(self._queue, (trial.place, next(self._order), trial))
            self._trials[trial.key] = trial
        self._waiting.setdefault(trial.key, []).append(one)

    def _keep(self, done: Done) -> None:
        trial = self._trials.pop(done.key)
        kept = StoredTrial(
            spec=trial.spec, value=done.value, error=done.error, seconds=done.seconds,
            peak_bytes=done.peak_bytes, where=done.where,
        )  # fmt: skip
        self._store.put(done.key, kept)
        waiting = self._waiting.pop(done.key)
        for one in waiting:
            one.outcomes[done.key] = _outcome(kept)
            self._tell(trial, done.seconds)
        for one in dict.fromkeys(waiting):
            if one.is_ready:
                self._advance(one)

    def _tell(self, trial: Trial, seconds: float) -> None:
        self._done += 1
        if self._told:
            self._told(
                TrialDone(
                    done=self._done, total=self._total, from_store=self._from_store, recipe=trial.recipe,
                    place=self._names[trial.place], seconds=seconds,
                )
            )  # fmt: skip


def _outcome(trial: StoredTrial) -> Outcome:
    return Outcome(value=trial.value, error=trial.error, seconds=trial.seconds, peak_bytes=trial.peak_bytes)
