"""The nearest images in a gallery that is read block by block: those of `search.rank_gallery`, ties included.

A product in float32 leaves out the images of a block that cannot be among the nearest. What is left is compared by
float64 distances, which depend on the two features alone. So neither the blocks nor a BLAS decides a rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from itertools import groupby

import numpy as np

from ptlreid.retrieval.centring import Metric, squared_distances, to_distances, to_double, to_squares
from ptlreid.retrieval.nearest import nearest
from ptlreid.retrieval.search import Hits, Person, rank_gallery
from ptlreid.retrieval.types import Features

_STRIP = 1024  # queries per product
_ROUNDING = 2.0**-24  # relative error of float32
_LENGTHS = (2.0**-40, 2.0**40)  # of features whose squares are far from the limits of float32
_MOST_ROWS = 16_384  # of a block: products of 100 queries stay in the cache
_FEWEST_ROWS = 1024
_WIDENED_ROWS = 1024  # at a time, which stay in the cache
_BLOCK_BYTES = 256 << 20  # of all blocks that are held, unless the memory budget is lower


@dataclass(frozen=True)
class GalleryBlock:
    """Images of a gallery. `matrix`: (N, D) float32 or float16, N >= 1. `columns`: (N,) their gallery rows, ascending.

    `people`: the queries, with the positions in this block that are hidden from each.
    """

    matrix: np.ndarray
    columns: np.ndarray
    people: Sequence[Person]


def plan_rows(num_queries: int, width: int, memory_budget: int | None) -> int:
    """The rows of a block, so that blocks and products stay within the budget, by default 256 MB; 1,024 at least."""
    budget = _BLOCK_BYTES if memory_budget is None else min(memory_budget, _BLOCK_BYTES)
    return max(_FEWEST_ROWS, min(_MOST_ROWS, budget // count_block_bytes(1, num_queries, width)))


def count_block_bytes(rows: int, num_queries: int, width: int) -> int:
    """The memory that blocks of so many rows take: three of them (read, prepared and in use), and the products."""
    return rows * (4 * min(num_queries, _STRIP) + 3 * 2 * 4 * width)


def rank_blocks(query: Features, blocks: Iterable[GalleryBlock], *, size: int, metric: Metric) -> list[Hits]:
    """The `size` nearest images of each of the people in all blocks, which come in gallery order.

    Ranks and distances are those of `rank_gallery` with the complete gallery. The blocks have the same people but for
    what is hidden from them; no block gives an empty list.
    """
    best: list[Hits] = []
    for block, reduced in prepare_ahead(query, blocks, metric):
        best = best or [Hits(np.empty(0, dtype=np.int64), np.empty(0)) for _ in block.people]
        for number, hits in _rank_block(query, block, reduced, best, size=size, metric=metric):
            best[number] = _merge(best[number], hits, size)
    return best


@dataclass(frozen=True)
class Reduced:
    """Queries and images of a block, ready for q·x - |x|²/2, which is (|q|² - d²) / 2 for a distance d.

    `queries`: (Q, D), `images`: (N, D) float32, centred. `halves`: (N,) float32, |x|²/2. `squares`, `margins`: (Q,)
    float64, |q|² and the largest rounding error of the result.
    """

    queries: np.ndarray
    images: np.ndarray
    halves: np.ndarray
    squares: np.ndarray
    margins: np.ndarray


def prepare_ahead(
    query: Features, blocks: Iterable[GalleryBlock], metric: Metric
) -> Iterator[tuple[GalleryBlock, Reduced | None]]:
    """The blocks, ready for products, or with None where these would not do; the next is prepared meanwhile."""
    found = iter(blocks)
    reducer: _Reducer | None = None

    def step() -> tuple[GalleryBlock, Reduced | None] | None:
        nonlocal reducer
        block = next(found, None)
        if block is None:
            return None
        reducer = reducer or _Reducer.of(query.matrix, block.matrix, metric)
        return block, reducer.reduce(block.matrix)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(step)
        while (current := following.result()) is not None:
            following = pool.submit(step)
            yield current


@dataclass(frozen=True)
class _Reducer:
    """Makes `Reduced` of one block after another, all with the same `centre`, (D,) float32; None for no centre.

    `queries`: None where they are too long, too short or, for cosine distance, zero.
    """

    metric: Metric
    centre: np.ndarray | None
    queries: np.ndarray | None
    squares: np.ndarray

    @classmethod
    def of(cls, queries: np.ndarray, images: np.ndarray, metric: Metric) -> _Reducer:
        sample = np.concatenate([to_double(side[:: 1 + len(side) // 256], metric) for side in (queries, images)])
        mean = sample.mean(axis=0)
        lies_away = np.square(mean).sum() > np.square(sample - mean).sum(axis=1).mean() / 4
        centre = mean.astype(np.float32) if lies_away else None
        centred = (to_double(queries, metric) - (0 if centre is None else centre)).astype(np.float32)
        squares = np.square(centred.astype(np.float64)).sum(axis=1)
        lengths = np.sqrt(np.square(queries.astype(np.float64)).sum(axis=1))
        return cls(metric, centre, centred if _are_usual(lengths, metric) else None, squares)

    def reduce(self, matrix: np.ndarray) -> Reduced | None:
        """None where lengths in the block are unusual."""
        if self.queries is None:
            return None
        width, images = matrix.shape[1], _widen(matrix)
        with np.errstate(over="ignore"):
            lengths = np.sqrt(np.einsum("ij,ij->i", images, images))
        if not _are_usual(lengths, self.metric):
            return None
        if self.metric == "cosine":
            images /= lengths[:, None]
        if self.centre is not None:
            images -= self.centre
        halves = np.einsum("ij,ij->i", images, images) / 2
        longest = float(np.sqrt(2 * halves.max())) * 1.001
        # The worst rounding of D products and sums in any order, of half squares, and of vectors made float32.
        queries = np.sqrt(self.squares)
        scale = 1.0 if self.metric == "cosine" else 0.0
        margins = (2 * width + 16) * _ROUNDING * (queries * longest + longest**2 / 2)
        margins += 4 * _ROUNDING * self.squares
        margins += 2 * (width + 8) * _ROUNDING * scale * (queries + longest)
        return Reduced(self.queries, images, halves, self.squares, margins)


def _widen(matrix: np.ndarray) -> np.ndarray:
    """A float32 copy of a finite matrix; of float16 in a quarter of the time of `astype`, with the same result.

    Exponent and mantissa of a float16 are moved to where float32 has them; 2^112 is what the exponents then differ by.
    """
    if matrix.dtype != np.float16:
        return matrix.astype(np.float32)
    widened = np.empty(matrix.shape, dtype=np.float32)
    for start in range(0, len(matrix), _WIDENED_ROWS):
        part = widened[start : start + _WIDENED_ROWS]
        bits = part.view(np.int32)
        bits[...] = matrix[start : start + _WIDENED_ROWS].view(np.int16)
        bits <<= 13
        bits &= ~0x70001FFF  # copies of the sign bit, and below the mantissa
        part *= np.float32(2.0**112)
    return widened


def _are_usual(lengths: np.ndarray, metric: Metric) -> bool:
    """Whether features may be multiplied in float32; for cosine distance, a zero vector may not."""
    usual = (lengths >= _LENGTHS[0]) & (lengths <= _LENGTHS[1])
    return bool((usual if metric == "cosine" else usual | (lengths == 0)).all())


def _rank_block(
    query: Features, block: GalleryBlock, reduced: Reduced | None, best: Sequence[Hits], *, size: int, metric: Metric
) -> Iterator[tuple[int, Hits]]:
    """For people by number, the images of the block that may be among the nearest, in any order."""
    if reduced is None:
        yield from enumerate(_rank_completely(query, block, size, metric))
        return
    limits = np.array(
        [_square(float(one.distances[-1]), metric) if len(one.columns) == size else np.inf for one in best]
    )
    for number, near in _find_near(reduced, block.people, limits, size):
        rows = block.people[number].rows.tolist()
        squares = np.min([squared_distances(query.matrix[row], block.matrix, near, metric) for row in rows], axis=0)
        yield number, Hits(block.columns[near], to_distances(squares, metric))


def _square(distance: float, metric: Metric) -> float:
    """The squared distance, 2 - 2 cos for cosine distance, rounded up."""
    return to_squares(distance, metric) * (1 + 1e-12)


def _find_near(
    reduced: Reduced, people: Sequence[Person], limits: np.ndarray, size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """By number of the people, positions of all images that may be within the squared distance `limits` of one.

    Without a limit, of all that may be among the `size` nearest of the block. `limits`: (P,) float64.
    """
    person_of = np.repeat(np.arange(len(people)), [len(one.rows) for one in people])
    least = ((reduced.squares - limits[person_of]) / 2 - reduced.margins).astype(np.float32)
    least = np.nextafter(least, np.float32(-np.inf))
    found = groupby(_multiply(reduced, least), key=lambda one: int(person_of[one[0]]))
    for number, products in found:  # of one person after another, so that few rows are held
        hidden = people[number].hidden
        if np.isfinite(limits[number]):
            near = reduce(np.union1d, (np.flatnonzero(product >= least[row]) for row, product in products))
            yield number, np.setdiff1d(near, hidden) if len(hidden) else near
            continue
        all_squares = (reduced.squares[row] - 2 * product.astype(np.float64) for row, product in products)
        squares = reduce(np.minimum, all_squares)
        squares[hidden] = np.inf
        last = squares[nearest(squares, size)[-1]] + 4 * reduced.margins[people[number].rows].max()
        yield number, np.flatnonzero((squares <= last) & (squares < np.inf))


def _multiply(reduced: Reduced, least: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of queries with a product of at least `least`, (Q,), and their products with all images, (N,)."""
    for first in range(0, len(reduced.queries), _STRIP):
        products = reduced.queries[first : first + _STRIP] @ reduced.images.T
        products -= reduced.halves
        for row in np.flatnonzero(products.max(axis=1) >= least[first : first + _STRIP]).tolist():
            yield first + row, products[row]


def _rank_completely(query: Features, block: GalleryBlock, size: int, metric: Metric) -> list[Hits]:
    numbers = np.zeros(len(block.columns), dtype=np.int64)
    matrix = block.matrix.astype(np.float32, copy=False)
    gallery = Features(matrix, numbers, numbers, np.empty(len(numbers), dtype=object))
    found = rank_gallery(query, block.people, gallery, size=size, metric=metric, memory_budget=None)
    return [Hits(block.columns[hits.columns], hits.distances) for hits in found]


def _merge(old: Hits, new: Hits, size: int) -> Hits:
    """The nearest of both; equal distances in gallery order."""
    columns, distances = np.concatenate([old.columns, new.columns]), np.concatenate([old.distances, new.distances])
    order = np.lexsort((columns, distances))[:size]
    return Hits(columns[order], distances[order])
