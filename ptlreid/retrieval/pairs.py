"""The distances of all pairs of a query and a gallery image that the protocol leaves, one query at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ptlreid.retrieval.centring import Metric
from ptlreid.retrieval.distance import Block, Blocks, check_coverage
from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.protocols import Judge
from ptlreid.retrieval.ranking_keys import squared_lengths
from ptlreid.retrieval.types import Features, Retrieval


@dataclass(frozen=True)
class QueryPairs:
    """The pairs of the query at `row`.

    `distances`: (G,) float64, infinite for a gallery image that the protocol hides. `matches`: ascending columns of the
    query's true matches; all other columns with a finite distance are pairs of two identities.
    """

    row: int
    distances: np.ndarray
    matches: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """The pairs of a retrieval, in query order, as often as they are iterated; junk and distractor queries have none.

    `blocks`: its distances by `metric`, not re-ranked. Only a block of them is in memory.
    """

    retrieval: Retrieval
    blocks: Blocks
    metric: Metric

    def __iter__(self) -> Iterator[QueryPairs]:
        query, gallery = self.retrieval.query, self.retrieval.gallery
        judge = Judge(self.retrieval.protocol, query, gallery)
        own = find_own_images(self.retrieval)
        for block in check_coverage(self.blocks, len(query), len(gallery)):
            for row in block.rows:
                if query.pids[row] < 0:
                    continue
                verdict = judge.verdict(row, own.get(row))
                keys = block.keys_of(row)
                judge.hide(keys, verdict)
                yield QueryPairs(row, _convert_keys(keys, block, self.metric), verdict.matches)

    @property
    def max_distance(self) -> float:
        """A bound above every finite distance; 1 where all features are zero."""
        query, gallery = self.retrieval.query, self.retrieval.gallery
        return 1.0001 * (2.0 if self.metric == "cosine" else _max_norm(query) + _max_norm(gallery)) or 1.0


def _convert_keys(keys: np.ndarray, block: Block, metric: Metric) -> np.ndarray:
    """Distances from the ranking keys of a block; infinity stays infinity."""
    squares = keys.astype(np.float64) * block.unit
    return np.sqrt(squares) if metric == "euclidean" else squares / 2


def _max_norm(side: Features) -> float:
    return float(np.sqrt(squared_lengths(np.ascontiguousarray(side.matrix)).max(initial=0)))
