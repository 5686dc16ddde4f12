"""k-reciprocal encodings of images (Zhong et al., CVPR 2017), between which Jaccard distances are taken.

In sparse form: an encoding has about a hundred entries, so that neither the N² distances nor dense encodings are ever
in memory. Where the paper is ambiguous, this follows its authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ptlreid.progress import Advance
from ptlreid.retrieval.centring import choose_centring
from ptlreid.retrieval.distance import key_blocks, map_rows
from ptlreid.retrieval.nearest import nearest
from ptlreid.retrieval.ranking_keys import squared_lengths


@dataclass(frozen=True)
class Encodings:
    """`images`: (N, D) float32, as `_embed` makes them. `farthest`: (N,), the largest squared distance of each to any
    of them. `codes`: (N, N) float32, the encodings, each with sum 1.
    """

    images: np.ndarray
    farthest: np.ndarray
    codes: sparse.csr_array


def encode(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    k1: int,
    k2: int,
    memory_budget: int | None,
    advance: Advance | None = None,
) -> Encodings:
    """The encodings of queries and gallery, (Q, D) and (G, D), among all of their N images, queries first.

    Ties between neighbours are broken by order. `k2` counts up to k1 + 1. `memory_budget` bounds the blocks of
    distances; a copy of the features and about 2 kB per image come on top. `advance`: receives the number of images
    whose neighbours are found.
    """
    images = _embed(query, gallery)
    near = _find_neighbours(images, k1 + 1, memory_budget, advance)
    codes = _smooth(_encode(images, near, k1), near.columns[:, :k2])
    return Encodings(images, near.farthest, codes)


def _embed(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(N, D) float32: the L2-normalised features, queries first, centred and scaled so that no difference is lost.

    Their squared distances are 2 - 2 cos times a constant, by which re-ranking does not change.
    """
    lengths = np.sqrt(np.concatenate([squared_lengths(np.ascontiguousarray(side)) for side in (query, gallery)]))
    centring = choose_centring(query, gallery, "cosine", lengths)
    images = np.empty((len(query) + len(gallery), query.shape[1]), dtype=np.float32)
    centring.embed(query, images[: len(query)])
    centring.embed(gallery, images[len(query) :])
    return images


@dataclass(frozen=True)
class _Neighbours:
    """`columns`: (N, K) int32, each image's nearest, usually itself first. `farthest`: (N,), its largest distance."""

    columns: np.ndarray
    farthest: np.ndarray


def _find_neighbours(images: np.ndarray, size: int, memory_budget: int | None, advance: Advance | None) -> _Neighbours:
    columns = np.empty((len(images), min(size, len(images))), dtype=np.int32)
    farthest = np.empty(len(images), dtype=np.float32)

    def collect(rows: range) -> None:
        for row in rows:
            keys = block.keys_of(row)
            columns[row] = nearest(keys, columns.shape[1])
            farthest[row] = keys.max() * block.unit

    for block in key_blocks(images, images, metric="euclidean", memory_budget=memory_budget):
        map_rows(collect, block.rows, block.num_gallery)
        if advance is not None:
            advance(block.rows.stop)
    return _Neighbours(columns, np.where(farthest > 0, farthest, np.float32(1)))


def _encode(images: np.ndarray, near: _Neighbours, k1: int) -> sparse.csr_array:
    """(N, N), row i: exp(-distance) to the extended k-reciprocal neighbours of image i, with sum 1 (section 3.3).

    The neighbours R(i, k1) are extended by R(c, k1 / 2) of each c among them that shares more than two thirds of it
    (section 3.2). The distance is 2 - 2 cos, divided by the largest one of image i.
    """
    mutual = _mutual_neighbours(near.columns)
    closer = _mutual_neighbours(near.columns[:, : round(k1 / 2) + 1])
    shared = (mutual @ closer.T).multiply(mutual).tocsr()  # [i, c]: |R(i, k1) ∩ R(c, k1 / 2)|, for c in R(i, k1)
    shared.data = (3 * shared.data > 2 * np.diff(closer.indptr)[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    codes = (mutual + shared @ closer).tocsr()

    def fill(rows: range) -> None:
        for row in rows:
            entries = slice(codes.indptr[row], codes.indptr[row + 1])
            gaps = images[codes.indices[entries]] - images[row]
            weights = np.exp(-np.einsum("nd,nd->n", gaps, gaps) / near.farthest[row])
            codes.data[entries] = weights / weights.sum()

    map_rows(fill, range(len(images)), images.shape[1])
    return codes


def _mutual_neighbours(columns: np.ndarray) -> sparse.csr_array:
    """(N, N) with 1 where two images are mutual nearest neighbours, `columns`: (N, K)."""
    forward = _sparse_rows(columns, 1)
    return forward.multiply(forward.T).tocsr()


def _smooth(codes: sparse.csr_array, columns: np.ndarray) -> sparse.csr_array:
    """The encodings averaged over each image's nearest neighbours, `columns`: (N, K) (section 3.4)."""
    return (_sparse_rows(columns, 1 / columns.shape[1]) @ codes).tocsr()


def _sparse_rows(columns: np.ndarray, value: float) -> sparse.csr_array:
    """(N, N) with `value` at the K `columns` of each row."""
    num, size = columns.shape
    data = np.full(num * size, value, dtype=np.float32)
    return sparse.csr_array((data, columns.ravel(), np.arange(num + 1, dtype=np.int32) * size), shape=(num, num))
