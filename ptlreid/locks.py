"""File locks: one process at a time prepares a dataset, trains a run, or stores the rows of an extraction.

All are locks of the operating system, which releases them when the process ends, however it ends. On Windows nothing
is locked.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from ptlreid.errors import CheckpointError, PtlreidError
from ptlreid.progress import Progress

if sys.platform != "win32":
    import fcntl

_ADVICE = "Check that you can write to this folder and that its file system supports locks, then run the command again."


@contextmanager
def wait_for_lock(target: Path, progress: Progress, *, command: str = "ptlreid prepare") -> Iterator[None]:
    """Lock `target`, which need not exist, for the block; wait while another thread or process holds its lock.

    The lock file is `.NAME.lock` next to `target` and is removed afterwards. `command`: what the note on waiting calls
    the other process. Raises `PtlreidError` if the file cannot be created or locked.
    """
    if sys.platform == "win32":
        yield
        return
    path = target.with_name(f".{target.name}.lock")

    def wait(stream: BinaryIO) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"waiting for another `{command}` to finish ({path})")
            fcntl.flock(stream, fcntl.LOCK_EX)

    with _hold(path, wait):
        yield


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Lock the run whose lock file is `path` for the block: `CheckpointError` if another process is training it.

    The run's folder is created if necessary. The lock file is removed afterwards, and so is a folder that is still
    empty. A file system without locks is accepted. Raises `PtlreidError` if the file cannot be created.
    """
    if sys.platform == "win32":
        yield
        return

    def refuse(stream: BinaryIO) -> None:
        try:
            # Not flock: loader processes would inherit it, and hold it for a while after this process is killed.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise CheckpointError(
                f"{path.parent}: another process is training this run: expected one at a time. Wait until it "
                "ends, then repeat the command to resume or reuse the run; or choose another --name."
            ) from None
        except OSError:  # a file system without locks
            pass

    with _hold(path, refuse, remove_empty_folder=True):
        yield


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Lock the file `path` for the block, without waiting: whether that was possible, as no other process holds it.

    The lock file is removed afterwards. A file system without locks is accepted, and on Windows nothing is locked.
    Raises `PtlreidError` if the file cannot be created.
    """
    if sys.platform == "win32":
        yield True
        return

    def lock(stream: BinaryIO) -> None:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, as in `lock_run`
        except (BlockingIOError, PermissionError):
            raise _TakenError from None
        except OSError:  # a file system without locks
            pass

    with ExitStack() as stack:
        try:
            stack.enter_context(_hold(path, lock))
            free = True
        except _TakenError:
            free = False
        yield free


class _TakenError(Exception):
    """Another process holds the lock."""


def open_own(path: Path) -> BinaryIO:
    """The lock file or partial file at `path`, for reading and appending, created if necessary.

    Raises `PtlreidError` for a link, which could point to any file of the user's, and for anything but a file.
    """
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise PtlreidError(f"{path}: is no regular file, as expected. Remove it, then run the command again.")
    guards = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | guards, 0o666), "a+b")


def hold_temporary(path: Path) -> int | None:
    """Lock a temporary file or folder that was just made, until the handle that is returned is closed.

    None on Windows. `FileNotFoundError` if another process took it for abandoned.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        path.stat()
    except BaseException:
        os.close(handle)
        raise
    return handle


def try_lock(stream: IO[Any] | int) -> bool:
    """Whether the open file could be locked, without waiting; the lock lasts until it is closed.

    False if another process holds the lock, on Windows, and on a file system without locks.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _hold(path: Path, lock: Callable[[BinaryIO], None], *, remove_empty_folder: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for the block, then remove it while it is still locked.

    A process that opened the file before its removal notices that it is no longer in the folder, and opens a new one.
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


def _open_locked(path: Path, lock: Callable[[BinaryIO], None]) -> BinaryIO:
    """The file at `path`, created if necessary and locked; opened again if it was removed while waiting."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # each time: the previous owner may have removed it
        stream = open_own(path)
        try:
            lock(stream)
            if _is_at(stream, path):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def _is_at(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
