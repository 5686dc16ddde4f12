"""How much an index finds: searches for images of the gallery, compared with an exact search in the shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ptlreid.index_schema import Recall
from ptlreid.progress import Progress
from ptlreid.retrieval.index_search import IndexSearch
from ptlreid.retrieval.index_structure import list_efforts
from ptlreid.retrieval.search import Hits, Person
from ptlreid.retrieval.shards import Shards
from ptlreid.retrieval.streamed_search import GalleryBlock, plan_rows, rank_blocks
from ptlreid.retrieval.types import Features

AT = 20
_QUERIES = 1000
_TUNING = 500  # further queries, by which the effort is chosen
_NORMAL = 1.959963984540054  # of a two-sided 95% interval


def measure_recall(search: IndexSearch, *, target: float, seed: int, progress: Progress) -> tuple[int, Recall]:
    """The least effort with which some queries reach the `target`, and the recall that other queries then have.

    Queries are images of the gallery, drawn without replacement by the seed; each is hidden from its own search. An
    image counts as found if it is as near as the last of the nearest `AT`, so that equal distances count for either.
    """
    shards, index = search.index.shards, search.index
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(shards), min(_QUERIES + _TUNING, len(shards)), replace=False)
    drawn = drawn[~np.isin(drawn, shards.removed)]
    numbers = np.zeros(len(drawn), dtype=np.int64)
    query = Features(shards.read_matrix(drawn), numbers, numbers, np.full(len(drawn), "", dtype=object))
    people = [Person(np.array([row]), np.array([column])) for row, column in enumerate(drawn.tolist())]
    metric = index.manifest["metric"]
    exact = rank_blocks(query, _read_blocks(shards, people, progress), size=AT, metric=metric)
    num_tuning = len(drawn) * _TUNING // (_QUERIES + _TUNING)

    def shares(effort: int, part: slice) -> np.ndarray:
        found = replace(search, effort=effort).rank(query, people[part], size=AT, metric=metric)
        return share_found(found, exact[part])

    efforts, chosen = list_efforts(search.graph), 1
    with progress.task("choose effort", len(efforts)) as advance:
        for done, chosen in enumerate(efforts, start=1):
            reached = float(shares(chosen, slice(num_tuning)).mean()) if num_tuning else 1.0
            advance(done, status=f"recall {reached:.3f}")
            if reached >= target:
                break
    values = shares(chosen, slice(num_tuning, None))
    low, high = recall_interval(values)
    return chosen, {
        "at": AT,
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        "queries": len(values),
        "target": target,
    }


def share_found(found: Sequence[Hits], exact: Sequence[Hits]) -> np.ndarray:
    """(Q,) the share of each exact answer that was found; 1 for an empty one. Both have the same distances."""
    return np.array(
        [
            np.count_nonzero(one.distances[: len(other.distances)] <= other.distances[-1]) / len(other.distances)
            if len(other.distances)
            else 1.0
            for one, other in zip(found, exact, strict=True)
        ]
    )


def recall_interval(values: np.ndarray) -> tuple[float, float]:
    """The 95% interval of the mean of (Q,) shares, Q >= 1: Wilson's, of as many trials as their variance is that of.

    Shares vary less than single trials of the same mean, which have a variance of p (1 - p). Equal shares count as one
    trial each.
    """
    mean, trials = float(values.mean()), float(len(values))
    variance = float(values.var(ddof=1)) if len(values) > 1 else 0.0
    if variance > 0:
        trials *= max(1.0, mean * (1 - mean) / variance)
    square = _NORMAL**2 / trials
    middle = (mean + square / 2) / (1 + square)
    half = _NORMAL * np.sqrt(mean * (1 - mean) / trials + square / (4 * trials)) / (1 + square)
    return max(0.0, min(mean, float(middle - half))), min(1.0, max(mean, float(middle + half)))


def _read_blocks(shards: Shards, people: Sequence[Person], progress: Progress) -> Iterator[GalleryBlock]:
    own = np.array([one.hidden[0] for one in people])
    nothing = [Person(one.rows, np.empty(0, dtype=np.int64)) for one in people]
    with progress.task("search exactly", len(shards)) as advance:
        for index, start in enumerate(shards.starts[:-1]):
            for first, matrix in shards.read_blocks(index, plan_rows(len(people), shards.width, None)):
                rows = start + first + np.arange(len(matrix))
                kept = shards.drop_removed(rows)
                hidden = list(nothing)
                for number in np.flatnonzero((own >= rows[0]) & (own <= rows[-1])).tolist():
                    hidden[number] = Person(people[number].rows, np.searchsorted(kept, own[number : number + 1]))
                if len(kept):
                    yield GalleryBlock(matrix if len(kept) == len(rows) else matrix[kept - rows[0]], kept, hidden)
                advance(int(rows[-1]) + 1)
