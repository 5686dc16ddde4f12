"""One process at a time makes a dataset."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ptlreid.errors import PtlreidError
from ptlreid.progress import Progress


@contextmanager
def alone(folder: Path, progress: Progress) -> Iterator[None]:
    """While the block runs, no other process is in such a block for `folder`; one that comes waits, and is told so.

    The lock is the system's own on a file beside the folder: it ends with its process, however that ends. There is
    none on Windows.
    """
    if sys.platform == "win32":
        yield
        return
    place = folder.with_name(f".{folder.name}.lock")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        stream = _locked(place, progress)
    except OSError as error:
        advice = "Check that the folder may be written to and allows locks, then run the command again."
        raise PtlreidError(f"{place}: cannot be locked ({error.strerror or error}). {advice}") from error
    with stream:
        try:
            yield
        finally:
            place.unlink(missing_ok=True)  # still locked: whoever waits for this file then makes a new one


def _locked(place: Path, progress: Progress) -> IO[str]:
    """The file at `place`, made if need be, and locked by this process alone."""
    import fcntl

    while True:
        stream = place.open("w")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"Another `ptlreid prepare` is at work there, and is waited for: {place}")
            fcntl.flock(stream, fcntl.LOCK_EX)
        if place.exists() and os.path.samestat(os.fstat(stream.fileno()), place.stat()):
            return stream
        stream.close()  # it was removed by the one before
