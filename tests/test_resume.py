"""A training that was killed and gone on with ends with the numbers of one that was not disturbed."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from made_up_training import SUP_CON, blobs, train_rows, trainer
from margins.data import TrainRows
from margins.errors import MarginsError
from margins.targets import Targets
from margins.training.checkpoint import read_checkpoint, write_checkpoint
from margins.training.interruption import Interrupted
from margins.training.saving import CHECKPOINT, SavedTraining, phase_of, saved_state


def mislabelled() -> TrainRows:
    """Rows of which every fourth has a wrong class."""
    inputs, labels = blobs(120, 1)
    return TrainRows(inputs, Targets.of_classes((labels + (torch.arange(120) % 4 == 0)) % 3, 3))


# Every part that has state, alone or with others it must not disturb.
PARTS: dict[str, dict[str, Any]] = {
    "dropout": {},
    "momentum": {"optimizer": {"name": "sgd", "learning_rate": 0.05}},
    "ema": {"averaging": {"name": "ema", "decay": 0.9}},
    "epoch mean": {"averaging": {"name": "epoch_mean", "start": 0.3}},
    "scaler": {"precision": "fp16", "clip_norm": 1.0},
    "mixing": {"mix": {"name": "feature_mixup", "alpha": 0.5}},
    "balanced draw": {"draw": {"name": "class_balanced"}},
    "class batches": {**SUP_CON, "draw": {"name": "several_per_class", "items": 3}, "num_outputs": 8},
    "schedule": {"schedule": {"name": "one_cycle"}},
    "refresh": {
        "refresh": [{"name": "label_correction", "start": 1, "confidence": 0.501}], "train": mislabelled(),
        "optimizer": {"name": "adamw", "learning_rate": 0.02},
    },
    "weights by looks": {"refresh": [{"name": "appearance_equity", "num_neighbours": 5}]},
    "loss's generator": {
        "objective": {"loss": "ens_loss", "settings": {"lam_range": [0.0, 1.0], "period": 1}}
    },
    "loss's buffer": {"objective": {"loss": "aldrkl_memory", "settings": {"num_rows": 120}}},
    "gradient caching": {
        "objective": {"loss": "mann_whitney", "settings": {"scope": "column"}}, "accumulate": 3,
    },
    "two passes": {"step": {"name": "sharpness_aware"}},
}  # fmt: skip


def states_equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(states_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(states_equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def without_seconds(state: dict[str, Any]) -> dict[str, Any]:
    progress = {k: v for k, v in state["progress"].items() if k not in ("seconds", "history")}
    history = [{k: v for k, v in r.items() if k != "seconds"} for r in state["progress"]["history"]]
    return {**state, "progress": {**progress, "history": history}}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("steps", [9, 15], ids=["mid-epoch", "between epochs"])
def test_going_on_from_a_checkpoint_is_bit_identical(part: str, steps: int, tmp_path: Path):
    changes = {"min_steps": 7, "patience": None, **PARTS[part]}
    whole = trainer(**changes)
    whole.run()
    first = trainer(**changes)
    for _ in range(steps if steps < 15 else len(first._steps) * 2):
        first.advance()
    assert (first._progress.step == 0) == (steps == 15)
    assert part not in ("refresh", "weights by looks") or first.engine.rows is not first._given
    write_checkpoint(tmp_path / "c", first.state_dict())
    # Another network seed: nothing may be left of the fresh one.
    second = trainer(network_seed=9, **changes)
    assert not states_equal(second.network.state_dict(), first.network.state_dict())
    second.load_state_dict(read_checkpoint(tmp_path / "c"))
    second.run()
    ends = [without_seconds(t.state_dict()) for t in (whole, second)]
    for key in ends[0]:
        assert states_equal(ends[0][key], ends[1][key]), key


def test_the_checkpoint_of_every_part_holds_its_state(tmp_path: Path):
    kept = {part: trainer(**PARTS[part]).state_dict() for part in PARTS}
    assert kept["scaler"]["scaler"]["scale"] > 1
    assert kept["loss's buffer"]["objective"]
    assert kept["loss's generator"]["objective"]
    t = trainer(**PARTS["ema"])
    t.advance()
    assert t.state_dict()["averaged"]["num"] == 1


def saved(folder: Path, *, fingerprint: str = "f" * 64, every: float = 3600, **changes: Any) -> SavedTraining:
    return SavedTraining(trainer(**changes), folder, fingerprint=fingerprint, every_seconds=every)


def test_a_checkpoint_is_written_at_the_start_as_time_passes_and_at_the_end(tmp_path: Path, monkeypatch):
    written = []
    training = saved(tmp_path, every=0)
    keep = training.save
    monkeypatch.setattr(training, "save", lambda: (written.append(1), keep())[1])
    training.run()
    num_steps = len(trainer()._steps) * 3
    assert len(written) == num_steps + 2
    state = saved_state(tmp_path)
    assert state is not None
    assert phase_of(state, folder=tmp_path) == 0
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_ends(number: int, tmp_path: Path):
    whole = trainer()
    whole.run()
    training = saved(tmp_path)
    steps = []
    training._trainer._watcher = _CallAfter(5, lambda: os.kill(os.getpid(), number), steps)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="saved in") as stopped:
        training.run()
    assert stopped.value.number == number
    assert len(steps) == 5
    assert signal.getsignal(number) is before
    again = saved(tmp_path, network_seed=4)
    again.resume(saved_state(tmp_path))
    assert again._trainer._progress.step == 5
    again.run()
    assert states_equal(again._trainer.network.state_dict(), whole.network.state_dict())


class _CallAfter:
    def __init__(self, num: int, action: Any, steps: list[int]) -> None:
        self._num, self._action, self._steps = num, action, steps

    def step_done(self, epoch: int, step: int, num_steps: int, loss: float) -> None:
        self._steps.append(step)
        if len(self._steps) == self._num:
            self._action()

    def epoch_done(self, record: Any) -> None:
        pass


def test_a_thread_other_than_the_main_one_trains_without_touching_signals(tmp_path: Path):
    found = []
    thread = threading.Thread(target=lambda: found.append(saved(tmp_path, max_epochs=1).run()))
    thread.start()
    thread.join()
    assert found[0].epoch == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [({"fingerprint": "e" * 64}, "the same data"), ({"max_epochs": 4}, "the same recipe")],
    ids=["data", "recipe"],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(change: dict, word: str, tmp_path: Path):
    saved(tmp_path, max_epochs=3).run()
    with pytest.raises(MarginsError, match=word):
        saved(tmp_path, **{"max_epochs": 3, **change}).resume(saved_state(tmp_path))


@pytest.mark.parametrize(
    ("path", "word"),
    [("identity", "identity"), ("trainer.optimizer", "optimizer"), ("trainer.averaged", "averaged"),
     ("trainer.network.head.weight", "head.weight"), ("trainer.class_ids", "class_ids")],
)  # fmt: skip
def test_a_checkpoint_that_lacks_something_is_refused_by_its_name(path: str, word: str, tmp_path: Path):
    saved(tmp_path).run()
    state = saved_state(tmp_path)
    *parents, last = path.split(".", 2)
    part = state
    for key in parents:
        part = part[key]
    del part[last]
    with pytest.raises(MarginsError, match=word):
        saved(tmp_path).resume(state)


def test_what_is_written_is_read_back_and_nothing_else_is_accepted(tmp_path: Path):
    state = {
        "a": torch.arange(3), 1: [torch.ones(2, 2).T, None, True, -1.5, "ü"], "t": (1, (2,)), "e": {},
        "half": torch.ones(1, dtype=torch.bfloat16), "none": torch.zeros(0, 3),
    }  # fmt: skip
    write_checkpoint(tmp_path / "c", state)
    assert states_equal(read_checkpoint(tmp_path / "c"), state)
    assert (tmp_path / "c").read_bytes().find(b"pickle") < 0
    with pytest.raises(TypeError, match="cannot hold"):
        write_checkpoint(tmp_path / "d", {"x": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("damage", ["cut", "other", "missing"])
def test_a_broken_checkpoint_is_told(damage: str, tmp_path: Path):
    path = tmp_path / CHECKPOINT
    write_checkpoint(path, {"a": torch.ones(100)})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "other":
        from safetensors.torch import save

        path.write_bytes(save({"a": torch.ones(1)}))
    else:
        path.unlink()
    with pytest.raises(MarginsError, match=CHECKPOINT):
        read_checkpoint(path)


def test_a_full_disk_leaves_the_old_checkpoint_and_no_half_one(tmp_path: Path, monkeypatch):
    path = tmp_path / CHECKPOINT
    write_checkpoint(path, {"a": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MarginsError, match="No space left on device; free space"):
        write_checkpoint(path, {"a": 2})
    monkeypatch.undo()
    assert read_checkpoint(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_rows_of_a_restarted_epoch_are_those_it_would_have_had():
    from margins.training.parts.drawing import ClassBalanced, SeveralPerClass, Shuffled, share_of

    rows = train_rows(100)
    for draw in (Shuffled(), ClassBalanced(), SeveralPerClass(items=4)):
        steps = draw.epoch(rows, batch_size=16, seed=3, epoch=2)
        again = draw.epoch(rows, batch_size=16, seed=3, epoch=2)
        other = draw.epoch(rows, batch_size=16, seed=3, epoch=1)
        assert all(torch.equal(a, b) for a, b in zip(steps, again, strict=True))
        assert not torch.equal(torch.cat(list(steps)), torch.cat(list(other)))
        for parts in (1, 2, 3, 5):
            joined = [torch.cat([share_of(s, part=p, parts=parts) for p in range(parts)]) for s in steps]
            assert all(torch.equal(a, b) for a, b in zip(steps, joined, strict=True))
