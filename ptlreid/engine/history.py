"""The history of a run: one JSON object per line, steps and epochs in chronological order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from ptlreid.errors import DataError
from ptlreid.files import open_to_append


class History:
    """Appends to the file at `path`, of which the first `keep` bytes are kept: lines after the last checkpoint are cut.

    A context manager that closes the file. With None for `path`, as on all processes but the main one, nothing is
    written. Raises `PtlreidError` if there is anything but a regular file at `path`, such as a link to one elsewhere.
    """

    def __init__(self, path: Path | None, keep: int = 0) -> None:
        self._path, nowhere = path, Path(os.devnull)
        self._file = open_to_append(path) if path else nowhere.open("a", encoding="utf-8")
        if path:
            self._file.truncate(min(keep, self._file.tell()))
            self._file.seek(0, os.SEEK_END)

    def add(self, kind: str, **values: Any) -> None:
        """Write a line: `kind` is `step` or `epoch`."""
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")

    def flush(self) -> int:
        """Write all lines to disk; returns the file's size in bytes."""
        self._file.flush()
        if not self._path:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All complete lines; `DataError` names a line that is not a JSON object or lacks a number."""
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
        except ValueError:  # or not text
            entry = None
        if not isinstance(entry, dict):
            raise DataError(f"{path}, line {number}: not a JSON object. Resume the run to repair it.")
        missing = [key for key in _REQUIRED.get(str(entry.get("kind")), ()) if not isinstance(entry.get(key), int)]
        if missing:
            raise DataError(
                f"{path}, line {number}: expected integer {' and '.join(missing)}. Remove the line, or train again."
            )
        entries.append(entry)
    return entries


_REQUIRED = {"step": ("epoch", "step"), "epoch": ("epoch",)}  # integers that every line of a kind has
