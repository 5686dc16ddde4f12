"""How many images precede each true match in a gallery that is read block by block: the ranks of `metrics.match_ranks`.

A product in float32 decides for images whose distance differs from the match's by more than a bound on the rounding
errors; the others are compared by float64 distances, which depend on the two features alone. So neither the blocks, nor
who counts them, nor a BLAS decides a rank, and the counts of several parts of a gallery add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ptlreid.retrieval.centring import Metric, exact_distances, to_squares
from ptlreid.retrieval.distance import key_blocks
from ptlreid.retrieval.metrics import count_before, split_keys
from ptlreid.retrieval.streamed_search import GalleryBlock, Reduced, prepare_ahead
from ptlreid.retrieval.types import Features

_STRIP = 256  # queries per product, whose keys stay in the cache until they are counted
_LAST_BITS = 1e-12  # relative error of a squared distance that was made of a float64 distance


@dataclass(frozen=True)
class Targets:
    """True matches of Q queries, T in total, in the order of the queries.

    `starts`: (Q + 1,), query q has those from `starts[q]` to `starts[q + 1]`. `columns`: (T,) int64, their gallery
    rows. `distances`: (T,) float64, by `exact_distances`.
    """

    starts: np.ndarray
    columns: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class _Row:
    """The keys of a query to a block, (N,) float32, with an interval around that of each of its `targets`.

    An image whose key is outside an interval is nearer than the target, or farther, for certain.
    """

    targets: slice
    keys: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    distances_of: Callable[[np.ndarray], np.ndarray]


def count_preceding(query: Features, targets: Targets, blocks: Iterable[GalleryBlock], *, metric: Metric) -> np.ndarray:
    """(T,) int64: how many images of the blocks are before each target, by distance, and by gallery row where equal."""
    counts = np.zeros(len(targets.columns), dtype=np.int64)
    for block, reduced in prepare_ahead(query, blocks, metric):
        if reduced is None:
            rows = _rows_of_keys(query, targets, block, metric)
        else:
            rows = _rows_of_products(query, targets, block, reduced, metric)
        for row in rows:
            split = split_keys(row.keys, row.lower, row.upper, fewest=1)
            counts[row.targets] += split.nearer
            if split.doubtful:
                near = np.unique(np.concatenate(list(split.doubtful.values())))
                distances = row.distances_of(near)
                for number, images in split.doubtful.items():
                    target, found = row.targets.start + number, distances[near.searchsorted(images)]
                    columns = block.columns[images]
                    counts[target] += count_before(found, columns, targets.distances[target], targets.columns[target])
    return counts


def _rows_of_products(
    query: Features, targets: Targets, block: GalleryBlock, reduced: Reduced, metric: Metric
) -> Iterator[_Row]:
    """Keys |x|²/2 - q·x, which are (d² - |q|²) / 2 for a distance d."""
    query_of = np.repeat(np.arange(len(query)), np.diff(targets.starts))
    squares = to_squares(targets.distances, metric)
    middle, margins = (squares - reduced.squares[query_of]) / 2, reduced.margins[query_of] + _LAST_BITS * squares
    lower = np.nextafter((middle - margins).astype(np.float32), np.float32(-np.inf))
    upper = np.nextafter((middle + margins).astype(np.float32), np.float32(np.inf))
    starts = targets.starts.tolist()
    for first in range(0, len(query), _STRIP):
        keys = reduced.queries[first : first + _STRIP] @ reduced.images.T
        np.subtract(reduced.halves, keys, out=keys)
        for row in range(first, first + len(keys)):
            own = slice(starts[row], starts[row + 1])
            compare = partial(exact_distances, query.matrix[row], block.matrix, metric=metric)
            yield _Row(own, keys[row - first], lower[own], upper[own], compare)


def _rows_of_keys(query: Features, targets: Targets, block: GalleryBlock, metric: Metric) -> Iterator[_Row]:
    """Keys as a ranking in memory has them, for features of unusual lengths."""
    matrix = block.matrix.astype(np.float32, copy=False)
    for part in key_blocks(query.matrix, matrix, metric=metric, memory_budget=None):
        assert part.exact_of is not None
        for row in part.rows:
            own, exact = slice(*targets.starts[row : row + 2].tolist()), part.exact_of(row)
            middle = (to_squares(targets.distances[own], metric) / part.unit).astype(np.float32)
            margins = np.float32(1.1) * exact.errors_of(middle)
            yield _Row(own, part.keys_of(row), middle - margins, middle + margins, exact.distances_of)
