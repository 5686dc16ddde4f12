"""Atomic writes: a file gets its name only when it is complete, so that no reader sees an incomplete one."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ptlreid.errors import PtlreidError
from ptlreid.locks import hold_temporary, try_lock

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.part")
MAX_BYTES = 1 << 30  # of a file that is read into memory as it is

# Opening a FIFO would wait for a writer. Windows has no O_NONBLOCK, and only Windows O_BINARY.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@contextmanager
def atomic_write(path: Path, needed: int | None = None) -> Iterator[Path]:
    """A temporary file in the folder of `path`, renamed to `path` when the block ends, and removed if it fails.

    The content is on the disk before the rename (fsync), so a power cut leaves the old file or the new one.
    Raises `PtlreidError` if it cannot be written; the message names the bytes `needed`, if the caller knows them.
    """
    try:
        with _temporary(path, folder=False) as temporary:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except OSError as error:  # the temporary file is gone: what it took counts as free
        raise unwritable(path, error, needed) from error


@contextmanager
def _temporary(path: Path, *, folder: bool) -> Iterator[Path]:
    """A temporary file or folder next to `path`, removed at the end of the block if it still has its name.

    It is locked, so that others see it in use. Those that killed processes left in the same folder are removed.
    """
    if _is_special(path):
        raise PtlreidError(
            f"{path}: is a pipe or device, which a file would replace: expected the name of a file. Give another one."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    before, after = f".{path.name}.", ".part"
    while True:
        if folder:
            temporary = Path(tempfile.mkdtemp(after, before, path.parent))
        else:
            new, name = tempfile.mkstemp(after, before, path.parent)
            os.close(new)
            temporary = Path(name)
        with suppress(FileNotFoundError):  # taken for abandoned before it was locked: make another
            handle = hold_temporary(temporary)
            break
    try:
        yield temporary
    finally:
        if folder:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in `folder`: nobody holds their locks."""
    left: list[Path] = []
    with suppress(OSError):  # a folder that may be written to and not be listed
        left = [Path(entry.path) for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name)]
    for path in left:
        with suppress(OSError):  # another process was faster, or may write here and this one not
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                if try_lock(handle):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


@contextmanager
def unsynced_write(path: Path, needed: int | None = None) -> Iterator[Path]:
    """As `atomic_write`, for the many files of a folder that only this process writes, and makes durable at the end.

    An `OSError` without an error number, as of a library that reads damaged data in the block, is passed on.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise unwritable(path, error, needed) from error


class Output(FileIO):
    """A file for libraries that may end the process when a write fails, such as HDF5.

    For them every write succeeds. The first that did not is kept as `error`, and nothing is written after it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self.error: OSError | None = None
        self._end = 0  # bytes that are reserved after it do not exist for the library

    def write(self, data: Any) -> int:
        """Write all of `data`; its number of bytes."""
        left = memoryview(data).cast("B")
        start, size = self.tell(), len(left)
        try:
            while left and not self.error:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        end = super().seek(start + size)
        if size:  # writing nothing beyond the end does not move it
            self._end = max(self._end, end)
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, which is returned; the end is that of what was written."""
        return super().seek(self._end + offset) if whence == os.SEEK_END else super().seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file, and what is reserved, at `size`."""
        self._end = self.tell() if size is None else size
        try:
            super().truncate(self._end)
        except OSError as error:
            self.error = self.error or error
        return self._end


@contextmanager
def atomic_output(path: Path, needed: int | None = None) -> Iterator[Output]:
    """As `atomic_write`, an open file to write to. The bytes `needed`, if known, are reserved where the system can."""
    with atomic_write(path, needed) as temporary, Output(temporary) as output:
        if needed and hasattr(os, "posix_fallocate"):  # not on macOS and Windows
            os.posix_fallocate(output.fileno(), 0, needed)
        try:
            yield output
        except Exception as error:
            if output.error:
                raise output.error from error  # the cause
            raise
        if output.error:
            raise output.error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, renamed to `path` when the block ends, and removed if it fails.

    `path` must not exist yet. Raises `PtlreidError` if it cannot be written.
    """
    try:
        with _temporary(path, folder=True) as temporary:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(path)
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, whose files are moved there, in order of name, when the block ends.

    They are removed if it fails. Raises `PtlreidError` if they cannot be written.
    """
    try:
        with _temporary(path, folder=True) as temporary:
            yield temporary
            for file in sorted(temporary.iterdir()):
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
                file.chmod(0o666 & ~_umask())
                file.replace(path.parent / file.name)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError, needed: int | None = None) -> PtlreidError:
    """The error for a file or folder that cannot be written: the reason, what was expected, and what to do."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    room = f" for {needed:,} bytes" if needed else ""
    if error.errno == errno.ENOSPC:
        free = shutil.disk_usage(folder).free
        remedy = f"expected room{room}, but {free:,} bytes are free in {folder}. Make room there"
    elif error.errno == errno.EDQUOT:
        remedy = f"expected room{room} within your quota for {folder}. Remove files of yours there"
    elif error.errno == errno.EFBIG:
        remedy = f"expected that a file may be large enough{room}. Raise the limit (`ulimit -f`), or use another disk"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        remedy = f"expected permission to write in {folder}. Change it, or choose another folder"
    else:
        remedy = f"expected a folder to write in. Check {folder} and its disk"
    return PtlreidError(f"{path}: cannot be written ({error.strerror or error}): {remedy}, then run the command again.")


def open_to_append(path: Path) -> TextIO:
    """The text file at `path` for appending, created if necessary.

    Raises `PtlreidError` if it cannot be opened, or is no regular file: a link could point to any file of the user's.
    """
    guards = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
    kind = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
    if not stat.S_ISREG(kind):
        raise PtlreidError(
            f"{path}: is a link, a folder or a pipe, expected a regular file. Remove it, then run the command again."
        )
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | guards, 0o666), "a", encoding="utf-8")
    except OSError as error:  # it may also have become a link just now
        raise unwritable(path, error) from error


def open_regular(path: Path | str, *, most_bytes: int = MAX_BYTES) -> BinaryIO:
    """The regular file at `path`, opened for reading its bytes.

    `OSError` if it cannot be opened, if it is a folder, a FIFO, a socket or a device, which could block or never end,
    or if it is larger than `most_bytes`, as most readers take all of it into memory.
    """
    descriptor = os.open(path, _READ)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size <= most_bytes:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(found.st_mode):
        raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path | str) -> bytes:
    """The bytes of the regular file at `path`; `OSError` as from `open_regular`."""
    with open_regular(path) as stream:
        return stream.read()


def file_digest(path: Path) -> str:
    """The BLAKE2b digest of the bytes in `path`, 32 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _umask() -> int:
    # mkstemp and mkdtemp create private files; the final file gets the permissions of any new file.
    current = os.umask(0)
    os.umask(current)
    return current
