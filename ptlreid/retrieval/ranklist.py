"""The nearest gallery images of each query, with distances and true matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.errors import OptionError
from ptlreid.retrieval.centring import Metric, exact_distances
from ptlreid.retrieval.distance import Blocks, check_coverage, map_rows
from ptlreid.retrieval.nearest import nearest, within_reach
from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.protocols import Judge
from ptlreid.retrieval.types import Retrieval


@dataclass(frozen=True)
class RankList:
    """The first K ranks of Q queries, (Q, K) each; images that the protocol hides are not listed.

    `columns`: int64 gallery rows, -1 past the images that the protocol leaves. `distances`: float64, infinite there.
    `matches`: bool, true matches.
    """

    columns: np.ndarray
    distances: np.ndarray
    matches: np.ndarray


def rank_list(retrieval: Retrieval, blocks: Blocks, size: int, *, metric: Metric | None) -> RankList:
    """The first `size` images of every query, including queries without a true match; K = min(size, G).

    Equal distances keep gallery order. `metric`: listed distances are recomputed from the features in float64, and
    listed in their order: Euclidean or 1 - cosine, which is 1 where a vector is zero; None: those in `blocks` are
    listed, such as re-ranked ones.
    """
    if size < 1:
        raise OptionError(f"A rank list of {size} images: expected 1 or more.")
    query, gallery = retrieval.query, retrieval.gallery
    judge = Judge(retrieval.protocol, query, gallery)
    own = find_own_images(retrieval)
    shape = (len(query), min(size, len(gallery)))
    columns, distances = np.full(shape, -1, dtype=np.int64), np.full(shape, np.inf)

    def fill(rows: range) -> None:
        for row in rows:
            keys = block.keys_of(row)
            judge.hide(keys, judge.verdict(row, own.get(row)))
            if metric is None:
                listed = nearest(keys, size)
                listed = listed[keys[listed] < np.inf]
                values = keys[listed]
            else:
                near = within_reach(keys, size)  # keys are less exact
                exact = exact_distances(query.matrix[row], gallery.matrix, near, metric)
                order = np.lexsort((near, exact))[:size]
                listed, values = near[order], exact[order]
            columns[row, : len(listed)], distances[row, : len(listed)] = listed, values

    for block in check_coverage(blocks, len(query), len(gallery)):
        map_rows(fill, block.rows, block.num_gallery)
    # A visible image of the query's identity is a true match: the identity's other images were hidden.
    matches = (gallery.pids[columns] == query.pids[:, None]) & (query.pids[:, None] >= 0) & (columns >= 0)
    return RankList(columns, distances, matches)
