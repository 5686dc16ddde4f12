"""Distances of all queries to all gallery images, streamed as ranking keys in blocks of queries.

A key is a squared distance, times a constant: |g|² - 2 q·g + |q|² from a product in float32, or, where that is too
rough, the difference in float64 (`centring`). For cosine distance the vectors are L2-normalised. Two rules make ranks
independent of the memory budget, and ties exact:

- The last bits of a matrix product depend on the shape of the call: NumPy's OpenBLAS gave up to six values for the
  same two vectors. So the calls depend on the problem size alone: a strip of queries by a tile of the gallery. A budget
  too small for a whole strip repeats each call, to keep another part of its result.
- They also depend on the position within the call: rarely with OpenBLAS's AVX-512 kernel, nearly always with its AVX2
  kernel (AMD Zen, Intel Haswell). So equal gallery images all take the key of the first of them.

NumPy multiplies: it was as fast as torch where we measured (tests/benchmarks/retrieval.py), and importing torch takes
longer than the whole product at Market-1501's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from ptlreid.cores import available_cores
from ptlreid.errors import DataError
from ptlreid.retrieval.centring import Metric
from ptlreid.retrieval.memory_plan import plan_blocks
from ptlreid.retrieval.ranking_keys import ExactDistances, RankingKeys
from ptlreid.retrieval.types import Retrieval

MAX_THREADS = min(4, available_cores())  # more only wait for memory
_FEWEST_ROWS = 32  # per thread
_LONG_ROW = 40_000  # NumPy releases the interpreter inside a call; with short rows that costs more than it gains


@dataclass(frozen=True)
class Block:
    """The keys of some queries to the whole gallery: `rows` are the queries' rows, `num_gallery` the keys of each.

    `keys_of(row)`, for a row in `rows`, returns a new (G,) float array, so that one row after another is processed
    while it is in the cache. Several threads may call it. Valid until the next block is requested. `unit`: a squared
    distance is a key times this; that of vectors of length 1, 2 - 2 cos, for cosine distance. `exact_of(row)`: what
    decides between keys that rounding may have exchanged; None where the keys themselves decide.
    """

    rows: range
    num_gallery: int
    keys_of: Callable[[int], np.ndarray]
    unit: float = 1.0
    exact_of: Callable[[int], ExactDistances] | None = None


@dataclass(frozen=True)
class Blocks:
    """The blocks of a retrieval in query order, which can be iterated as often as needed."""

    make: Callable[[], Iterator[Block]]

    def __iter__(self) -> Iterator[Block]:
        return self.make()


def distance_blocks(retrieval: Retrieval, *, metric: Metric, memory_budget: int | None) -> Blocks:
    """The keys of all Q × G pairs within `memory_budget` bytes besides the features, see `key_blocks`."""
    query, gallery = retrieval.query.matrix, retrieval.gallery.matrix
    return Blocks(partial(key_blocks, query, gallery, metric=metric, memory_budget=memory_budget))


def key_blocks(
    queries: np.ndarray, images: np.ndarray, *, metric: Metric, memory_budget: int | None
) -> Iterator[Block]:
    """The keys between the rows of two float32 matrices, (Q, D) and (G, D), in blocks of rows of the first.

    Keys order images as float64 distances of the given features do, except where two distances differ by less than
    `RELATIVE_BOUND` of their size. (Distances below 1e-36 of the longest feature count as 0.) `memory_budget`: as for
    `plan_blocks`; a copy of the features comes on top where they have to be centred. A zero vector has cosine 0 with
    everything.
    """
    plan = plan_blocks(len(queries), len(images), queries.shape[1], memory_budget)
    queries, images = np.ascontiguousarray(queries), np.ascontiguousarray(images)
    ranking = RankingKeys.for_features(queries, images, metric)
    buffer = np.empty((plan.rows, len(images)), dtype=np.float32)
    scratch = np.empty((plan.strip, plan.columns) if plan.rows < plan.strip else (0, 0), dtype=np.float32)
    for first in range(0, len(queries), plan.strip):
        strip = ranking.strip(range(first, min(first + plan.strip, len(queries))))
        for offset in range(0, len(strip.factors), plan.rows):
            products = buffer[: len(strip.factors) - offset]
            for left in range(0, len(images), plan.columns):
                tile = ranking.factors[left : left + plan.columns]
                part = products[:, left : left + len(tile)]
                if len(part) == len(strip.factors):
                    np.matmul(strip.factors, tile.T, out=part)
                else:
                    full = scratch[: len(strip.factors), : len(tile)]
                    np.matmul(strip.factors, tile.T, out=full)
                    part[...] = full[offset : offset + len(part)]
            rows = range(first + offset, first + offset + len(products))
            keys_of, exact_of = partial(ranking.keys_of, strip, products, rows), partial(ranking.exact_of, strip)
            yield Block(rows, len(images), keys_of, ranking.unit, exact_of)


def matrix_blocks(distances: np.ndarray) -> Blocks:
    """One block from a (Q, G) matrix of any distances. Raises `DataError` for NaN or infinity."""
    if distances.ndim != 2 or distances.dtype not in (np.float32, np.float64):
        raise DataError(f"The distances are {distances.dtype} of shape {distances.shape}, expected (Q, G) floats.")

    def keys_of(row: int) -> np.ndarray:
        if not np.isfinite(distances[row]).all():
            raise DataError(f"Row {row} of the distances contains NaN or infinity, expected finite numbers.")
        return distances[row].copy()

    return Blocks(lambda: iter([Block(range(len(distances)), distances.shape[1], keys_of)]))


def check_coverage(blocks: Blocks, num_queries: int, num_gallery: int) -> Iterator[Block]:
    """The blocks of `blocks`; a `DataError` unless they hold every query once, in order, against every image."""
    row = 0
    for block in blocks:
        if block.rows.start != row or block.rows.stop > num_queries or block.num_gallery != num_gallery:
            raise DataError(
                f"Rows {block.rows.start} to {block.rows.stop} of the distances have width {block.num_gallery}: "
                f"expected rows from {row} to at most {num_queries}, of width {num_gallery}. Compute them from the "
                "same features."
            )
        row = block.rows.stop
        yield block
    if row != num_queries:
        raise DataError(
            f"The distances have {row} rows for {num_queries} queries. Compute them from the same features."
        )


def map_rows(work: Callable[[range], None], rows: range, row_length: int) -> None:
    """Calls `work` with consecutive parts of `rows`, in threads where rows are long.

    Exceptions from `work` are raised. Results must not depend on how rows are split, so `work` writes each row's result
    separately. `row_length`: roughly how many numbers it processes per row.
    """
    num_parts = min(MAX_THREADS, len(rows) // _FEWEST_ROWS) if row_length >= _LONG_ROW else 1
    if num_parts <= 1:
        work(rows)
        return
    parts = [rows[len(rows) * part // num_parts : len(rows) * (part + 1) // num_parts] for part in range(num_parts)]
    with ThreadPoolExecutor(num_parts) as pool:
        list(pool.map(work, parts))
