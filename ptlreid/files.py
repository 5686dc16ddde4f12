"""Files that matter are written aside and renamed, so that no reader ever meets half of one."""

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
    """A temporary file beside `path`: it takes that name when the block ends, and is gone when the block fails.

    The content is on the disk before the name is (fsync), so a power cut leaves the old file or the new one.
    Raises `PtlreidError` when the disk refuses.
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
    """A temporary folder beside `path`, which must not exist yet: renamed when the block ends, removed if it fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise PtlreidError(f"{path}: cannot be made ({error.strerror or error}). {_ADVICE}") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    except OSError as error:
        raise PtlreidError(f"{path}: cannot be written ({error.strerror or error}). {_ADVICE}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON in `path`, written aside and renamed. NaN and infinity are our own mistake."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in the JSON file `path`; `DataError` when it cannot be read as JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}). Remove it and run the command again.") from error


def file_digest(path: Path) -> str:
    """The BLAKE2b digest of the bytes in `path`, 32 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _umask() -> int:
    # mkstemp and mkdtemp make private files; a finished file has the access that any new file would have.
    current = os.umask(0)
    os.umask(current)
    return current


_ADVICE = "Check that the folder may be written to and that the disk has room, then run the command again."
