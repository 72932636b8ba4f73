"""Tasks end alike wherever they run, and no death of a worker loses one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execution_work import Counting, Marking, SettingThreads, Unreadable, tries, wait_for
from margins.compare.execution import Executor, InProcess, OnRay, Processes, executor_for, measured
from margins.compare.execution import on_ray as module
from margins.compare.execution.processes import num_cores
from margins.errors import MarginsError

TESTS = Path(__file__).parent


def with_tests_on_the_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}


@pytest.fixture(scope="module")
def cluster() -> Iterator[OnRay]:
    """A Ray cluster of two workers on this machine."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patched:
        # Its workers import the work from here.
        patched.setenv("PYTHONPATH", with_tests_on_the_path()["PYTHONPATH"])
        with OnRay(Marking(), num_cpus=2) as executor:
            yield executor


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """Two worker processes."""
    with Processes(Marking(), 2) as executor:
        yield executor


@pytest.fixture(params=["processes", "cluster"])
def on_two(request: pytest.FixtureRequest) -> Executor:
    """Two workers; each test that uses them gives all of its tasks back."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["processes", "cluster"])
def made(request: pytest.FixtureRequest) -> Callable[[Any], Executor]:
    """What makes a fresh executor of two workers for a work."""
    if request.param == "processes":
        return lambda work: Processes(work, 2)
    request.getfixturevalue("cluster")
    return OnRay


def outcomes(executor: Executor) -> dict[str, tuple[Any, str | None]]:
    found = {}
    while executor.pending:
        for done in executor.wait():
            assert done.key not in found
            assert done.seconds >= 0
            assert done.where == socket.gethostname()
            found[done.key] = (done.value, done.error)
    return found


def submit(executor: Executor, tasks: list[dict[str, Any]]) -> None:
    before = executor.pending
    for task in tasks:
        executor.submit(task["name"], task)
    assert executor.pending == before + len(tasks)


def run(executor: Executor, tasks: list[dict[str, Any]]) -> dict[str, tuple[Any, str | None]]:
    submit(executor, tasks)
    return outcomes(executor)


def a_task(folder: Path, name: str, do: str = "double", x: int = 1, **more: Any) -> dict[str, Any]:
    return {"folder": str(folder), "name": name, "do": do, "x": x, **more}


def several(folder: Path, num: int, do: str = "double") -> list[dict[str, Any]]:
    return [a_task(folder, f"t{x}", do, x) for x in range(num)]


def has_ended(process: int) -> bool:
    """Whether it is gone, or waits for nothing but to be reaped by whoever adopted it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


# ---- what all of them do


def test_outcomes_are_those_of_this_process_with_failures_among_them(on_two: Executor, tmp_path: Path):
    tasks = [*several(tmp_path, 5), a_task(tmp_path, "refused", "refuse"), a_task(tmp_path, "failed", "fail")]
    with InProcess(Marking()) as here:
        expected = run(here, tasks)
        assert run(on_two, tasks) == expected
        assert run(on_two, tasks) == expected  # an executor goes on after a batch
        assert (here.slots, on_two.slots) == (1, 2)
    assert expected["t3"] == ({"twice": 6, "list": [3, None, "ü"]}, None)
    assert expected["refused"] == (None, "x: expected another, got 1")
    value, error = expected["failed"]
    assert value is None
    assert error.startswith("ZeroDivisionError: division by zero (")
    assert "execution_work.py:" in error
    assert error.endswith(" in _fail)")


def test_work_is_unpickled_once_a_worker_and_keeps_what_it_caches(made: Any, tmp_path: Path):
    with made(Counting(tmp_path)) as executor:
        values = [value for value, _ in run(executor, several(tmp_path, 12)).values()]
    workers = {value["process"] for value in values}
    assert os.getpid() not in workers
    assert 1 <= len(workers) <= 2
    assert sorted(tries(tmp_path, "unpickled")) == sorted(workers)
    assert sum(max(v["num_here"] for v in values if v["process"] == w) for w in workers) == 12


def test_work_in_this_process_is_not_pickled(tmp_path: Path):
    with InProcess(Counting(tmp_path)) as executor:
        values = [value for value, _ in run(executor, several(tmp_path, 3)).values()]
    assert [value["num_here"] for value in values] == [1, 2, 3]
    assert not tries(tmp_path, "unpickled")


def test_waiting_for_nothing_is_an_error(on_two: Executor):
    for executor in (InProcess(print), on_two):
        with pytest.raises(RuntimeError, match="nothing is pending"):
            executor.wait()


