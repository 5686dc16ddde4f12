"""The history of a run: one JSON object a line, steps and epochs in the order they happened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from ptlreid.errors import DataError


class History:
    """Appends to the file at `path`, of which the first `keep` bytes stay: what came after them was not saved.

    A context manager, which closes the file. With None for `path`, as on all processes but the main one, lines go
    nowhere.
    """

    def __init__(self, path: Path | None, keep: int = 0) -> None:
        path = path or Path(os.devnull)
        if path.is_file():
            os.truncate(path, min(keep, path.stat().st_size))
        self._file = path.open("a", encoding="utf-8")

    def add(self, kind: str, **values: Any) -> None:
        """One line: `kind` is `step` or `epoch`."""
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")

    def flush(self) -> int:
        """Put all lines on the disk; returns the file's size in bytes."""
        self._file.flush()
        if self._file.name == os.devnull:
            return 0
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All lines but a last one that is still being written; `DataError` names a line that is no JSON object."""
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entry = json.loads(line)
        except ValueError:  # nor text
            entry = None
        if not isinstance(entry, dict):
            raise DataError(f"{path}, line {number}: not JSON. Continue the run to have it repaired.")
        lacking = [key for key in _NEEDED.get(str(entry.get("kind")), ()) if not isinstance(entry.get(key), int)]
        if lacking:
            raise DataError(
                f"{path}, line {number}: without the number {' and '.join(lacking)}. Remove the line, or train anew."
            )
        entries.append(entry)
    return entries


_NEEDED = {"step": ("epoch", "step"), "epoch": ("epoch",)}  # the numbers that no line of a kind is without
