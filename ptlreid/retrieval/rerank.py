"""k-reciprocal re-ranking (Zhong et al., "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017).

Where the paper is ambiguous, this follows its authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy import sparse

from ptlreid.errors import DataError, OptionError
from ptlreid.records import JUNK
from ptlreid.retrieval.distance import Block, Blocks, key_blocks
from ptlreid.retrieval.reciprocal import encode
from ptlreid.retrieval.types import Retrieval


def rerank_blocks(retrieval: Retrieval, *, k1: int, k2: int, weight: float, memory_budget: int | None) -> Blocks:
    """Blocks of re-ranked (Q, G) float32 distances.

    A distance is (1 - `weight`) × Jaccard distance + `weight` × original distance (section 3.5). The original one is
    2 - 2 cos, divided by the largest in the query's column of the all-to-all distances. Neighbours are searched among
    all N queries and gallery images; junk is left out and infinitely far. Ties are broken by order, queries
    first. `memory_budget` bounds the blocks of distances; a copy of the features and about 2 kB per image come on top.
    """
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise OptionError(f"k1 {k1}, k2 {k2}, weight {weight}: expected k1 and k2 of 1 or more, a weight from 0 to 1.")
    num_queries, num_gallery = len(retrieval.query), len(retrieval.gallery)
    present = np.flatnonzero(retrieval.gallery.pids != JUNK)
    if not len(present):
        raise DataError("The gallery has only junk: expected at least one other image. Check the dataset's folders.")
    gallery = retrieval.gallery.matrix if len(present) == num_gallery else retrieval.gallery.matrix[present]
    encodings = encode(retrieval.query.matrix, gallery, k1=k1, k2=k2, memory_budget=memory_budget)
    queries, columns = encodings.codes[:num_queries], encodings.codes[num_queries:].tocsc()

    def keys_of(block: Block, row: int) -> np.ndarray:
        original = block.keys_of(row) * block.unit / encodings.farthest[row]
        keys = np.full(num_gallery, np.inf, dtype=np.float32)
        keys[present] = (1 - weight) * _jaccard(queries, columns, row) + weight * original
        return keys

    left, right = encodings.images[:num_queries], encodings.images[num_queries:]

    def make() -> Iterator[Block]:
        for block in key_blocks(left, right, metric="euclidean", memory_budget=memory_budget):
            yield Block(block.rows, num_gallery, partial(keys_of, block))

    return Blocks(make)


def _jaccard(queries: sparse.csr_array, images: sparse.csc_array, row: int) -> np.ndarray:
    """(G,) Jaccard distances of one query's encoding to those of the images (section 3.3), `images`: (G, N).

    Encodings have sum 1, so the distance of two is 1 - s / (2 - s), where s is the sum of the element-wise minima; only
    the query's non-zero columns contribute.
    """
    entries = slice(queries.indptr[row], queries.indptr[row + 1])
    others = images[:, queries.indices[entries]]
    minima = np.minimum(others.data, np.repeat(queries.data[entries], np.diff(others.indptr)))
    shared = np.bincount(others.indices, weights=minima, minlength=images.shape[0])
    return np.asarray(1 - shared / (2 - shared))
