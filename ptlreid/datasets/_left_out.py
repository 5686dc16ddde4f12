"""What `prepare` left out of a dataset, and why: kept next to its images, and counted for the user."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ptlreid.files import atomic_write

FILE = "left_out.csv"
_COLUMNS = ("path", "reason")


@dataclass(frozen=True, order=True)
class LeftOut:
    """One file of the source that is not in the dataset. `path`: below the source. `reason`: the same for a kind."""

    reason: str
    path: str


def write_left_out(folder: Path, items: Iterable[LeftOut]) -> None:
    """Write the list into `folder`, sorted; an empty one, too."""
    with (
        atomic_write(folder / FILE) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((item.path, item.reason) for item in sorted(items))


def count_left_out(folder: Path) -> dict[str, int]:
    """How many files `prepare` left out of the dataset in `folder`, by reason; empty for a dataset of version 0.1."""
    if not (folder / FILE).is_file():
        return {}
    with (folder / FILE).open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        reasons = sorted(row["reason"] for row in csv.DictReader(stream))
    return {reason: len(list(group)) for reason, group in groupby(reasons)}


def describe_left_out(items: Iterable[LeftOut]) -> list[str]:
    """A line for each reason: how many files, and the first of them."""
    lines = []
    for reason, group in groupby(sorted(items), key=lambda item: item.reason):
        files = list(group)
        example = f"{'' if len(files) == 1 else 'such as '}{files[0].path}"
        lines.append(f"left out: {len(files):,} {'file' if len(files) == 1 else 'files'}, {example}: {reason}")
    return lines
