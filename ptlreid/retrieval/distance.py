"""Distances of all queries to all gallery images, streamed as ranking keys in blocks of queries.

A key orders the gallery for one query as the distance does and costs one pass less: |g|² / 2 - q·g for Euclidean
distance, -q·g / |g| for cosine distance. Two rules make ranks independent of the memory budget, and ties exact:

- The last bits of a matrix product depend on the shape of the call: NumPy's OpenBLAS gave up to six values for the
  same two vectors. So the calls depend on the problem size alone: a strip of queries by a tile of the gallery. A budget
  too small for a whole strip repeats each call, to keep another part of its result.
- They also depend on the position within the call: rarely with OpenBLAS's AVX-512 kernel, nearly always with its AVX2
  kernel (AMD Zen, Intel Haswell). So equal gallery images all take the key of the first of them.

NumPy multiplies: it was as fast as torch where we measured (tests/benchmarks/retrieval.py), and importing torch takes
longer than the whole product at Market-1501's size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Literal

import numpy as np

from ptlreid.errors import DataError
from ptlreid.retrieval.memory_plan import SQUARED_ROWS, plan_blocks
from ptlreid.retrieval.types import Retrieval

Metric = Literal["euclidean", "cosine"]

MAX_THREADS = min(4, os.cpu_count() or 1)  # more only wait for memory
_FEWEST_ROWS = 32  # per thread
_LONG_ROW = 40_000  # NumPy releases the interpreter inside a call; with short rows that costs more than it gains
_LARGEST_SQUARE = 1e37  # beyond it, a float32 key could overflow


@dataclass(frozen=True)
class Block:
    """The keys of some queries to the whole gallery: `rows` are the queries' rows, `num_gallery` the keys of each.

    `keys_of(row)`, for a row in `rows`, returns a new (G,) float array, so that one row after another is processed
    while it is in the cache. Several threads may call it. Valid until the next block is requested.
    """

    rows: range
    num_gallery: int
    keys_of: Callable[[int], np.ndarray]


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

    `memory_budget`: as for `plan_blocks`. A zero vector has cosine 0 with everything. Raises `DataError` for features
    too large to square.
    """
    plan = plan_blocks(len(queries), len(images), queries.shape[1], memory_budget)
    queries, images = np.ascontiguousarray(queries), np.ascontiguousarray(images)
    _check_size("query", queries)
    _check_size("gallery", images)
    finish = _KeyFinisher.for_gallery(images, metric)
    buffer = np.empty((plan.rows, len(images)), dtype=np.float32)
    scratch = np.empty((plan.strip, plan.columns) if plan.rows < plan.strip else (0, 0), dtype=np.float32)
    for first in range(0, len(queries), plan.strip):
        strip = queries[first : first + plan.strip]
        for offset in range(0, len(strip), plan.rows):
            products = buffer[: len(strip) - offset]
            for left in range(0, len(images), plan.columns):
                tile = images[left : left + plan.columns]
                part = products[:, left : left + len(tile)]
                if len(part) == len(strip):
                    np.matmul(strip, tile.T, out=part)
                else:
                    full = scratch[: len(strip), : len(tile)]
                    np.matmul(strip, tile.T, out=full)
                    part[...] = full[offset : offset + len(part)]
            start = first + offset
            yield Block(range(start, start + len(products)), len(images), partial(finish.keys, products, start))


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


def squared_lengths(matrix: np.ndarray) -> np.ndarray:
    """(N,) float32, |row|² of an (N, D) matrix with contiguous rows: equal for equal rows.

    Summed row by row and not by a BLAS, so that a row's position makes no difference.
    """
    lengths = np.empty(len(matrix), dtype=np.float32)
    for start in range(0, len(matrix), SQUARED_ROWS):
        rows = slice(start, start + SQUARED_ROWS)
        lengths[rows] = np.square(matrix[rows]).sum(axis=1)
    return lengths


def normalize_rows(matrix: np.ndarray) -> np.ndarray:
    """An L2-normalised copy of an (N, D) float32 matrix; a zero row stays zero."""
    lengths = np.sqrt(squared_lengths(np.ascontiguousarray(matrix)))
    return np.asarray(matrix / np.where(lengths > 0, lengths, np.float32(1))[:, None])


@dataclass(frozen=True)
class _KeyFinisher:
    """Computes keys from products by `combine(weights, products)`, with one key for equal images.

    `weights`: (G,) float32. Image `copies[i]` is equal to the earlier image `originals[i]`.
    """

    combine: np.ufunc
    weights: np.ndarray
    copies: np.ndarray
    originals: np.ndarray

    @classmethod
    def for_gallery(cls, images: np.ndarray, metric: Metric) -> _KeyFinisher:
        """The finisher for products with the gallery `images`, (G, D) float32, and `metric`."""
        lengths = squared_lengths(images)
        duplicates = _find_duplicates(images, lengths)
        copies, originals = (np.array(list(side), dtype=np.int64) for side in (duplicates.keys(), duplicates.values()))
        if metric == "euclidean":
            return cls(np.subtract, lengths / 2, copies, originals)
        lengths[lengths == 0] = 1
        return cls(np.multiply, -1 / np.sqrt(lengths), copies, originals)

    def keys(self, products: np.ndarray, first: int, row: int) -> np.ndarray:
        """The keys of query `row`, a new (G,) array, from the products of the queries from `first` on."""
        keys = np.asarray(self.combine(self.weights, products[row - first]))
        if len(self.copies):
            keys[self.copies] = keys[self.originals]
        return keys


def _find_duplicates(images: np.ndarray, lengths: np.ndarray) -> dict[int, int]:
    """For each row that equals an earlier one, the first such row."""
    sums = images[:, :64].sum(axis=1)
    order = np.lexsort((sums, lengths))
    like_next = (np.diff(lengths[order]) == 0) & (np.diff(sums[order]) == 0)
    candidates = np.zeros(len(images), dtype=bool)
    candidates[order[:-1][like_next]] = True
    candidates[order[1:][like_next]] = True
    firsts: dict[bytes, int] = {}
    duplicates: dict[int, int] = {}
    for row in np.flatnonzero(candidates).tolist():
        content = blake2b(images[row] + np.float32(0), digest_size=16).digest()  # + 0 turns -0 into 0
        original = firsts.setdefault(content, row)
        if original != row:
            duplicates[row] = original
    return duplicates


def _check_size(name: str, matrix: np.ndarray) -> None:
    """Raises `DataError` for features so large that a float32 key could overflow."""
    with np.errstate(over="ignore"):
        if np.vdot(matrix, matrix) < _LARGEST_SQUARE:
            return
    row = int(np.argmax(np.abs(matrix).max(axis=1)))
    raise DataError(f"{name} row {row}: features too large to square in float32. Scale all features down.")
