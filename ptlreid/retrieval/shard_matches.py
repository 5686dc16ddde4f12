"""The true matches of queries in a folder of shards, found by the columns; their features alone are read and compared.

Several processes each look through their part of the gallery and exchange what they found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ptlreid import distributed
from ptlreid.progress import Advance, Progress
from ptlreid.records import DISTRACTOR, JUNK
from ptlreid.retrieval.centring import Metric, pair_distances
from ptlreid.retrieval.protocols import Judge, Protocol, Verdict, columns_by_label
from ptlreid.retrieval.shards import Shards
from ptlreid.retrieval.types import Features

T = TypeVar("T")

_READ_BYTES = 16 << 20  # of features at a time


@dataclass(frozen=True)
class Candidates:
    """The gallery images of the queries' identities, and those that are called as a query is; N of them.

    `rows`: (N,) int64, ascending. `pids`, `camids`, `clothes`: (N,), as `Features` has them. `paths`: (N,) object, None
    where the protocol does not look at them.
    """

    rows: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    clothes: np.ndarray | None
    paths: np.ndarray


@dataclass(frozen=True)
class Looked:
    """What a look at the columns of a gallery finds. `absent`: ascending rows of images that no query sees."""

    candidates: Candidates
    absent: np.ndarray
    num_junk: int


@dataclass(frozen=True)
class Pairs:
    """A query with each of its candidates: P pairs, in the order of the queries and then of the gallery.

    `starts`: (Q + 1,), query q has the pairs from `starts[q]` to `starts[q + 1]`. `candidates`: (P,) places among the
    candidates. `distances`: (P,) float64. `equal`: (P,) bool, whether the features are equal.
    """

    starts: np.ndarray
    candidates: np.ndarray
    distances: np.ndarray
    equal: np.ndarray


def own_rows(num_rows: int) -> range:
    """The gallery rows that this process looks at: parts of equal size, by rank."""
    rank, size = distributed.rank(), distributed.world_size()
    return range(num_rows * rank // size, num_rows * (rank + 1) // size)


def split_rows(shards: Shards, rows: range) -> Iterator[tuple[int, range]]:
    """The shards that hold some of these gallery rows, by number, with those rows of the shard."""
    for index, (start, stop) in enumerate(zip(shards.starts[:-1], shards.starts[1:], strict=True)):
        first, last = max(start, rows.start), min(stop, rows.stop)
        if first < last:
            yield index, range(first - start, last - start)


def gather(call: Callable[[], T]) -> list[T]:
    """The results of `call()` of all processes, by rank, on each of them; an error of one is raised on all."""
    return distributed.all_gather(distributed.run_together(call))


def look(shards: Shards, query: Features, protocol: Protocol, progress: Progress) -> Looked:
    """The candidates of all processes; each reads the columns of its part, a shard at a time."""
    with progress.task("find true matches", len(shards)) as advance:
        parts = gather(lambda: list(_look_at_part(shards, query, protocol, advance)))
    found = [one for part in parts for one in part]
    sides = [one.candidates for one in found]
    clothes = [one.clothes for one in sides if one.clothes is not None]
    candidates = Candidates(
        rows=np.concatenate([one.rows for one in sides]),
        pids=np.concatenate([one.pids for one in sides]),
        camids=np.concatenate([one.camids for one in sides]),
        clothes=np.concatenate(clothes) if len(clothes) == len(sides) else None,
        paths=np.concatenate([one.paths for one in sides]),
    )
    return Looked(candidates, np.concatenate([one.absent for one in found]), sum(one.num_junk for one in found))


def _look_at_part(shards: Shards, query: Features, protocol: Protocol, advance: Advance) -> Iterator[Looked]:
    pids, names = np.unique(query.pids[query.pids >= 0]), set(query.paths.tolist())
    for index, rows in split_rows(shards, own_rows(len(shards))):
        columns = shards.read_columns(index, *(["paths"] if protocol.leave_one_out else []))
        part, first = slice(rows.start, rows.stop), shards.starts[index] + rows.start
        junk = columns.pids[part] == JUNK
        absent = junk | ((columns.pids[part] == DISTRACTOR) & (not protocol.keep_distractors))
        wanted = np.isin(columns.pids[part], pids)
        if protocol.leave_one_out:
            wanted |= np.array([path in names for path in columns.paths[part].tolist()], dtype=bool)
        places = np.flatnonzero(wanted)
        chosen = rows.start + places
        clothes = None if columns.clothes is None else columns.clothes[chosen]
        candidates = Candidates(
            first + places, columns.pids[chosen], columns.camids[chosen], clothes, columns.paths[chosen]
        )
        yield Looked(candidates, first + np.flatnonzero(absent), int(np.count_nonzero(junk)))
        advance(shards.starts[index] + rows.stop)


def compare(shards: Shards, query: Features, candidates: Candidates, protocol: Protocol, metric: Metric) -> Pairs:
    """All pairs with their distances; each process reads the candidates in its part of the gallery."""
    by_pid = columns_by_label(candidates.pids)
    by_path = columns_by_label(candidates.paths) if protocol.leave_one_out else {}
    none = np.empty(0, dtype=np.int64)
    chosen = [
        np.union1d(by_pid.get(pid, none) if pid >= 0 else none, by_path.get(path, none))
        for pid, path in zip(query.pids.tolist(), query.paths.tolist(), strict=True)
    ]
    starts = np.cumsum([0, *map(len, chosen)])
    rows, places = np.repeat(np.arange(len(query)), np.diff(starts)), np.concatenate(chosen)
    distances, equal = np.zeros(len(places)), np.zeros(len(places), dtype=bool)
    order = np.argsort(places, kind="stable")  # as the gallery is read
    parts = gather(lambda: list(_compare_part(shards, query, candidates.rows, (rows[order], places[order]), metric)))
    for part in (one for found in parts for one in found):
        distances[order[part.pairs]], equal[order[part.pairs]] = part.distances, part.equal
    return Pairs(starts, places, distances, equal)


@dataclass(frozen=True)
class _Compared:
    """The distances of consecutive `pairs`, and whether the features are equal."""

    pairs: slice
    distances: np.ndarray
    equal: np.ndarray


def _compare_part(
    shards: Shards, query: Features, rows: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], metric: Metric
) -> Iterator[_Compared]:
    """The pairs whose candidate is in this process's part. `pairs`: query rows and, ascending, places in `rows`."""
    queries, places = pairs
    for index, part in split_rows(shards, own_rows(len(shards))):
        start = shards.starts[index]
        first, stop = rows.searchsorted([start + part.start, start + part.stop]).tolist()
        for place in range(first, stop, step := max(1, _READ_BYTES // (4 * shards.width))):
            chosen = rows[place : min(place + step, stop)] - start
            matrix = shards.read_rows(index, chosen).astype(np.float32, copy=False)
            begin, end = places.searchsorted([place, place + len(chosen)]).tolist()
            for left in range(begin, end, step):
                here = slice(left, min(left + step, end))
                which = queries[here], places[here] - place
                equal = (query.matrix[which[0]] == matrix[which[1]]).all(axis=1)
                yield _Compared(here, pair_distances(query.matrix, matrix, which, metric), equal)


def judge(query: Features, looked: Candidates, pairs: Pairs, protocol: Protocol) -> list[Verdict]:
    """The verdict of each query on its candidates, whose places it holds; images that no query sees are left to all.

    Raises `DataError` if labels are missing that the protocol needs.
    """
    rules = Judge(protocol, query, looked)
    verdicts = []
    for row, pid in enumerate(query.pids.tolist()):
        own = None
        if protocol.leave_one_out:
            part = slice(*pairs.starts[row : row + 2].tolist())
            places = pairs.candidates[part]
            is_own = (pairs.equal[part] & (looked.pids[places] == pid)) | (looked.paths[places] == query.paths[row])
            own = places[is_own] if is_own.any() else None
        verdicts.append(rules.verdict(row, own))
    return verdicts
