"""Ranking keys, which are scaled squared distances, from the products of queries and gallery images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import cast

import numpy as np

from ptlreid.retrieval.centring import (
    Centring,
    Metric,
    choose_centring,
    exact_distances,
    key_errors,
    rough_below,
    squared_distances,
)
from ptlreid.retrieval.memory_plan import SQUARED_ROWS

_SQUARES = (2.0**-100, 2.0**120)  # sums of float32 squares that have all their digits


@dataclass(frozen=True)
class ExactDistances:
    """What decides where the keys of a query are too close to one another.

    `errors_of(keys)`: (M,) the largest errors of these keys. `distances_of(columns)`: (K,) float64 distances of the
    query and these gallery images; equal images have the same.
    """

    errors_of: Callable[[np.ndarray], np.ndarray]
    distances_of: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class QueryStrip:
    """The queries at `rows`. `factors`: (N, D) float32, to be multiplied with those of the gallery.

    `squares`: (N,) float32, their scaled squared lengths. `limits`: (N,) float32, see `rough_below`. `zeros`: (N,)
    bool, those without a direction, for cosine distance.
    """

    rows: range
    factors: np.ndarray
    squares: np.ndarray
    limits: np.ndarray
    zeros: np.ndarray


@dataclass(frozen=True)
class RankingKeys:
    """Makes keys of queries to the gallery from products of `factors`; one key for equal images.

    `factors`: (G, D) float32. A key is `combine(weights, product)` + the query's squared length, `weights`: (G,)
    float32. `zeros`: images without a direction, for cosine distance. Image `copies[i]` equals the earlier image
    `originals[i]`; `is_copy`: (G,) bool.
    """

    queries: np.ndarray
    images: np.ndarray
    centring: Centring
    factors: np.ndarray
    combine: np.ufunc
    weights: np.ndarray
    zeros: np.ndarray
    copies: np.ndarray
    originals: np.ndarray
    is_copy: np.ndarray

    @classmethod
    def for_features(cls, queries: np.ndarray, images: np.ndarray, metric: Metric) -> RankingKeys:
        """The keys between the rows of two float32 matrices, (Q, D) and (G, D)."""
        squares = squared_lengths(images)
        centring = choose_centring(queries, images, metric, np.sqrt(np.append(squared_lengths(queries), squares)))
        factors, combine = images, cast(np.ufunc, np.add)
        if centring.centre is not None:
            factors = centring.embed(images)
            weights = squared_lengths(factors)
        elif metric == "euclidean":
            weights = squares * centring.scale**2
        else:
            combine, weights = np.multiply, centring.scale / np.sqrt(np.where(squares > 0, squares, 1))
        duplicates = _find_duplicates(images, squares)
        copies, originals = (np.array(list(side), dtype=np.int64) for side in (duplicates.keys(), duplicates.values()))
        is_copy = np.zeros(len(images), dtype=bool)
        is_copy[copies] = True
        zeros = np.flatnonzero(squares == 0) if metric == "cosine" else np.empty(0, dtype=np.int64)
        weights = weights.astype(np.float32)
        return cls(queries, images, centring, factors, combine, weights, zeros, copies, originals, is_copy)

    @property
    def unit(self) -> float:
        """The squared distance for a key of 1."""
        return self.centring.scale**-2

    def strip(self, rows: range) -> QueryStrip:
        """The queries at `rows`, ready for the product."""
        scale, queries = self.centring.scale, self.queries[rows.start : rows.stop]
        zeros = np.logical_and(~queries.any(axis=1), self.centring.metric == "cosine")
        factors = self.centring.embed(queries)
        squares = squared_lengths(factors)
        limits = rough_below(squares, factors.shape[1])
        if self.combine is np.multiply:
            squares[:] = 2 * scale**2  # 2 - 2 cos
        # Images that are multiplied as they are are not scaled: the queries are, twice.
        as_they_are = self.factors is self.images and self.combine is np.add
        factors *= np.float32(-2 * scale if as_they_are else -2)
        return QueryStrip(rows, factors, squares.astype(np.float32), limits, zeros)

    def keys_of(self, strip: QueryStrip, products: np.ndarray, rows: range, row: int) -> np.ndarray:
        """The keys of query `row`, a new (G,) float32 array, from the products of the queries at `rows`."""
        index = row - strip.rows.start
        keys = np.asarray(self.combine(self.weights, products[row - rows.start]))
        keys += strip.squares[index]
        rough = np.flatnonzero(keys < strip.limits[index])
        if len(rough):
            rough = rough[~self.is_copy[rough]]
            squares = squared_distances(self.queries[row], self.images, rough, self.centring.metric)
            keys[rough] = squares * self.centring.scale**2
        if strip.zeros[index] or len(self.zeros):
            keys[... if strip.zeros[index] else self.zeros] = 2 * self.centring.scale**2  # 2 - 2 cos, with cosine 0
        if len(self.copies):
            keys[self.copies] = keys[self.originals]
        return keys

    def exact_of(self, strip: QueryStrip, row: int) -> ExactDistances:
        """What the keys of query `row` stand for."""
        limit, width = strip.limits[row - strip.rows.start], self.factors.shape[1]
        return ExactDistances(partial(key_errors, limit=limit, width=width), partial(self._distances_of, row))

    def _distances_of(self, row: int, columns: np.ndarray) -> np.ndarray:
        """(K,) float64; of equal images, the first is compared."""
        vector, metric = self.queries[row], self.centring.metric
        if not len(self.copies):
            return exact_distances(vector, self.images, columns, metric)
        places = np.minimum(self.copies.searchsorted(columns), len(self.copies) - 1)
        firsts = np.where(self.copies[places] == columns, self.originals[places], columns)
        different, which = np.unique(firsts, return_inverse=True)
        return exact_distances(vector, self.images, different, metric)[which]


def squared_lengths(matrix: np.ndarray) -> np.ndarray:
    """(N,) float64, |row|² of an (N, D) float32 matrix with contiguous rows: equal for equal rows.

    Summed row by row and not by a BLAS, so that a row's position makes no difference. Squares are of float32, except of
    rows where these would overflow or lose digits.
    """
    squares = np.empty(len(matrix))
    with np.errstate(over="ignore"):
        for start in range(0, len(matrix), SQUARED_ROWS):
            rows = slice(start, start + SQUARED_ROWS)
            squares[rows] = np.square(matrix[rows]).sum(axis=1, dtype=np.float64)
    unusual = np.flatnonzero((squares < _SQUARES[0]) | (squares > _SQUARES[1]))
    for start in range(0, len(unusual), SQUARED_ROWS):
        part = unusual[start : start + SQUARED_ROWS]
        squares[part] = np.square(matrix[part].astype(np.float64)).sum(axis=1)
    return squares


def _find_duplicates(images: np.ndarray, lengths: np.ndarray) -> dict[int, int]:
    """For each row that equals an earlier one, the first such row."""
    sums = images[:, :64].sum(axis=1, dtype=np.float64)
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
