"""A training that is saved as it goes, and gone on with after a crash."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from margins.errors import MarginsError
from margins.training.checkpoint import changed, read_checkpoint, restored, same_keys, write_checkpoint
from margins.training.interruption import Interrupted, Interruption
from margins.training.trainer import Fitted, Trainer

CHECKPOINT = "checkpoint.safetensors"
EVERY_SECONDS = 60.0


class SavedTraining:
    """Runs a trainer and keeps one checkpoint in a folder.

    A checkpoint is written at the end of every epoch that lasted long enough, whenever `every_seconds` have
    passed, when a signal asks for the end, and when all is done. After a restart the numbers are those of a
    training that was never disturbed.

    Args:
        trainer: fresh.
        folder: of the run.
        fingerprint: of the data, so that a checkpoint of other data is refused.
        phase: number of the plan's phase that the trainer is.
        earlier: how the phases before it went, as plain data.
        every_seconds: longest time between two checkpoints, in which work can be lost.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        *,
        fingerprint: str,
        phase: int = 0,
        earlier: list[dict[str, Any]] | None = None,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._trainer = trainer
        self._path = folder / CHECKPOINT
        self._identity = {
            "fingerprint": fingerprint, "phase": phase, "recipe": trainer.recipe.to_yaml(),
        }  # fmt: skip
        self._earlier = earlier or []
        self._every_seconds = every_seconds
        self._saved_at = time.monotonic()
        self._interruption = Interruption()

    def resume(self, state: dict[str, Any]) -> None:
        """Puts the trainer where a checkpoint of the same data, recipe and phase left it.

        Raises:
            MarginsError: the checkpoint is of other data or another recipe, or lacks something.
        """
        identity = restored(state, "identity", path=self._path)
        for name, expected in self._identity.items():
            if identity.get(name) != expected:
                raise MarginsError(
                    str(self._path), expected=f"a checkpoint of the same {_WORDS[name]}",
                    received="one of another",
                    fix="give the data and the recipe that the run began with, or start a new run",
                )  # fmt: skip
        kept, fresh = restored(state, "trainer", path=self._path), self._trainer.state_dict()
        for part in fresh:
            restored(kept, part, path=self._path)
        for part in ("network", "objective"):
            same_keys(part, kept[part], fresh[part], path=self._path)
        try:
            self._trainer.load_state_dict(kept)
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError) as error:
            raise changed(self._path, error) from error
        if kept["best"]:
            same_keys("best", kept["best"], fresh["network"], path=self._path)

    def run(self) -> Fitted:
        """Trains to the end.

        Raises:
            Interrupted: a signal came; the training was saved after the step.
            MarginsError: a number is not finite, or the checkpoint cannot be written.
        """
        if self._is_first_rank:
            for partial in self._path.parent.glob(f"{CHECKPOINT}.*.partial"):  # of a process that was killed
                partial.unlink(missing_ok=True)
        self.save()
        with self._interruption.watched():
            fitted = self._trainer.run(self._after_step)
        self.save()
        return fitted

    def save(self) -> None:
        """Writes the checkpoint now; on several ranks the first one writes."""
        state = {"identity": self._identity, "earlier": self._earlier, "trainer": self._trainer.state_dict()}
        if self._is_first_rank:
            write_checkpoint(self._path, state)
        self._saved_at = time.monotonic()

    @property
    def _is_first_rank(self) -> bool:
        return self._trainer.engine.fabric.global_rank == 0

    def _after_step(self) -> None:
        number = self._interruption.number
        if number is not None:
            self.save()
            raise Interrupted(number, f"stopped; saved in {self._path}")
        if time.monotonic() - self._saved_at >= self._every_seconds:
            self.save()


_WORDS = {"fingerprint": "data", "phase": "phase of the plan", "recipe": "recipe"}


def saved_state(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a run; None before the first one."""
    path = folder / CHECKPOINT
    return read_checkpoint(path) if path.exists() else None


def phase_of(state: dict[str, Any], *, folder: Path, num_phases: int = 1) -> int:
    """The phase of the plan in which a checkpoint was written.

    Raises:
        MarginsError: the plan has no such phase, or the phases before it are not in the checkpoint.
    """
    path = folder / CHECKPOINT
    phase = restored(state, "identity", path=path).get("phase")
    earlier = restored(state, "earlier", path=path)
    if phase not in range(num_phases) or len(earlier) != phase:
        raise changed(path, f"phase {phase} of {num_phases}, {len(earlier)} before it")
    return int(phase)
