"""File locks: one process at a time makes a dataset, trains a run, or keeps the rows of an extraction.

All are locks of the operating system, so that they end with their process, however it ends. On Windows there are none,
and every process goes ahead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ptlreid.errors import CheckpointError, PtlreidError
from ptlreid.progress import Progress

if sys.platform != "win32":
    import fcntl

_ADVICE = "Check that you can write to this folder and that its file system has locks, then run the command again."


@contextmanager
def wait_for_lock(target: Path, progress: Progress, *, command: str = "ptlreid prepare") -> Iterator[None]:
    """Lock `target`, which need not exist, for the block; wait while another thread or process holds its lock.

    The lock file is `.NAME.lock` next to `target` and is gone afterwards. `command`: what the other one is running,
    for the note on waiting. Raises `PtlreidError` where the file cannot be created or locked.
    """
    if sys.platform == "win32":
        yield
        return
    path = target.with_name(f".{target.name}.lock")

    def wait(stream: IO[str]) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"waiting for another `{command}` to finish ({path})")
            fcntl.flock(stream, fcntl.LOCK_EX)

    with _hold(path, wait):
        yield


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Lock the run whose lock file is `path` for the block: `CheckpointError` where another process is training it.

    The run's folder is created if necessary. The lock file is gone afterwards, and so is a folder that is still empty.
    A file system without locks is accepted. Raises `PtlreidError` where the file cannot be created.
    """
    if sys.platform == "win32":
        yield
        return

    def refuse(stream: IO[str]) -> None:
        try:
            # Not flock: loader processes would inherit it, and hold it for a while after this process was killed.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise CheckpointError(
                f"{path.parent}: another process is training this run: expected one at a time. Wait until it has "
                "ended, then the same command resumes or reuses the run; or choose another --name."
            ) from None
        except OSError:  # a file system without locks
            pass

    with _hold(path, refuse, remove_empty_folder=True):
        yield


def try_lock(stream: IO[Any]) -> bool:
    """Whether this open file is now locked, until it is closed; False at once where another one holds the lock.

    Also False on Windows and on a file system without locks.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _hold(path: Path, lock: Callable[[IO[str]], None], *, remove_empty_folder: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for the block, then remove it while it is still locked.

    Whoever opened the file before it was removed then finds that theirs has left the folder, and opens a new one.
    """
    try:
        stream = _open_locked(path, lock)
    except OSError as error:
        raise PtlreidError(f"{path}: cannot be locked ({error.strerror or error}). {_ADVICE}") from error
    with stream:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if remove_empty_folder:
                with suppress(OSError):
                    path.parent.rmdir()


def _open_locked(path: Path, lock: Callable[[IO[str]], None]) -> IO[str]:
    """The file at `path`, created if necessary, after `lock` returned for it and while it is still in its folder."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # each time: the process before may have removed an empty one
        stream = path.open("w")
        try:
            lock(stream)
            if _is_at(stream, path):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
