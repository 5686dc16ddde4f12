"""The ranks of true matches by exact distances, of which rounded keys decide all but the closest calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Where a row of keys lies relative to M intervals.

    `nearer`: (M,) int64, the number of keys below each. `doubtful`: the columns of the keys inside, by the number of an
    interval that holds enough of them.
    """

    nearer: np.ndarray
    doubtful: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class ExactDistances:
    """What decides where the keys of a query are too close to one another.

    `errors_of(keys)`: (M,) the largest errors of these keys. `distances_of(columns)`: (K,) float64 distances of the
    query and these gallery images; equal images have the same.
    """

    errors_of: Callable[[np.ndarray], np.ndarray]
    distances_of: Callable[[np.ndarray], np.ndarray]


def match_ranks(keys: np.ndarray, matches: np.ndarray, exact: ExactDistances | None) -> np.ndarray:
    """(M,) int64, the 1-based ranks of the gallery columns `matches`; equal distances keep gallery order.

    `keys`: (G,), infinite where an image is absent. M >= 1. `exact`: None where the keys are the distances. A rank is
    one more than the number of images before the match, so only the images at least as near as the farthest match are
    sorted, never the gallery.
    """
    match_keys = keys[matches]
    # Two keys may both be wrong. The rest is for the rounding of the sums here.
    margins = 0 if exact is None else np.float32(2.1) * exact.errors_of(match_keys)
    split = split_keys(keys, match_keys - margins, match_keys + margins, fewest=2)
    nearer = split.nearer
    if not split.doubtful:
        return nearer + 1
    columns = np.unique(np.concatenate(list(split.doubtful.values())))  # with the matches that they are close to
    distances = keys[columns] if exact is None else exact.distances_of(columns)
    for number, near in split.doubtful.items():
        distance = distances[columns.searchsorted(matches[number])]
        nearer[number] += count_before(distances[columns.searchsorted(near)], near, distance, matches[number])
    return nearer + 1


def split_keys(keys: np.ndarray, lower: np.ndarray, upper: np.ndarray, *, fewest: int) -> Split:
    """Where the keys, (G,), lie relative to the intervals from `lower` to `upper`, (M,) of the same type each.

    `fewest`: keys in an interval that make them doubtful: one, or two where the match itself is one of them.
    """
    columns = (keys <= upper.max()).nonzero()[0]
    near = keys[columns]
    in_order = np.sort(near)
    nearer = in_order.searchsorted(lower)
    enough = in_order.searchsorted(upper, side="right") - nearer >= fewest
    doubtful = {
        number: columns[((near >= lower[number]) & (near <= upper[number])).nonzero()[0]]
        for number in enough.nonzero()[0].tolist()
    }
    return Split(nearer, doubtful)


def count_before(distances: np.ndarray, columns: np.ndarray, distance: float, column: int) -> int:
    """How many images, (K,) `distances` at the gallery `columns`, precede the one at `column`."""
    return int(np.count_nonzero((distances < distance) | ((distances == distance) & (columns < column))))
