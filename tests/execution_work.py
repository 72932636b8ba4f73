"""Work for executors, in a module of its own so that workers can import it."""

from __future__ import annotations

import os
import signal
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from margins.errors import MarginsError

DEADLINE = 40.0  # seconds after which what is waited for is taken to never come


def wait_for(is_so: Any, what: str) -> None:
    """Polls until `is_so()`."""
    end = time.monotonic() + DEADLINE
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.01)


class Marking:
    """Does what a task says and leaves a mark for each try in the folder of the task."""

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        folder = Path(task["folder"])
        num_tries = len(tries(folder, task["name"]))
        (folder / f"{task['name']}.{os.getpid()}.{uuid.uuid4().hex}").touch()
        return getattr(self, f"_{task.get('do', 'double')}")(task, num_tries)

    def _double(self, task: dict[str, Any], _: int) -> dict[str, Any]:
        return {"twice": 2 * task["x"], "list": [task["x"], None, "ü"]}

    def _refuse(self, task: dict[str, Any], _: int) -> dict[str, Any]:
        raise MarginsError("x", expected="another", received=str(task["x"]))

    def _fail(self, task: dict[str, Any], _: int) -> dict[str, Any]:
        return {"inverse": 1 / 0}

    def _die(self, task: dict[str, Any], num_tries: int) -> dict[str, Any]:
        if num_tries < task["times"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._double(task, num_tries)

    def _hold(self, task: dict[str, Any], num_tries: int) -> dict[str, Any]:
        """Until the file `go` is there."""
        wait_for((Path(task["folder"]) / "go").exists, "go")
        return self._double(task, num_tries)

    def _unpicklable(self, task: dict[str, Any], _: int) -> dict[str, Any]:
        return {"function": lambda: None}


def tries(folder: Path, name: str) -> list[int]:
    """The processes that began tasks of this name, one a try."""
    return [int(path.name.split(".")[1]) for path in folder.glob(f"{name}.*")]


@dataclass
class Counting:
    """Tells where it runs, how many tasks it did there, and leaves a file each time it is unpickled."""

    folder: Path
    cache: list[str] = field(default_factory=list)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        (self.folder / f"unpickled.{os.getpid()}.{uuid.uuid4().hex}").touch()

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        self.cache.append(task["name"])
        return {"process": os.getpid(), "num_here": len(self.cache), "threads": torch.get_num_threads()}


class SettingThreads(Counting):
    """Sets the number of threads itself, when it arrives."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        torch.set_num_threads(3)


class Unreadable:
    """Cannot be unpickled in a worker."""

    def __reduce__(self) -> Any:
        return (_not_here, (os.getpid(),))

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        return {}


def _not_here(parent: int) -> Unreadable:
    if os.getpid() != parent:
        raise ModuleNotFoundError("a module that only the parent has")
    return Unreadable()
