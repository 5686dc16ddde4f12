"""The nearest gallery images of queries that may have several images each: exact, and within the memory budget.

No identity is read: what is unknown, junk or a distractor elsewhere is an image like any other here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptlreid.records import DISTRACTOR, UNKNOWN_CAMERA
from ptlreid.retrieval.centring import Metric, squared_distances, to_distances, to_double
from ptlreid.retrieval.distance import Block, Blocks, distance_blocks
from ptlreid.retrieval.nearest import nearest, within_reach
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features, Retrieval


@dataclass(frozen=True)
class Side:
    """Query or gallery. `cameras`: (N,) object array of str, what their cameras are called, "" where unknown."""

    features: Features
    cameras: np.ndarray

    def select(self, rows: np.ndarray) -> Side:
        """Those at `rows`: indices in the order given, or a boolean mask."""
        return Side(self.features.select(rows), self.cameras[rows])


@dataclass(frozen=True)
class Hits:
    """The nearest images of a query, K of them. `columns`: (K,) gallery rows. `distances`: (K,) float64, ascending."""

    columns: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Person:
    """A query: the rows of its images, one or more, and the gallery columns that are hidden from it."""

    rows: np.ndarray
    hidden: np.ndarray


def average(query: Features, people: Sequence[Person]) -> tuple[Features, list[Person]]:
    """One row for each of the people: the mean of the L2-normalised features of its images, to be compared by cosine.

    A person with one image keeps its feature. A zero vector stays zero.
    """
    means = [
        query.matrix[one.rows[0]]
        if len(one.rows) == 1
        else to_double(query.matrix[one.rows], "cosine").mean(axis=0).astype(np.float32)
        for one in people
    ]
    first = query.select(np.array([one.rows[0] for one in people]))
    merged = [replace(one, rows=np.array([row])) for row, one in enumerate(people)]
    return replace(first, matrix=np.stack(means)), merged


def rank_gallery(
    query: Features,
    people: Sequence[Person],
    gallery: Features,
    *,
    size: int,
    metric: Metric,
    memory_budget: int | None,
) -> list[Hits]:
    """The `size` nearest images of each of the people, by the smallest distance to any of its images.

    Distances are Euclidean or 1 - cosine, in float64 from the float32 features, which also decide the order and what is
    among the first `size`. Equal distances keep gallery order. The people's rows are those of `query`, in order.
    """
    blocks = distance_blocks(_unlabelled(query, gallery), metric=metric, memory_budget=memory_budget)
    found = []
    for one, keys in _nearest_keys(blocks, people):
        keys[one.hidden] = np.inf
        near = within_reach(keys, size)
        squares = np.min(
            [squared_distances(query.matrix[row], gallery.matrix, near, metric) for row in one.rows], axis=0
        )
        distances = to_distances(squares, metric)
        order = np.lexsort((near, distances))[:size]
        found.append(Hits(near[order], distances[order]))
    return found


def rerank_gallery(
    query: Features,
    people: Sequence[Person],
    gallery: Features,
    *,
    size: int,
    k1: int,
    k2: int,
    weight: float,
    memory_budget: int | None,
) -> list[Hits]:
    """The same by k-reciprocal re-ranked distances, in float32: see `rerank_blocks`."""
    from ptlreid.retrieval.rerank import rerank_blocks  # SciPy

    blocks = rerank_blocks(_unlabelled(query, gallery), k1=k1, k2=k2, weight=weight, memory_budget=memory_budget)
    found = []
    for one, keys in _nearest_keys(blocks, people):
        keys[one.hidden] = np.inf
        columns = nearest(keys, size)
        columns = columns[keys[columns] < np.inf]
        found.append(Hits(columns, keys[columns].astype(np.float64)))
    return found


def _unlabelled(query: Features, gallery: Features) -> Retrieval:
    """Both sides with pids that hide nothing."""
    left, right = (replace(one, pids=np.full(len(one), DISTRACTOR, dtype=np.int64)) for one in (query, gallery))
    return Retrieval(left, right, PROTOCOLS["any-image"])


def _nearest_keys(blocks: Blocks, people: Sequence[Person]) -> Iterator[tuple[Person, np.ndarray]]:
    """For each of the people, (G,) the smallest key of each gallery image over the person's images."""
    rows = [int(row) for one in people for row in one.rows]
    if rows != list(range(len(rows))):
        raise ValueError("the people's rows are not those of the query in order")
    keys = _row_keys(blocks)
    for one in people:
        smallest = next(keys)
        for _ in one.rows[1:]:
            np.minimum(smallest, next(keys), out=smallest)
        yield one, smallest


def _row_keys(blocks: Blocks) -> Iterator[np.ndarray]:
    block: Block
    for block in blocks:
        for row in block.rows:
            yield block.keys_of(row)


def name_cameras(camids: np.ndarray, names: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) object array: what the cameras with the numbers `camids` are called."""
    if "cameras" in names:
        return names["cameras"]
    numbers = np.unique(camids)
    texts = np.array(["" if number == UNKNOWN_CAMERA else str(number) for number in numbers.tolist()], dtype=object)
    return texts[np.searchsorted(numbers, camids)]


def find_own(paths: np.ndarray, gallery: np.ndarray) -> dict[int, np.ndarray]:
    """By query row, the gallery columns of the same file."""
    names: dict[str, list[tuple[int, str]]] = {}
    for row, path in enumerate(paths):
        names.setdefault(os.path.basename(path), []).append((row, os.path.realpath(path)))  # noqa: PTH119
    found: dict[int, list[int]] = {}
    for column, path in enumerate(gallery.tolist()):
        for row, full in names.get(path.rpartition(os.sep)[2], ()):
            if os.path.realpath(path) == full:
                found.setdefault(row, []).append(column)
    return {row: np.array(columns) for row, columns in found.items()}
