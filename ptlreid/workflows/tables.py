"""An evaluation as CSV files: a line for each query, and each query's nearest images."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ptlreid.files import atomic_write
from ptlreid.retrieval.ranklist import RankList
from ptlreid.retrieval.types import Features, Scores


def write_queries(file: Path, query: Features, scores: Scores) -> None:
    """A line for each query, in order; without a true match, the last three columns are empty."""
    columns = (scores.average_precision, scores.first_match_rank, scores.inp)
    found = dict(zip(scores.rows.tolist(), zip(*(column.tolist() for column in columns), strict=True), strict=True))
    nothing = ("", "", "")
    _write(
        file,
        ("row", "path", "pid", "camid", "AP", "first_match_rank", "INP"),
        ((row, *_image(query, row), *found.get(row, nothing)) for row in range(len(query))),
    )


def write_ranklist(file: Path, query: Features, gallery: Features, ranks: RankList) -> None:
    """A line for each place of each query, nearest first; a query that sees fewer images has fewer lines."""

    def lines() -> Iterable[Sequence[Any]]:
        for row, columns in enumerate(ranks.columns):
            for place, column in enumerate(columns.tolist()):
                if column >= 0:
                    verdict = "match" if ranks.matches[row, place] else "other"
                    distance = float(ranks.distances[row, place])
                    yield (row, *_image(query, row), place + 1, column, *_image(gallery, column), distance, verdict)

    images = ("row", "path", "pid", "camid")
    _write(
        file,
        (
            *(f"query_{name}" for name in images),
            "rank",
            *(f"gallery_{name}" for name in images),
            "distance",
            "verdict",
        ),
        lines(),
    )


def _image(features: Features, row: int) -> tuple[str, int, int]:
    return str(features.paths[row]), int(features.pids[row]), int(features.camids[row])


def _write(file: Path, names: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with atomic_write(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(lines)
