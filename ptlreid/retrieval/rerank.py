"""k-reciprocal re-ranking (Zhong et al., "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017).

In sparse form: an image's encoding has about a hundred entries, so that neither the (Q + G)^2 distances nor the
encodings are ever held whole. Where the paper's words leave a choice we do as its authors' code does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse

from ptlreid.errors import OptionError
from ptlreid.records import JUNK
from ptlreid.retrieval.distance import Block, check_pair, key_blocks
from ptlreid.retrieval.keys import unit_rows
from ptlreid.retrieval.nearest import nearest
from ptlreid.retrieval.parallel import over_rows
from ptlreid.retrieval.values import Features


def rerank(
    query: Features,
    gallery: Features,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    memory_budget: int | None = None,
    device: str = "cpu",
) -> Iterator[Block]:
    """Blocks of re-ranked (Q, G) float32 distances, for `evaluate_blocks` and `ranklist_blocks`.

    A distance is (1 - `weight`) x Jaccard distance + `weight` x original distance (section 3.5). The original one is
    2 - 2 cos, divided by the largest in the query's column of the distances of all to all. Neighbours are looked for
    among all N queries and gallery images; junk takes no part and is infinitely far. Equal distances go by order,
    queries first. `memory_budget` bounds the blocks of distances; beside them lie a copy of the features and about
    2 kB for each image.
    """
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise OptionError(f"k1 {k1}, k2 {k2}, weight {weight}: expected k1, k2 of 1 or more, and a weight from 0 to 1.")
    check_pair(query, gallery)
    present = np.flatnonzero(gallery.pids != JUNK)
    if len(present) < len(gallery):
        for block in rerank(
            query, gallery.select(present), k1=k1, k2=k2, weight=weight, memory_budget=memory_budget, device=device
        ):
            keys = np.full((len(block.keys), len(gallery)), np.inf, dtype=np.float32)
            keys[:, present] = block.keys
            yield Block(block.start, keys)
        return
    images = np.concatenate([unit_rows(query.matrix), unit_rows(gallery.matrix)])  # (N, D)
    near = _neighbourhood(images, k1 + 1, memory_budget, device)
    codes = _smooth(_encode(images, near, k1), near.columns[:, :k2])
    queries, columns = codes[: len(query)], codes[len(query) :].tocsc()
    for block in key_blocks(
        images[: len(query)], images[len(query) :], metric="cosine", memory_budget=memory_budget, device=device
    ):
        _blend(block, queries, columns, near.farthest, weight)
        yield block


@dataclass(frozen=True)
class _Neighbourhood:
    """`columns`: (N, K) int32, each image's nearest, mostly itself first. `farthest`: (N,), its largest 2 - 2 cos."""

    columns: np.ndarray
    farthest: np.ndarray


def _neighbourhood(images: np.ndarray, size: int, memory_budget: int | None, device: str) -> _Neighbourhood:
    columns = np.empty((len(images), min(size, len(images))), dtype=np.int32)
    farthest = np.empty(len(images), dtype=np.float32)

    def collect(block: Block, rows: slice) -> None:
        for row, keys in enumerate(block.keys[rows], start=block.start + rows.start):
            columns[row] = nearest(keys, columns.shape[1])
            farthest[row] = 2 + 2 * keys.max()

    for block in key_blocks(images, images, metric="cosine", memory_budget=memory_budget, device=device):
        over_rows(partial(collect, block), len(block.keys))
    return _Neighbourhood(columns, np.where(farthest > 0, farthest, np.float32(1)))


def _encode(images: np.ndarray, near: _Neighbourhood, k1: int) -> sparse.csr_array:
    """(N, N), row i: exp(-distance) to the extended k-reciprocal neighbours of image i, over their sum (section 3.3).

    The neighbours R(i, k1) are extended by R(c, k1 / 2) of each c among them that shares more than two thirds of it
    (section 3.2). The distance is 2 - 2 cos over the largest of image i.
    """
    mutual = _mutual(near.columns)
    closer = _mutual(near.columns[:, : round(k1 / 2) + 1])
    shared = (mutual @ closer.T).multiply(mutual).tocsr()  # [i, c]: |R(i, k1) and R(c, k1 / 2)|, for c in R(i, k1)
    shared.data = (3 * shared.data > 2 * np.diff(closer.indptr)[shared.indices]).astype(np.float32)
    shared.eliminate_zeros()
    codes = (mutual + shared @ closer).tocsr()

    def fill(rows: slice) -> None:
        for row in range(rows.start, rows.stop):
            entries = slice(codes.indptr[row], codes.indptr[row + 1])
            cosines = np.einsum("nd,d->n", images[codes.indices[entries]], images[row])
            weights = np.exp((2 * cosines - 2) / near.farthest[row])
            codes.data[entries] = weights / weights.sum()

    over_rows(fill, len(images))
    return codes


def _mutual(columns: np.ndarray) -> sparse.csr_array:
    """(N, N) of ones where each is among the other's nearest, `columns`: (N, K)."""
    forward = _rows(columns, 1)
    return forward.multiply(forward.T).tocsr()


def _smooth(codes: sparse.csr_array, columns: np.ndarray) -> sparse.csr_array:
    """Each image's encoding replaced by the mean over its nearest, `columns`: (N, K) (section 3.4)."""
    if columns.shape[1] == 1:
        return codes
    return (_rows(columns, 1 / columns.shape[1]) @ codes).tocsr()


def _rows(columns: np.ndarray, value: float) -> sparse.csr_array:
    """(N, N) with `value` at the K `columns` of each row."""
    num, size = columns.shape
    data = np.full(num * size, value, dtype=np.float32)
    return sparse.csr_array((data, columns.ravel(), np.arange(num + 1, dtype=np.int32) * size), shape=(num, num))


def _blend(
    block: Block, queries: sparse.csr_array, columns: sparse.csc_array, farthest: np.ndarray, weight: float
) -> None:
    """Overwrites the keys, -cos, of some queries with their final distances (section 3.5).

    `queries`: (Q, N), `columns`: (G, N), the encodings. Rows add up to 1, so the Jaccard distance of two is
    1 - s / (2 - s) for the sum s of their entries' minima; only columns that the query has an entry in matter.
    """

    def blend(rows: slice) -> None:
        for row, keys in enumerate(block.keys[rows], start=block.start + rows.start):
            entries = slice(queries.indptr[row], queries.indptr[row + 1])
            codes = columns[:, queries.indices[entries]]
            minima = np.minimum(codes.data, np.repeat(queries.data[entries], np.diff(codes.indptr)))
            shared = np.bincount(codes.indices, weights=minima, minlength=len(keys))
            jaccard = 1 - shared / (2 - shared)
            keys[:] = (1 - weight) * jaccard + weight * (2 + 2 * keys) / farthest[row]

    over_rows(blend, len(block.keys))
