"""The scores of queries in a folder of shards that is read block by block: those of `metrics.score`, to the last rank.

The true matches are found first, with their distances. Then one pass over all blocks counts the images before each;
several processes each count in their part of the gallery, and the counts are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ptlreid import distributed
from ptlreid.progress import Progress
from ptlreid.retrieval.centring import Metric
from ptlreid.retrieval.metrics import AveragePrecision, GallerySizes, MatchRanks, make_scores, no_matches
from ptlreid.retrieval.protocols import Protocol, Verdict
from ptlreid.retrieval.shard_matches import Looked, Pairs, compare, gather, judge, look, own_rows, split_rows
from ptlreid.retrieval.shards import Shards
from ptlreid.retrieval.streamed_ranks import Targets, count_preceding
from ptlreid.retrieval.streamed_search import GalleryBlock, plan_rows
from ptlreid.retrieval.types import Features, Scores


@dataclass(frozen=True)
class ShardRetrieval:
    """Queries in memory, the shards that they are searched in, and the protocol."""

    query: Features
    shards: Shards
    protocol: Protocol


def score_shards(
    retrieval: ShardRetrieval, *, metric: Metric, ap: AveragePrecision, memory_budget: int | None, progress: Progress
) -> Scores:
    """The scores, the same on every process, of distances by `metric`; equal distances keep gallery order.

    Not for a single-shot protocol, whose CMC needs more than ranks. `memory_budget`: of each process, for the blocks.
    Raises `DataError` when no query has a true match.
    """
    query, shards, protocol = retrieval.query, retrieval.shards, retrieval.protocol
    looked = look(shards, query, protocol, progress)
    pairs = compare(shards, query, looked.candidates, protocol, metric)
    verdicts = distributed.run_together(lambda: _judge(query, looked, pairs, protocol))
    valid = np.array([row for row, verdict in enumerate(verdicts) if len(verdict.matches)], dtype=np.int64)
    targets = _make_targets(looked, pairs, verdicts, valid)
    rows = plan_rows(len(valid), shards.width, memory_budget)
    blocks = _read_part(shards, looked.absent, rows, progress)
    counts = sum(
        gather(lambda: count_preceding(query.select(valid), targets, blocks, metric=metric)),
        np.zeros(len(targets.columns), dtype=np.int64),
    )
    hits = {}
    for index, row in enumerate(valid.tolist()):
        own = slice(*targets.starts[index : index + 2].tolist())
        hidden = _hidden_before(looked, pairs, row, verdicts[row], (targets.distances[own], targets.columns[own]))
        ranks = counts[own] - hidden + 1
        order = ranks.argsort()
        hits[row] = MatchRanks(ranks[order], targets.columns[own][order], None)
    sizes = GallerySizes(len(shards), looked.num_junk)
    return make_scores(protocol, len(query), sizes, hits, ap=ap)


def _judge(query: Features, looked: Looked, pairs: Pairs, protocol: Protocol) -> list[Verdict]:
    """The verdict of each query; `DataError` where none has a true match."""
    verdicts = judge(query, looked.candidates, pairs, protocol)
    if not any(len(verdict.matches) for verdict in verdicts):
        raise no_matches(protocol, query.pids, looked.candidates.pids)
    return verdicts


def _make_targets(looked: Looked, pairs: Pairs, verdicts: Sequence[Verdict], valid: np.ndarray) -> Targets:
    places = [verdicts[row].matches for row in valid.tolist()]
    distances = [_distances_of(pairs, row, verdicts[row].matches) for row in valid.tolist()]
    starts = np.cumsum([0, *map(len, places)])
    return Targets(starts, looked.candidates.rows[np.concatenate(places)], np.concatenate(distances))


def _distances_of(pairs: Pairs, row: int, places: np.ndarray) -> np.ndarray:
    """The distances of a query and the candidates at `places`."""
    first, last = pairs.starts[row : row + 2].tolist()
    return pairs.distances[first + pairs.candidates[first:last].searchsorted(places)]


def _hidden_before(
    looked: Looked, pairs: Pairs, row: int, verdict: Verdict, matches: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """(M,) how many images before each of a query's matches are hidden from it alone, and were counted.

    `matches`: their distances and gallery rows.
    """
    rows, distances = looked.candidates.rows[verdict.absent], _distances_of(pairs, row, verdict.absent)
    counted = ~np.isin(rows, looked.absent)
    rows, distances = rows[counted], distances[counted]
    nearer = distances < matches[0][:, None]
    tied = (distances == matches[0][:, None]) & (rows < matches[1][:, None])
    return np.count_nonzero(nearer | tied, axis=1)


def _read_part(shards: Shards, absent: np.ndarray, rows: int, progress: Progress) -> Iterator[GalleryBlock]:
    """This process's part of the gallery without the images that no query sees, in blocks of at most so many rows."""
    part = own_rows(len(shards))
    with progress.task("rank shards", len(part)) as advance:
        for index, local in split_rows(shards, part):
            for place, matrix in shards.read_blocks(index, rows, local):
                first = shards.starts[index] + place
                kept = np.ones(len(matrix), dtype=bool)
                kept[absent[slice(*absent.searchsorted([first, first + len(matrix)]).tolist())] - first] = False
                if kept.any():
                    columns = first + np.flatnonzero(kept)
                    yield GalleryBlock(matrix if kept.all() else matrix[kept], columns, ())
                advance(first + len(matrix) - part.start)
