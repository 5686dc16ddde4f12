"""For each query its nearest gallery images, with distance and verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ptlreid.errors import OptionError
from ptlreid.retrieval.distance import Block, blocks, check_coverage
from ptlreid.retrieval.nearest import nearest
from ptlreid.retrieval.parallel import map_rows
from ptlreid.retrieval.protocols import Judge, Protocol
from ptlreid.retrieval.ranking_keys import Metric
from ptlreid.retrieval.types import Features


@dataclass(frozen=True)
class RankList:
    """The first K places of Q queries, (Q, K) each; images that the protocol hides are not in it.

    `columns`: int64 gallery rows, -1 where a query sees fewer than K images. `distances`: float64, infinite there.
    `matches`: bool, whether it is a true match.
    """

    columns: np.ndarray
    distances: np.ndarray
    matches: np.ndarray


def ranklist(
    query: Features,
    gallery: Features,
    protocol: Protocol,
    size: int,
    *,
    metric: Metric = "euclidean",
    memory_budget: int | None = None,
    device: str = "cpu",
) -> RankList:
    """The first `size` images of every query, those without a true match too; K = min(size, G).

    Equal distances keep the order of the gallery. `distances` are computed anew from the features in float64:
    Euclidean, or 1 - cosine, which is 1 where a vector is zero.
    """
    source = blocks(query, gallery, metric=metric, memory_budget=memory_budget, device=device)
    found = ranklist_blocks(source, query, gallery, protocol, size)
    distances = found.distances.copy()
    for row, columns in enumerate(found.columns):
        seen = columns >= 0
        distances[row, seen] = _distances(query.matrix[row], gallery.matrix[columns[seen]], metric)
    return replace(found, distances=distances)


def ranklist_blocks(
    source: Iterable[Block], query: Features, gallery: Features, protocol: Protocol, size: int
) -> RankList:
    """As `ranklist`, from distances of any making, such as re-ranked ones; these are the `distances`, too."""
    if size < 1:
        raise OptionError(f"A rank list of {size} images was asked for, expected 1 or more.")
    judge = Judge(protocol, gallery.pids, gallery.camids)
    shape = (len(query), min(size, len(gallery)))
    columns, distances = np.full(shape, -1, dtype=np.int64), np.full(shape, np.inf)

    def fill(block: Block, rows: slice) -> None:
        for row in range(block.start + rows.start, block.start + rows.stop):
            keys = block.keys_of(row - block.start)
            judge.hide(keys, judge.verdict(int(query.pids[row]), int(query.camids[row])))
            found = nearest(keys, size)
            found = found[keys[found] < np.inf]
            columns[row, : len(found)] = found
            distances[row, : len(found)] = keys[found]

    for block in check_coverage(source, len(query), len(gallery)):
        map_rows(partial(fill, block), *block.shape)
    # An image that is seen and shows the query's person is a true match: the others of this person were removed.
    matches = (gallery.pids[columns] == query.pids[:, None]) & (query.pids[:, None] > 0) & (columns >= 0)
    return RankList(columns, distances, matches)


def _distances(vector: np.ndarray, images: np.ndarray, metric: Metric) -> np.ndarray:
    left, right = vector.astype(np.float64), images.astype(np.float64)
    if metric == "euclidean":
        return np.asarray(np.linalg.norm(right - left, axis=1))
    lengths = np.linalg.norm(right, axis=1) * np.linalg.norm(left)
    return 1 - (right @ left) / np.where(lengths > 0, lengths, 1)
