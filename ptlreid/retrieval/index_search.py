"""The nearest images by an index: candidates from faiss, compared again exactly with the features in the shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptlreid.retrieval.centring import Metric, squared_distances
from ptlreid.retrieval.index_file import Index
from ptlreid.retrieval.index_structure import search_graph
from ptlreid.retrieval.search import Hits, Person
from ptlreid.retrieval.types import Features

_CANDIDATES = 10  # for each image of an answer
_FEWEST_CANDIDATES = 200
_BATCH_BYTES = 256 << 20  # of the candidates' features


@dataclass(frozen=True)
class IndexSearch:
    """A search of an index. `graph`: what faiss searches. `effort`: how much of it is visited."""

    index: Index
    graph: Any
    effort: int

    def rank(
        self,
        query: Features,
        people: Sequence[Person],
        *,
        size: int,
        metric: Metric,
        allowed: np.ndarray | None = None,
    ) -> list[Hits]:
        """The `size` nearest of the candidates for each of the people, with the distances of `rank_gallery`.

        Equal distances keep gallery order. `allowed`: (N,) bool, the images that may be found; None: all that were not
        removed. Fewer are returned where the index finds no more.
        """
        count = min(max(_FEWEST_CANDIDATES, _CANDIDATES * size), len(self.index.shards))
        bits = self._pack(allowed)
        found = []
        for batch in self._divide(people, count):
            rows = np.concatenate([one.rows for one in batch])
            matrix = self.index.prepare(query.matrix[rows])
            near = search_graph(self.graph, matrix, count=count, effort=self.effort, allowed=bits)
            every = np.unique(near[near >= 0])
            features, first = self.index.shards.read_matrix(every), 0
            for one in batch:
                columns = np.unique(near[first : first + len(one.rows)])
                columns = np.setdiff1d(columns[columns >= 0], one.hidden, assume_unique=True)
                first += len(one.rows)
                places = np.searchsorted(every, columns)
                squares = [squared_distances(query.matrix[row], features, places, metric) for row in one.rows]
                found.append(_choose(columns, np.min(squares, axis=0), size, metric))
        return found

    def _pack(self, allowed: np.ndarray | None) -> np.ndarray | None:
        removed = self.index.shards.removed
        if allowed is None and not len(removed):
            return None
        kept = np.ones(len(self.index.shards), dtype=bool) if allowed is None else allowed.copy()
        kept[removed] = False
        return np.packbits(kept, bitorder="little")

    def _divide(self, people: Sequence[Person], count: int) -> Iterator[list[Person]]:
        """The people in batches whose candidates fit into memory; at least one in each."""
        most = max(1, _BATCH_BYTES // (4 * self.index.width * count))
        batch: list[Person] = []
        images = 0
        for one in people:
            if batch and images + len(one.rows) > most:
                yield batch
                batch, images = [], 0
            batch.append(one)
            images += len(one.rows)
        if batch:
            yield batch


def _choose(columns: np.ndarray, squares: np.ndarray, size: int, metric: Metric) -> Hits:
    """The nearest of the images `columns`, ascending gallery rows, by `centring.squared_distances`."""
    distances = np.sqrt(squares) if metric == "euclidean" else squares / 2
    order = np.lexsort((columns, distances))[:size]
    return Hits(columns[order], distances[order])