def test_a_dead_worker_s_task_runs_again_and_one_that_always_kills_fails_alone(
    on_two: Executor, tmp_path: Path
):
    once = a_task(tmp_path, "once", "die", times=1)
    always = a_task(tmp_path, "always", "die", times=99)
    found = run(on_two, [always, once, *several(tmp_path, 6)])
    value, error = found.pop("always")
    assert value is None
    assert "the worker process died" in error
    assert "out of memory?" in error
    assert len(tries(tmp_path, "always")) == (2 if isinstance(on_two, Processes) else 3)
    assert len(tries(tmp_path, "once")) == 2
    with InProcess(Marking()) as here:
        assert run(here, [once, *several(tmp_path, 6)]) == found


def test_closing_drops_what_waits_and_ends_what_runs(made: Any, tmp_path: Path):
    with made(Marking()) as executor:
        submit(executor, several(tmp_path, 5, "hold"))
        wait_for(lambda: len(tries(tmp_path, "t*")) == 2, "two tasks that run")
    workers = tries(tmp_path, "t*")
    if isinstance(executor, Processes):  # nothing is left to be reaped either
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    wait_for(lambda: all(map(has_ended, workers)), "the end of the workers")
    assert executor.pending == 0
    assert len(tries(tmp_path, "t*")) == 2


# ---- measuring


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset the mark")
def test_the_peak_is_that_of_the_task_and_not_of_those_before():
    # A process of its own: in one that has freed much, a task may fit into what was freed.
    code = (
        "from margins.compare.execution import measured\n"
        "def work(task): return {'sum': sum(bytearray(b'1') * task['size'])}\n"
        "for size in (50_000_000, 1): print(measured(work, 'k', {'size': size}).peak_bytes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=with_tests_on_the_path()
    )
    big, small = map(int, done.stdout.split())
    assert small > 1_000_000
    assert 45_000_000 < big - small < 80_000_000


def test_without_a_mark_to_reset_the_peak_is_not_known(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("margins.compare.execution.measuring._RESET", tmp_path / "none" / "there")
    assert measured(lambda task: task, "k", {}).peak_bytes is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_goes_through(kind: type[BaseException]):
    def work(task: dict[str, Any]) -> dict[str, Any]:
        raise kind

    with InProcess(work) as executor:
        executor.submit("k", {})
        with pytest.raises(kind):
            executor.wait()


# ---- processes


def test_a_task_beside_a_dying_worker_is_not_disturbed(processes: Processes, tmp_path: Path):
    submit(processes, [a_task(tmp_path, "held", "hold")])
    wait_for(lambda: tries(tmp_path, "held"), "a task that runs")
    submit(processes, [a_task(tmp_path, "always", "die", times=99)])
    assert [done.key for done in processes.wait()] == ["always"]
    (tmp_path / "go").touch()
    assert [done.error for done in processes.wait()] == [None]
    assert len(tries(tmp_path, "held")) == 1


def test_ctrl_c_does_not_reach_workers(processes: Processes, tmp_path: Path):
    submit(processes, [a_task(tmp_path, "held", "hold")])
    wait_for(lambda: tries(tmp_path, "held"), "a task that runs")
    os.kill(tries(tmp_path, "held")[0], signal.SIGINT)
    (tmp_path / "go").touch()
    assert [done.error for done in processes.wait()] == [None]
    assert len(tries(tmp_path, "held")) == 1


def test_a_worker_that_dies_between_tasks_is_replaced(processes: Processes, tmp_path: Path):
    run(processes, [a_task(tmp_path, "first")])
    (worker,) = tries(tmp_path, "first")
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: has_ended(worker), "its end")
    assert all(error is None for _, error in run(processes, several(tmp_path, 3)).values())


def test_a_value_that_cannot_be_sent_is_an_error_of_its_task(processes: Processes, tmp_path: Path):
    found = run(processes, [a_task(tmp_path, "bad", "unpicklable"), *several(tmp_path, 1)])
    assert "pickle" in found["bad"][1]
    assert found["t0"][1] is None


