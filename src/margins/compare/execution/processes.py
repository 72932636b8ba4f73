"""Tasks in processes of this machine; one that dies takes down the task that it had and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Self

import torch

from margins.compare.execution.measuring import described, failed, measured
from margins.compare.execution.protocol import Done, Work, refuse_to_wait_for_nothing
from margins.errors import MarginsError

_MAX_DEATHS = 2


class Processes:
    """Runs up to `num` tasks at the same time, each in a worker process that goes on to the next one.

    Use it on one machine; a script that makes one keeps it under `if __name__ == "__main__"`, because workers
    import the script. Each worker computes with its share of the cores. A task whose worker dies runs once
    more; the second time it counts as failed.

    Args:
        work: is pickled once and sent to each worker once.
        num: of workers; each is started when there is a task for it.

    Raises:
        MarginsError: fewer than one worker.
    """

    def __init__(self, work: Work, num: int) -> None:
        if num < 1:
            raise MarginsError("processes", expected="at least one", received=str(num))
        content = pickle.dumps(work)
        self._workers = [_Worker(content, num_threads=max(1, num_cores() // num)) for _ in range(num)]
        self._queue: deque[_Task] = deque()

    @property
    def slots(self) -> int:
        return len(self._workers)

    @property
    def pending(self) -> int:
        return len(self._queue) + sum(worker.running is not None for worker in self._workers)

    def submit(self, key: str, task: dict[str, Any]) -> None:
        self._queue.append(_Task(key, task))
        self._feed()

    def wait(self) -> list[Done]:
        """Waits until at least one task is done; gives all that are.

        Raises:
            RuntimeError: nothing is pending.
            MarginsError: workers end as they start.
        """
        refuse_to_wait_for_nothing(self.pending)
        done: list[Done] = []
        while not done:
            busy = {worker.running: worker for worker in self._workers if worker.running is not None}
            ended, _ = wait(busy, return_when=FIRST_COMPLETED)
            results = [self._result_of(busy[future], future) for future in ended]
            done += [result for result in results if result is not None]
            self._feed()
        return done

    def _feed(self) -> None:
        for worker in self._workers:
            if self._queue and worker.running is None:
                worker.run(self._queue.popleft())

    def _result_of(self, worker: _Worker, future: Future[Done]) -> Done | None:
        """How the task ended; None when it is to run again."""
        worker.running, task = None, worker.task
        try:
            return future.result()
        except BrokenProcessPool:
            error = "the worker process died twice while it ran (out of memory?)"
        except Exception as raised:  # what cannot be pickled on its way
            return failed(task.key, described(raised), since=task.since)
        worker.bury()
        task.deaths += 1
        if task.deaths < _MAX_DEATHS:
            self._queue.appendleft(task)
            return None
        return failed(task.key, error, since=task.since)

    def close(self) -> None:
        self._queue.clear()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def num_cores() -> int:
    """Cores that this process may use.

    Example:
        >>> num_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Task:
    key: str
    task: dict[str, Any]
    deaths: int = 0
    since: float = 0.0  # when it was last begun


class _Worker:
    """One process and the task that it has.

    A pool of its own: a pool of several breaks whole, and would not tell which of its tasks broke it.
    """

    running: Future[Done] | None = None
    task: _Task
    _pool: ProcessPoolExecutor | None = None
    _process_id: Future[int]

    def __init__(self, content: bytes, *, num_threads: int) -> None:
        self._begin_with = (content, num_threads)

    def run(self, task: _Task) -> None:
        self.task, task.since = task, time.perf_counter()
        try:
            self.running = self._process().submit(_run, task.key, task.task)
        except BrokenProcessPool:  # it died while it had nothing to do
            self.bury()
            self.running = self._process().submit(_run, task.key, task.task)

    def _process(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=self._begin_with
            )
            self._process_id = self._pool.submit(os.getpid)
        return self._pool

    def bury(self) -> None:
        """Lets go of a process that died; the next task gets a new one.

        Raises:
            MarginsError: it died before it could do anything.
        """
        self.close()
        if self._process_id.exception() is not None:
            raise MarginsError(
                "processes", expected="worker processes that start", received="one that ended at once",
                fix="in a script, call from under if __name__ == '__main__'; what it wrote says more",
            )  # fmt: skip

    def close(self) -> None:
        if self._pool is None:
            return
        if self.running is not None and not self.running.done():
            self._kill()
        self._pool.shutdown(cancel_futures=True)
        self._pool, self.running = None, None

    def _kill(self) -> None:
        """A task may have hours to go, and nothing waits for its end any more."""
        if self._process_id.exception() is not None:  # waits for its start
            return
        for process in multiprocessing.active_children():
            if process.pid == self._process_id.result():
                process.kill()


_WORK: dict[str, Work] = {}  # in a worker process, the work that it does


def _begin(content: bytes, num_threads: int) -> None:
    """Makes a process a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal; the parent answers
    torch.set_num_threads(num_threads)  # before the work is there, which may know better
    _WORK["work"] = pickle.loads(content)  # noqa: S301 - from the parent


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(key: str, task: dict[str, Any]) -> Done:
    return measured(_WORK["work"], key, task)
