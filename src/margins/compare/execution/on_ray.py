"""Tasks on a Ray cluster: one of this machine alone, or one that runs elsewhere."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Self

from margins.compare.execution.measuring import described, failed, measured
from margins.compare.execution.protocol import Done, Work, refuse_to_wait_for_nothing
from margins.data.extras import extra
from margins.errors import MarginsError

_MAX_RETRIES = 2
_CONNECT_SECONDS, _ANSWER_SECONDS = 3, 15
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
_STORE_BYTES = 100 * 2**20  # of shared memory beside the work; what tasks take and give is small

# In a process of its own: where nothing answers, Ray goes on trying for minutes and cannot be told to stop.
_PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


class OnRay:
    """Runs as many tasks at the same time as the cluster has CPUs.

    Use it for more than one machine; margins must be installed on each. A task whose worker dies is run again
    by Ray, up to twice; then it counts as failed.

    Args:
        work: is put on the cluster once and kept by each worker process.
        address: of the cluster, "auto" for the one that runs on this machine; None starts one that ends with
            this executor, or uses the one that this process is connected to.
        num_cpus: of a cluster that is started; None takes what Ray finds.

    Raises:
        MarginsError: ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, work: Work, address: str | None = None, *, num_cpus: int | None = None) -> None:
        with extra("ray"):
            import ray
            from ray import cloudpickle
        self._ray: Any = ray
        # As bytes: arrays that Ray shares among processes could not be written by the work.
        content: bytes = cloudpickle.dumps(work)
        self._is_own = not _is_connected(address)
        if self._is_own:
            _connect(address, num_cpus=num_cpus, num_bytes=_STORE_BYTES + 2 * len(content))
        self._work = [ray.put(content)]  # in a list it stays a reference, which the worker knows it by
        self._remote: Any = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES, retry_exceptions=False)(_run)
        self._running: dict[Any, tuple[str, float]] = {}

    @property
    def slots(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    @property
    def pending(self) -> int:
        return len(self._running)

    def submit(self, key: str, task: dict[str, Any]) -> None:
        self._running[self._remote.remote(self._work, key, task)] = (key, time.perf_counter())

    def wait(self) -> list[Done]:
        refuse_to_wait_for_nothing(self.pending)
        self._ray.wait(list(self._running), num_returns=1)
        ended, _ = self._ray.wait(list(self._running), num_returns=self.pending, timeout=0)
        return [self._result_of(reference) for reference in ended]

    def _result_of(self, reference: Any) -> Done:
        key, since = self._running.pop(reference)
        try:
            return self._ray.get(reference)
        except (
            self._ray.exceptions.RayTaskError
        ) as error:  # outside of the work: it or the task cannot be read
            return failed(key, described(error.cause), since=since)
        except self._ray.exceptions.RayError as error:
            times = _MAX_RETRIES + 1
            text = (
                f"the worker process died {times} times while it ran (out of memory?): {type(error).__name__}"
            )
            return failed(key, text, since=since)

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._is_own:
            self._ray.shutdown()
            self._is_own = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_WORKS: dict[str, Work] = {}  # in a worker process, the last work that it did, by its reference


def _run(work: list[Any], key: str, task: dict[str, Any]) -> Done:
    (reference,) = work
    name = reference.hex()
    if name not in _WORKS:
        import ray

        _WORKS.clear()
        _WORKS[name] = pickle.loads(ray.get(reference))  # noqa: S301 - from the driver
    return measured(_WORKS[name], key, task)


def _is_connected(address: str | None) -> bool:
    """Whether this process has a cluster already, and it is wanted."""
    import ray

    if not ray.is_initialized():
        return False
    if address not in (None, "auto"):
        raise MarginsError(
            "ray", expected=f"no cluster but the one at {address}", received="a process that has one already",
            fix="name no address to use that one, or call ray.shutdown() before",
        )  # fmt: skip
    return True


def _connect(address: str | None, *, num_cpus: int | None, num_bytes: int) -> None:
    import ray

    with _surroundings_kept():
        if address is None:
            # Ray would run tasks that ran out of memory again and again.
            limits = {"task_oom_retries": _MAX_RETRIES}
            ray.init(
                "local", num_cpus=num_cpus, include_dashboard=False, object_store_memory=num_bytes,
                _system_config=limits, **_QUIET,
            )  # fmt: skip
            return
        _refuse_no_answer(address)
        try:
            ray.init(address, **_QUIET)
        except (OSError, RuntimeError, ValueError) as error:
            raise _no_answer(address, str(error)) from None


def _refuse_no_answer(address: str) -> None:
    place = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address)
    if place:
        try:
            socket.create_connection((place[1], int(place[2])), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_answer(address, str(error)) from None
    try:
        subprocess.run(  # noqa: S603 - the address is an argument, never code
            [sys.executable, "-c", _PROBE, address], check=True, timeout=_ANSWER_SECONDS, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _no_answer(address, f"within {_ANSWER_SECONDS} seconds") from None
    except subprocess.CalledProcessError as error:
        raise _no_answer(address, (error.stderr.strip().splitlines() or [""])[-1][:300]) from None


def _no_answer(address: str, reason: str) -> MarginsError:
    return MarginsError(
        "ray", expected=f"a cluster that answers at {address}", received=f"no answer ({reason})",
        fix="check it with 'ray status' (and RAY_AUTH_MODE if it wants a token), or name none to start one",
    )  # fmt: skip


@contextmanager
def _surroundings_kept() -> Generator[None]:
    """Ray counts no usage over the network, and what it changes of this process is put back."""
    name = "RAY_USAGE_STATS_ENABLED"
    before, handler = os.environ.get(name), signal.getsignal(signal.SIGTERM)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