def test_workers_share_the_cores_unless_the_work_says_otherwise(tmp_path: Path):
    for work, expected in ((Counting(tmp_path), max(1, num_cores() // 2)), (SettingThreads(tmp_path), 3)):
        with Processes(work, 2) as executor:
            assert run(executor, several(tmp_path, 1))["t0"][0]["threads"] == expected


def test_work_that_cannot_be_read_in_a_worker_is_told():
    with Processes(Unreadable(), 1) as executor:
        executor.submit("k", {})
        with pytest.raises(MarginsError, match=r"worker processes that start, .*__main__"):
            executor.wait()


def test_workers_end_when_their_parent_is_killed(tmp_path: Path):
    code = (
        "import sys\n"
        "from execution_work import Marking\n"
        "from margins.compare.execution import Processes\n"
        "if __name__ == '__main__':\n"
        "    executor = Processes(Marking(), 1)\n"
        "    task = {'folder': sys.argv[1], 'name': 'held', 'x': 1, 'do': 'hold'}\n"
        "    executor.submit('held', task)\n"
        "    executor.wait()\n"
    )
    (tmp_path / "script.py").write_text(code)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path], env=with_tests_on_the_path()
    )
    try:
        wait_for(lambda: tries(tmp_path, "held"), "a task that runs")
        (worker,) = tries(tmp_path, "held")
        assert not has_ended(worker)
    finally:
        parent.kill()
        parent.wait()
    try:
        wait_for(lambda: has_ended(worker), "the end of the worker")
    finally:
        if not has_ended(worker):
            os.kill(worker, signal.SIGKILL)


# ---- ray


def test_a_ray_worker_killed_in_the_middle_of_a_batch_loses_nothing(cluster: OnRay, tmp_path: Path):
    tasks = several(tmp_path, 8, "hold")
    submit(cluster, tasks)
    wait_for(lambda: len(tries(tmp_path, "t*")) == 2, "two tasks that run")
    killed = tries(tmp_path, "t*")[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len(tries(tmp_path, "t*")) == 3, "the task that runs again, or the next one")
    (tmp_path / "go").touch()
    found = outcomes(cluster)
    assert sorted(len(tries(tmp_path, task["name"])) for task in tasks) == [1] * 7 + [2]
    assert tries(tmp_path, "t*").count(killed) == 1
    with InProcess(Marking()) as here:
        assert run(here, tasks) == found


def test_only_what_was_started_is_shut_down_and_nothing_of_this_process_is_changed(
    cluster: OnRay, tmp_path: Path
):
    with OnRay(Marking()) as executor:
        assert run(executor, several(tmp_path, 1))["t0"][1] is None
    assert run(cluster, several(tmp_path, 1))["t0"][1] is None
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    with pytest.raises(
        MarginsError, match=r"no cluster but the one at 10.0.0.5:6379, got a process that has one"
    ):
        OnRay(print, "10.0.0.5:6379")


def test_a_running_cluster_is_joined_by_its_address_and_left_running(cluster: OnRay, tmp_path: Path):
    import ray

    code = (
        "import sys\n"
        "from execution_work import Marking\n"
        "from margins.compare.execution import executor_for\n"
        "with executor_for('ray:' + sys.argv[2], Marking()) as executor:\n"
        "    executor.submit('t', {'folder': sys.argv[1], 'name': 't', 'x': 4})\n"
        "    print(executor.wait()[0].value['twice'], executor.slots)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, tmp_path, ray.get_runtime_context().gcs_address],
        env=with_tests_on_the_path(), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert child.stdout == "8 2\n"
    assert run(cluster, several(tmp_path, 1))["t0"][1] is None


@pytest.fixture
def unconnected(monkeypatch) -> None:
    """As if this process had no cluster."""
    pytest.importorskip("ray")
    monkeypatch.setattr(module, "_is_connected", lambda _: False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_told(scheme: str, unconnected: None):
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(
        MarginsError, match=f"ray: expected a cluster that answers at {address}, got no answer .*ref"
    ):
        executor_for(f"ray:{address}", print)


def test_an_address_where_something_else_listens_is_told(unconnected: None, monkeypatch):
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(MarginsError, match=f"answers at {address}, got no answer .within 2 seconds"):
            OnRay(print, address)


def test_what_ray_says_of_an_address_is_told(unconnected: None, monkeypatch):
    # In place of "auto" on a machine without a cluster: other tests may have one.
    monkeypatch.setattr(module, "_PROBE", "raise ConnectionError('Could not find any running Ray instance')")
    with pytest.raises(
        MarginsError, match=r"answers at auto, got no answer \(ConnectionError: Could not find"
    ):
        OnRay(print, "auto")


def test_a_missing_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MarginsError, match=r"ray: expected an installed package.*pip install 'margins\[ray\]'"
    ):
        executor_for("ray", print)


# ---- choosing


def test_an_executor_is_chosen_by_name():
    for name, kind, slots in (
        ("local", InProcess, 1), ("processes", Processes, num_cores()), ("processes:3", Processes, 3),
    ):  # fmt: skip
        with executor_for(name, print) as executor:
            assert isinstance(executor, kind)
            assert executor.slots == slots


@pytest.mark.parametrize(
    ("name", "near"),
    [("process", "did you mean processes"), ("processes:0", "known: local"), ("processes:", "known: local"),
     ("processes:-1", "known"), ("processes:2.5", "known"), ("local:2", "did you mean local"), ("", "known"),
     ("Ray", "did you mean ray"), ("ray:", "known"), ("locl", "did you mean local")],
)  # fmt: skip
def test_a_name_that_is_none_gets_a_suggestion(name: str, near: str):
    with pytest.raises(MarginsError, match=f"on: expected the name of an executor, got '{name}'; .*{near}"):
        executor_for(name, print)
