"""The history of a run: one JSON object per line, steps, epochs and clusters in chronological order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ptlreid.files import open_to_append, unwritable
from ptlreid.json_files import parse_json, read_bytes
from ptlreid.schemas import ClustersLine, EpochLine, HistoryLine, StepLine


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
        """Write a line: `kind` is `step`, `epoch` or `clusters`."""
        with self._report_errors():
            self._file.write(json.dumps({"kind": kind, **values}) + "\n")

    def flush(self) -> int:
        """Write all lines to disk; returns the file's size in bytes."""
        with self._report_errors():
            self._file.flush()
            if not self._path:
                return 0
            os.fsync(self._file.fileno())
            return self._file.tell()

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self._path or Path(os.devnull), error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._report_errors():
            self._file.close()


Line = StepLine | EpochLine | ClustersLine
_SCHEMAS: dict[str, type[Line]] = {"step": StepLine, "epoch": EpochLine, "clusters": ClustersLine}


def read(path: Path) -> list[Line]:
    """All complete lines; `DataError` names a damaged one."""
    entries: list[Line] = []
    for number, line in enumerate(read_bytes(path, _REMEDY).split(b"\n")[:-1], start=1):
        origin = f"{path}, line {number}"
        kind = parse_json(line, HistoryLine, origin, _REMEDY)["kind"]
        entries.append(parse_json(line, _SCHEMAS[kind], origin, _REMEDY))
    return entries


_REMEDY = "Remove the line, or train again under another --name."
