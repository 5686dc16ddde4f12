"""Atomic writes: a file gets its name only when it is complete, so that no reader sees an incomplete one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptlreid.errors import DataError, PtlreidError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file in the folder of `path`, renamed to `path` when the block ends, and removed if it fails.

    The content is on the disk before the rename (fsync), so a power cut leaves the old file or the new one.
    Raises `PtlreidError` if it cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise PtlreidError(f"{path}: cannot be written ({error.strerror or error}). {_ADVICE}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, renamed to `path` when the block ends, and removed if it fails.

    `path` must not exist yet. Raises `PtlreidError` if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise PtlreidError(f"{path}: cannot be created ({error.strerror or error}). {_ADVICE}") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    except OSError as error:
        raise PtlreidError(f"{path}: cannot be written ({error.strerror or error}). {_ADVICE}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically. Raises `ValueError` for NaN and infinity."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in the JSON file `path`; `DataError` if it is not readable as JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}). Remove it and run the command again.") from error


def file_digest(path: Path) -> str:
    """The BLAKE2b digest of the bytes in `path`, 32 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _umask() -> int:
    # mkstemp and mkdtemp create private files; the final file gets the permissions of any new file.
    current = os.umask(0)
    os.umask(current)
    return current


_ADVICE = "Check that the folder is writable and the disk has room, then run the command again."
