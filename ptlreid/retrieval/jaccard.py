"""Jaccard distances of k-reciprocal encodings between all images, as far as clustering needs them.

Zhong et al., CVPR 2017, as in re-ranking; clustering by them follows Ge et al., "Self-paced contrastive learning with
hybrid memory for domain adaptive object re-ID" (SpCL), NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from scipy import sparse

from ptlreid.errors import DataError, OptionError
from ptlreid.progress import Progress, Silent
from ptlreid.retrieval.distance import MAX_THREADS
from ptlreid.retrieval.reciprocal import encode

_LONGEST_BLOCK = 1 << 18  # pairs of entries: longer blocks are no faster
_BYTES_PER_PAIR = 40


def jaccard_graph(
    matrix: np.ndarray, *, k1: int, k2: int, radius: float, memory_budget: int | None, progress: Progress | None = None
) -> sparse.csr_array:
    """(N, N) float32: the Jaccard distances of all pairs of features that are at most `radius`, 0 <= `radius` < 1.

    `matrix`: (N, D) float32. Pairs that are farther apart are not stored; stored zeros are pairs at distance 0, and
    the diagonal is among them. Symmetric, columns ascend. Neighbours are searched by cosine, and ties between them
    broken by order. `memory_budget` bounds the blocks of distances and does not change the result; the encodings, a
    copy of the features and about 4 kB per image, and 8 bytes per stored pair come on top.
    """
    if k1 < 1 or k2 < 1 or not 0 <= radius < 1:
        raise OptionError(
            f"k1 {k1}, k2 {k2}, radius {radius}: expected k1 and k2 of 1 or more, a radius from 0 to below 1."
        )
    if not len(matrix):
        raise DataError("There are no features to cluster: expected at least one image. Check the dataset's folders.")
    progress = progress or Silent()
    with progress.task("find k-reciprocal neighbours", len(matrix)) as advance:
        codes = encode(matrix, matrix[:0], k1=k1, k2=k2, memory_budget=memory_budget, advance=advance).codes
    codes.sort_indices()  # one order of each sum: (i, j) and (j, i) get one value, and equal encodings distance 0
    totals = codes @ np.ones(len(matrix), dtype=np.float32)
    columns = codes.T.tocsr()  # row c: the images whose encoding has column c
    near_pairs = partial(_near_pairs, codes, columns, totals, radius)
    parts, done = [], 0
    with progress.task("Jaccard distances", len(matrix)) as advance, ThreadPoolExecutor(MAX_THREADS) as pool:
        for part in pool.map(near_pairs, _split(codes, columns, memory_budget)):  # SciPy lets other threads run
            parts.append(part)
            done += part.shape[0]
            advance(done)
    return sparse.vstack(parts, format="csr")


def _split(codes: sparse.csr_array, columns: sparse.csr_array, memory_budget: int | None) -> Iterator[slice]:
    """Consecutive rows whose entries have, with all other images, no more pairs than a block; one row at least."""
    longest = _LONGEST_BLOCK
    if memory_budget is not None:
        longest = min(longest, memory_budget // (MAX_THREADS * _BYTES_PER_PAIR))
    pairs = np.concatenate([[0], np.cumsum(np.diff(columns.indptr)[codes.indices], dtype=np.int64)])[codes.indptr]
    start = 0
    while start < codes.shape[0]:
        stop = max(start + 1, int(np.searchsorted(pairs, pairs[start] + longest, side="right")) - 1)
        yield slice(start, stop)
        start = stop


def _near_pairs(
    codes: sparse.csr_array, columns: sparse.csr_array, totals: np.ndarray, radius: float, rows: slice
) -> sparse.csr_array:
    """(R, N) distances of the images in `rows` to all, without those above `radius`.

    The distance of two encodings is 1 - s / (a + b - s), where s is the sum of the element-wise minima, and a and b the
    sums of both. Each entry of a row is compared with all of its column, and the minima are summed by image.
    """
    own = codes[rows]
    others = columns[own.indices]  # row e: the images that share the column of entry e
    others.data = np.minimum(others.data, np.repeat(own.data, np.diff(others.indptr)))
    shared = (_join_rows(own) @ others).tocsr()
    local = np.repeat(np.arange(own.shape[0]), np.diff(shared.indptr))
    distances = 1 - shared.data / (totals[rows][local] + totals[shared.indices] - shared.data)
    near = np.flatnonzero(distances <= radius)
    starts = np.concatenate([[0], np.cumsum(np.bincount(local[near], minlength=own.shape[0]))])
    found = sparse.csr_array((distances[near], shared.indices[near], starts), shape=shared.shape)
    found.sort_indices()
    return found


def _join_rows(codes: sparse.csr_array) -> sparse.csr_array:
    """(R, E) with 1 where an entry belongs to a row of `codes`, which has E entries."""
    entries = np.arange(codes.nnz, dtype=codes.indices.dtype)
    return sparse.csr_array((np.ones(codes.nnz, np.float32), entries, codes.indptr), shape=(codes.shape[0], codes.nnz))
