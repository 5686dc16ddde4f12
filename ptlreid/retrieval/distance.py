"""Distances of queries to a gallery, streamed as ranking keys in blocks of query rows within a memory budget.

Two rules make ranks independent of the budget and ties exact:

- The last bits of an element of a product depend on the shape of the call: NumPy's OpenBLAS gave up to six values for
  the same two vectors. So the calls depend on the problem alone: a strip of queries by a tile of the gallery. A budget
  too small for a whole strip repeats each call and keeps another part of it.
- They depend on the place in the call, too: rarely with OpenBLAS's kernel for AVX-512, in nearly every call with the
  one for AVX2 (AMD Zen, Intel Haswell). So equal gallery images all take the key of the first of them.

On the CPU, NumPy multiplies: it was as fast as torch where we measured (see tests/benchmarks/retrieval.py), and to
import torch takes longer than the whole product of Market-1501.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval.memory_plan import Plan, plan
from ptlreid.retrieval.ranking_keys import Finish, Metric
from ptlreid.retrieval.types import Features

_Product = Callable[[np.ndarray, np.ndarray, np.ndarray], object]  # writes a @ b.T into the third
_LARGEST_SQUARE = 1e37  # beyond it, a float32 key could overflow


@dataclass(frozen=True)
class Block:
    """Keys of some queries, of shape (B, G), the first of them query `start`. Valid until the next block is asked for.

    `keys_of(row)`, with `row` from 0 to B - 1, makes a new (G,) float array when it is asked for: one row after
    another is then worked on while it lies in the cache. Several threads may ask.
    """

    start: int
    shape: tuple[int, int]
    keys_of: Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Stream:
    """Blocks that can be gone through as often as needed: each time, `make` begins anew."""

    make: Callable[[], Iterator[Block]]

    def __iter__(self) -> Iterator[Block]:
        return self.make()


def blocks(
    query: Features,
    gallery: Features,
    *,
    metric: Metric = "euclidean",
    memory_budget: int | None = None,
    device: str = "cpu",
) -> Iterator[Block]:
    """The keys of all Q x G pairs, some queries at a time, in the order of the queries: see `key_blocks`.

    Raises `DataError` for an empty side, unequal widths or features too large to square.
    """
    check_pair(query, gallery)
    return key_blocks(query.matrix, gallery.matrix, metric=metric, memory_budget=memory_budget, device=device)


def check_pair(query: Features, gallery: Features) -> None:
    """Raises `DataError` when the two cannot be compared."""
    for name, side in (("query", query), ("gallery", gallery)):
        if len(side) == 0:
            raise DataError(f"The {name} is empty, expected one image or more. Look at the dataset's folders.")
    if query.width != gallery.width:
        raise DataError(
            f"Query features have width {query.width}, gallery features have width {gallery.width}. "
            "Extract both with the same weights."
        )


def key_blocks(
    queries: np.ndarray,
    images: np.ndarray,
    *,
    metric: Metric = "euclidean",
    memory_budget: int | None = None,
    device: str = "cpu",
) -> Iterator[Block]:
    """The keys between the rows of two float32 matrices, (Q, D) and (G, D), in blocks of the first one's rows.

    `memory_budget`: bytes beside the features, as in `plan`. A zero vector has cosine 0 with everything.
    """
    if metric not in ("euclidean", "cosine"):
        raise OptionError(f"No metric is called {metric!r}. Known: cosine, euclidean.")
    steps = plan(len(queries), len(images), queries.shape[1], memory_budget)
    queries, images = np.ascontiguousarray(queries), np.ascontiguousarray(images)
    for name, matrix in (("query", queries), ("gallery", images)):
        _check_size(name, matrix)
    return _stream(queries, images, metric, steps, _product(device))


def matrix_blocks(distances: np.ndarray) -> Iterator[Block]:
    """One block of a (Q, G) matrix of distances of any making. Raises `DataError` for NaN or infinity."""
    if distances.ndim != 2 or distances.dtype not in (np.float32, np.float64):
        raise DataError(f"The distances are {distances.dtype} of shape {distances.shape}, expected (Q, G) floats.")

    def keys_of(row: int) -> np.ndarray:
        if not np.isfinite(distances[row]).all():
            raise DataError(f"Row {row} of the distances holds NaN or infinity, expected finite numbers.")
        return distances[row].copy()

    yield Block(0, distances.shape, keys_of)


def check_coverage(source: Iterable[Block], num_queries: int, num_gallery: int) -> Iterator[Block]:
    """The blocks of `source`; a `DataError` if they do not hold every query once, in order, against every image."""
    row = 0
    for block in source:
        height, width = block.shape
        if block.start != row or row + height > num_queries or width != num_gallery:
            raise DataError(
                f"Rows {block.start} to {block.start + height} of the distances have width {width}, expected rows from "
                f"{row} to at most {num_queries} of width {num_gallery}. Compute them from the same features."
            )
        row += height
        yield block
    if row != num_queries:
        raise DataError(
            f"The distances have {row} rows for {num_queries} queries. Compute them from the same features."
        )


def _stream(queries: np.ndarray, images: np.ndarray, metric: Metric, steps: Plan, product: _Product) -> Iterator[Block]:
    finish = Finish.make(images, metric)
    buffer = np.empty((steps.rows, len(images)), dtype=np.float32)
    scratch = np.empty((steps.strip, steps.columns) if steps.rows < steps.strip else (0, 0), dtype=np.float32)
    for first in range(0, len(queries), steps.strip):
        strip = queries[first : first + steps.strip]
        for offset in range(0, len(strip), steps.rows):
            products = buffer[: len(strip) - offset]
            for left in range(0, len(images), steps.columns):
                tile = images[left : left + steps.columns]
                part = products[:, left : left + len(tile)]
                if len(part) == len(strip):
                    product(strip, tile, part)
                else:
                    whole = scratch[: len(strip), : len(tile)]
                    product(strip, tile, whole)
                    part[...] = whole[offset : offset + len(part)]
            yield Block(first + offset, products.shape, partial(_keys_of, finish, products))


def _keys_of(finish: Finish, products: np.ndarray, row: int) -> np.ndarray:
    return finish.keys(products[row])


def _check_size(name: str, matrix: np.ndarray) -> None:
    """Raises `DataError` for features so large that a float32 key could overflow."""
    with np.errstate(over="ignore"):
        if np.vdot(matrix, matrix) < _LARGEST_SQUARE:
            return
    row = int(np.argmax(np.abs(matrix).max(axis=1)))
    raise DataError(f"{name} row {row}: features too large to square in float32. Divide all features by one number.")


def _product(device: str) -> _Product:
    """The matrix product on `device`; for a GPU, rows go there and keys come back, in full float32."""
    if device == "cpu":
        return lambda strip, tile, out: np.matmul(strip, tile.T, out=out)
    import torch

    def on_device(strip: np.ndarray, tile: np.ndarray, out: np.ndarray) -> None:
        left, right = (torch.from_numpy(side).to(device) for side in (strip, tile))
        out[...] = (left @ right.T).cpu().numpy()

    return on_device
