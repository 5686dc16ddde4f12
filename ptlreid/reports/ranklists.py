"""Rank lists to look at: which queries, what was found for them, and a picture of that for papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.pictures import Picture, Table
from ptlreid.retrieval.protocols import Protocol
from ptlreid.retrieval.ranking_keys import Metric
from ptlreid.retrieval.ranklist import ranklist
from ptlreid.retrieval.types import Features, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Place:
    """A gallery image in the ranking of a query; `match`: whether it shows the query's person."""

    rank: int
    path: Path
    pid: int
    camid: int
    distance: float
    match: bool

    @property
    def measured(self) -> str:
        """The distance in three digits or so, and as long as its neighbours: `0.053`, `5.40`."""
        return f"{self.distance:.{2 if self.distance >= 1 else 3}f}"


@dataclass(frozen=True)
class Shown:
    """A query with its first places; the last one is the nearest true match where that comes later."""

    path: Path
    pid: int
    camid: int
    average_precision: float
    first_match: int
    places: Sequence[Place]

    @property
    def table(self) -> Table:
        """The places as a table, a row each."""
        rows = [
            [str(p.rank), p.path.name, str(p.pid), str(p.camid), p.measured, "right" if p.match else "wrong"]
            for p in self.places
        ]
        return Table(("rank", "file", "person", "camera", "distance", "answer"), rows)


def worst(scores: Scores, count: int) -> np.ndarray:
    """(C,) valid queries, by their place in `scores`, whose first match comes latest; ties by average precision."""
    order = np.lexsort((scores.rows, scores.average_precision, -scores.first_match_rank))
    return np.asarray(order[:count])


def sample(scores: Scores, count: int, *, seed: int, without: np.ndarray) -> np.ndarray:
    """(C,) valid queries drawn at random from those not in `without`, in the order of the dataset."""
    left = np.setdiff1d(np.arange(scores.num_valid), without)
    drawn = np.random.default_rng(seed).choice(left, size=min(count, len(left)), replace=False)
    return np.sort(drawn)


def shown(
    query: Features,
    gallery: Features,
    protocol: Protocol,
    scores: Scores,
    chosen: np.ndarray,
    *,
    places: int,
    metric: Metric = "euclidean",
) -> list[Shown]:
    """The rank lists of the valid queries `chosen`, by their place in `scores`."""
    if not len(chosen):
        return []
    rows = scores.rows[chosen]
    found = ranklist(query.select(rows), gallery, protocol, places, metric=metric)
    lists = []
    for at, (valid, row) in enumerate(zip(chosen, rows, strict=True)):
        first = int(scores.first_match_rank[valid])
        columns = [int(column) for column in found.columns[at] if column >= 0]
        ranked = list(zip(range(1, places + 1), columns, found.distances[at], strict=False))
        if first > len(columns):
            column = int(scores.match_columns[scores.match_starts[valid]])
            one, other = query.select(rows[at : at + 1]), gallery.select(np.array([column]))
            alone = ranklist(one, other, protocol, 1, metric=metric)
            ranked.append((first, column, alone.distances[0, 0]))
        lists.append(
            Shown(
                Path(query.paths[row]),
                int(query.pids[row]),
                int(query.camids[row]),
                float(scores.average_precision[valid]),
                first,
                [_place(gallery, int(query.pids[row]), *one) for one in ranked],
            )
        )
    return lists


def ranklists(lists: Sequence[Shown]) -> Picture:
    """Each list in a row: the query, then what was found, with a tick or a cross and the distance."""
    across = 1 + max(len(one.places) for one in lists)
    rows = [[one.path.name, *cells] for one in lists for cells in one.table.rows]
    told = "; ".join(f"{one.path.name}: first match at rank {one.first_match}" for one in lists)
    return Picture(
        "ranklist",
        "Rank lists",
        f"Queries with the gallery images that are nearest to them. {told}.",
        Table(("query", *lists[0].table.columns), rows),
        lambda axes: _draw(axes, lists, across),
        size=(0.2 + 0.62 * across, 0.2 + 1.42 * len(lists)),
    )


def _place(gallery: Features, pid: int, rank: int, column: int, distance: float) -> Place:
    found, camid = int(gallery.pids[column]), int(gallery.camids[column])
    return Place(rank, Path(gallery.paths[column]), found, camid, float(distance), found == pid)


def _draw(axes: Axes, lists: Sequence[Shown], across: int) -> None:
    from matplotlib.patches import Rectangle

    right, wrong = (
        {"color": render.COLOURS[2], "linestyle": "-"},
        {"color": render.COLOURS[7], "linestyle": (0, (3, 1.5))},
    )
    for row, one in enumerate(lists):
        _image(axes, one.path, 0, row)
        axes.text(0.45, row * 2.4 + 2.02, "query", ha="center", va="top", fontsize=7)
        for column, place in enumerate(one.places, start=1):
            # A gap before a match that comes later.
            left = column + 0.25 + (0.25 if place.rank > column else 0)
            _image(axes, place.path, left, row)
            style = right if place.match else wrong
            axes.add_patch(Rectangle((left, row * 2.4), 0.9, 2.0, fill=False, linewidth=1.8, **style))
            rank = f"#{place.rank} " if place.rank > column else ""
            text = f"{rank}{'✓' if place.match else '✗'} {place.measured}"
            axes.text(left + 0.45, row * 2.4 + 2.07, text, ha="center", va="top", fontsize=7)
    axes.set(xlim=(-0.05, across + 0.55), ylim=(2.4 * len(lists), -0.05), aspect="equal")
    axes.set_axis_off()


def _image(axes: Axes, path: Path, left: float, row: int) -> None:
    from ptlreid.reports.crops import read

    axes.imshow(np.asarray(read(path)), extent=(left, left + 0.9, row * 2.4 + 2.0, row * 2.4), interpolation="bilinear")
