"""Rank lists: selection of queries, their nearest gallery images, and a plot for papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptlreid.reports import render
from ptlreid.reports.elements import Plot, Table
from ptlreid.reports.run_summary import EvaluatedRun
from ptlreid.retrieval.distance import distance_blocks
from ptlreid.retrieval.ranklist import RankList, rank_list
from ptlreid.retrieval.types import Features, Retrieval, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RankedImage:
    """A gallery image in the ranking of a query; `match`: true for a true match."""

    rank: int
    path: Path
    pid: int
    camid: int
    distance: float
    match: bool

    @property
    def verdict(self) -> str:
        return "true match" if self.match else "false match"

    @property
    def distance_text(self) -> str:
        """The distance with two decimals, or three below 1: `5.40`, `0.053`."""
        return f"{self.distance:.{2 if self.distance >= 1 else 3}f}"


@dataclass(frozen=True)
class QueryResult:
    """A query with its nearest gallery images; if the first true match ranks lower, it comes last."""

    path: Path
    pid: int
    camid: int
    average_precision: float
    first_match: int
    images: Sequence[RankedImage]

    @property
    def table(self) -> Table:
        """The images with their distances and results, one row each."""
        rows = [
            [str(one.rank), one.path.name, str(one.pid), str(one.camid), one.distance_text, one.verdict]
            for one in self.images
        ]
        return Table(("rank", "file", "identity", "camera", "distance", "result"), rows)


def find_worst(scores: Scores, count: int) -> np.ndarray:
    """(C,) indices into the valid queries whose first match ranks lowest; ties by average precision, lowest first."""
    order = np.lexsort((scores.rows, scores.average_precision, -scores.first_match_rank))
    return np.asarray(order[:count])


def sample_queries(scores: Scores, count: int, *, seed: int, without: np.ndarray) -> np.ndarray:
    """(C,) indices of random valid queries, ascending, excluding `without`."""
    candidates = np.setdiff1d(np.arange(scores.num_valid), without)
    chosen = np.random.default_rng(seed).choice(candidates, size=min(count, len(candidates)), replace=False)
    return np.sort(chosen)


def rank_queries(run: EvaluatedRun, chosen: np.ndarray, *, size: int) -> list[QueryResult]:
    """The `size` nearest gallery images of the queries `chosen`, which are indices into the valid queries."""
    if not len(chosen):
        return []
    scores, query, gallery = run.scores, run.retrieval.query, run.retrieval.gallery
    rows = scores.rows[chosen]
    ranking = _rank(run, query.select(rows), gallery, size)
    results = []
    for at, (valid, row) in enumerate(zip(chosen, rows, strict=True)):
        pid, first = int(query.pids[row]), int(scores.first_match_rank[valid])
        columns = [int(column) for column in ranking.columns[at] if column >= 0]
        images = [
            _describe_image(gallery, column, pid, rank, ranking.distances[at, rank - 1])
            for rank, column in enumerate(columns, start=1)
        ]
        if first > len(columns):
            column = int(scores.match_columns[scores.match_starts[valid]])
            single = _rank(run, query.select(rows[at : at + 1]), gallery.select(np.array([column])), 1)
            images.append(_describe_image(gallery, column, pid, first, single.distances[0, 0]))
        path, camid = Path(query.paths[row]), int(query.camids[row])
        results.append(QueryResult(path, pid, camid, float(scores.average_precision[valid]), first, images))
    return results


def plot_rank_lists(results: Sequence[QueryResult]) -> Plot:
    """One row per query: the query, then its nearest gallery images with ✓ or ✗ and the distance."""
    across = 1 + max(len(one.images) for one in results)
    rows = [[one.path.name, *row] for one in results for row in one.table.rows]
    ranks = "; ".join(f"{one.path.name}: first match at rank {one.first_match}" for one in results)
    return Plot(
        "rank-lists",
        "Rank lists",
        f"Queries with their nearest gallery images. {ranks}.",
        Table(("query", *results[0].table.columns), rows),
        lambda axes: _draw(axes, results, across),
        size=(0.2 + 0.62 * across, 0.2 + 1.42 * len(results)),
    )


def _rank(run: EvaluatedRun, query: Features, gallery: Features, size: int) -> RankList:
    retrieval, settings = Retrieval(query, gallery, run.retrieval.protocol), run.settings
    blocks = distance_blocks(retrieval, metric=settings.metric, memory_budget=settings.budget_bytes)
    return rank_list(retrieval, blocks, size, metric=settings.metric)


def _describe_image(gallery: Features, column: int, pid: int, rank: int, distance: float) -> RankedImage:
    own_pid, camid = int(gallery.pids[column]), int(gallery.camids[column])
    return RankedImage(rank, Path(gallery.paths[column]), own_pid, camid, float(distance), own_pid == pid)


def _draw(axes: Axes, results: Sequence[QueryResult], across: int) -> None:
    from matplotlib.patches import Rectangle

    true, false = (
        {"color": render.COLOURS[2], "linestyle": "-"},
        {"color": render.COLOURS[7], "linestyle": (0, (3, 1.5))},
    )
    for row, one in enumerate(results):
        _draw_crop(axes, one.path, 0, row)
        axes.text(0.45, row * 2.4 + 2.02, "query", ha="center", va="top", fontsize=7)
        for column, image in enumerate(one.images, start=1):
            beyond_list = image.rank > column
            left = column + (0.5 if beyond_list else 0.25)
            _draw_crop(axes, image.path, left, row)
            style = true if image.match else false
            axes.add_patch(Rectangle((left, row * 2.4), 0.9, 2.0, fill=False, linewidth=1.8, **style))
            rank = f"#{image.rank} " if beyond_list else ""
            text = f"{rank}{'✓' if image.match else '✗'} {image.distance_text}"
            axes.text(left + 0.45, row * 2.4 + 2.07, text, ha="center", va="top", fontsize=7)
    axes.set(xlim=(-0.05, across + 0.55), ylim=(2.4 * len(results), -0.05), aspect="equal")
    axes.set_axis_off()


def _draw_crop(axes: Axes, path: Path, left: float, row: int) -> None:
    from ptlreid.reports.crops import read_crop

    pixels = np.asarray(read_crop(path))
    axes.imshow(pixels, extent=(left, left + 0.9, row * 2.4 + 2.0, row * 2.4), interpolation="bilinear")
