"""A pool of worker processes, each a fresh interpreter that loads only what its function needs.

Not threads: rendering and decoding small images is mostly Python's own work. Not `multiprocessing`: its processes
import the caller's main module, and torch with it, and a script without a main guard would start them endlessly.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Generic, TypeVar

from ptlreid.errors import PtlreidError

Task = TypeVar("Task")
Result = TypeVar("Result")

_Process = subprocess.Popen[bytes]


class WorkerPool(Generic[Task, Result]):
    """A context manager that calls `function` for tasks in parallel, in `count` processes that end with the block.

    `function`: defined at the top level of a module. Tasks and results are pickled; paths among them must be absolute,
    as a worker has another working directory. With a `count` below 2, all tasks run in this process.
    """

    def __init__(self, function: Callable[[Task], Result], count: int, *, describe: Callable[[Task], str]) -> None:
        """`describe`: names a task, for example by its folder, at the start of the error about a dead worker."""
        self._function = function
        self._count = count
        self._describe = describe
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> WorkerPool[Task, Result]:
        if self._count < 2:
            return self
        try:
            for _ in range(self._count):
                process = _start()
                self._processes.append(process)
                self._idle.put(process)
                with suppress(BrokenPipeError):  # died at once: its first task reports it
                    _send(process, self._function)
        except BaseException:
            self._end()
            raise
        self._threads = ThreadPoolExecutor(self._count)  # one thread waits for each process
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def map(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The results in the order of the tasks, each as soon as it and all earlier ones are available.

        Raises what `function` raises, with the worker's traceback as a note, and `PtlreidError` when a worker dies.
        """
        if self._threads is None:
            return map(self._function, tasks)
        return _in_order([self._threads.submit(self._ask, task) for task in tasks])

    def _ask(self, task: Task) -> Result:
        """The result of one task, from an idle process."""
        process = self._idle.get()
        try:
            _send(process, task)
            assert process.stdout is not None
            succeeded, answer = pickle.load(process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            reason = _describe_exit(process.wait())
            raise PtlreidError(
                f"{self._describe(task)}: the worker process ended early ({reason}), perhaps for lack of memory. "
                "Run the command again."
            ) from None
        finally:
            self._idle.put(process)
        if not succeeded:
            raise answer
        result: Result = answer
        return result

    def _end(self) -> None:
        """Kill the processes at once, whatever they are doing: an error or Ctrl-C waits for no task."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        if self._threads is not None:
            self._threads.shutdown()  # each thread has now seen the end of its process
        for process in self._processes:
            with suppress(BrokenPipeError), process:  # closes the pipes and waits
                pass


def serve() -> None:
    """The main loop of a worker: the function, then tasks, come from standard input; results go to standard output.

    Ends when its standard input closes, and so when its parent process ends, however that happens.
    """
    tasks = sys.stdin.buffer
    # What the function prints goes to standard error, as standard output is reserved for results.
    with suppress(BrokenPipeError, EOFError), os.fdopen(os.dup(sys.stdout.fileno()), "wb") as results:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        function = pickle.load(tasks)
        while True:
            task = pickle.load(tasks)
            try:
                answer = (True, function(task))
            except Exception as error:  # noqa: BLE001 - the caller raises it again
                error.add_note(f"In a worker process:\n{traceback.format_exc()}")
                answer = (False, error)
            results.write(pickle.dumps(answer))
            results.flush()


def _in_order(futures: list[Future[Result]]) -> Iterator[Result]:
    for future in futures:
        # Python runs a signal's handler between steps of the main thread. If the signal comes just before that thread
        # starts to wait, nothing wakes it: so it never waits for long.
        while not wait([future], timeout=0.5).done:
            pass
        yield future.result()


def _start() -> _Process:
    return subprocess.Popen(
        [sys.executable, "-c", "from ptlreid.workers import serve; serve()"],
        cwd=Path(__file__).parents[1],  # where `ptlreid` is found
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the parent process only, which ends this one
    )


def _send(process: _Process, value: object) -> None:
    stream: IO[bytes] | None = process.stdin
    assert stream is not None
    stream.write(pickle.dumps(value))
    stream.flush()


def _describe_exit(code: int) -> str:
    """The exit code in words: a negative one is the signal's number."""
    return signal.strsignal(-code) or f"signal {-code}" if code < 0 else f"exit code {code}"
