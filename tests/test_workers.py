"""The pool of worker processes. Workers cannot import a test module, so that their function is `eval`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from ptlreid.errors import PtlreidError
from ptlreid.workers import WorkerPool

PID_LATER = "__import__('time').sleep(0.5) or __import__('os').getpid()"


def pool_of(count: int) -> WorkerPool[str, object]:
    return WorkerPool(eval, count, describe=lambda task: f"<{task}>")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("count", [0, 1, 2])
def test_results_keep_the_order_of_the_tasks(count):
    tasks = [f"__import__('time').sleep({0.02 if number % 2 == 0 else 0}) or {number}" for number in range(10)]
    with pool_of(count) as pool:
        assert list(pool.map(tasks)) == list(range(10))


def test_a_pool_can_map_twice_and_no_task_is_no_result():
    with pool_of(2) as pool:
        assert [*pool.map(["1", "2", "3"]), *pool.map([]), *pool.map(["4"])] == [1, 2, 3, 4]


def test_each_worker_is_a_process_of_its_own_that_ends_with_the_pool():
    with pool_of(2) as pool:
        pids = set(pool.map([PID_LATER] * 2))
        assert len(pids - {os.getpid()}) == 2
    assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_workers_are_no_process(count):
    with pool_of(count) as pool:
        assert list(pool.map([PID_LATER])) == [os.getpid()]


def test_a_worker_loads_neither_torch_nor_numpy_nor_the_callers_main_module():
    with pool_of(2) as pool:
        (modules,) = pool.map(["set(__import__('sys').modules)"])
    assert not {"torch", "numpy", "PIL", "pydantic", "pytest"} & modules


def test_what_a_function_prints_is_no_result(capfd):
    with pool_of(2) as pool:
        assert list(pool.map(["print('hello', flush=True)", "7"])) == [None, 7]
    assert capfd.readouterr() == ("", "hello\n")


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_the_function_is_raised_as_it_is(count):
    with pool_of(count) as pool, pytest.raises(FileNotFoundError, match="nowhere") as raised:
        list(pool.map(["open('/nowhere')"] * 3))
    if count > 1:
        (note,) = raised.value.__notes__
        assert note.startswith("In a worker process:\nTraceback")


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("__import__('os').kill(__import__('os').getpid(), 9)", "Killed"),
        ("__import__('os')._exit(3)", "exit code 3"),
    ],
)
def test_a_worker_that_dies_is_one_clear_message(task, reason):
    with pool_of(2) as pool, pytest.raises(PtlreidError) as raised:
        list(pool.map(["1", task, "2"]))
    assert str(raised.value).startswith(f"<{task}>: the worker process ended early ({reason})")
    assert str(raised.value).endswith("Run the command again.")


def test_an_error_of_the_caller_waits_for_no_task():
    start = time.perf_counter()
    with pytest.raises(ValueError, match="caller"), pool_of(2) as pool:
        list(pool.map(["1"]))
        results = pool.map(["__import__('time').sleep(60)"] * 6)
        raise ValueError("caller")
    del results
    assert time.perf_counter() - start < 30


CALLER = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started the tests in the background
from ptlreid.workers import WorkerPool
with WorkerPool(eval, 2, describe=str) as pool:
    print(*pool.map([{PID_LATER!r}] * 2), flush=True)
    list(pool.map(["__import__('time').sleep(60)"] * 4))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_caller_and_leaves_no_worker(number):
    with subprocess.Popen(
        [sys.executable, "-c", CALLER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        pids = [int(pid) for pid in caller.stdout.readline().split()]
        assert len(set(pids)) == 2
        assert all(is_running(pid) for pid in pids)
        caller.send_signal(number)
        caller.wait(30)
    assert caller.returncode == -number
    if number == signal.SIGINT:  # SIGTERM leaves Python no time to end them: they end with their input, after a task
        assert not any(is_running(pid) for pid in pids)
    else:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
