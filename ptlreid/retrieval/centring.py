"""Features made fit for a product in float32, and the distances that such a product cannot give.

|q - g|² = |g|² - 2 q·g + |q|² loses small differences of long vectors. So where the mean of the features is longer than
the features' differences from it, they are centred first: (x - centre) · scale in float64, rounded to float32 once.
Distances stay as they were, up to the scale. The images closest to a query, for which the product is still too rough,
are compared with it by differences in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from ptlreid.retrieval.memory_plan import SQUARED_ROWS

Metric = Literal["euclidean", "cosine"]
Numbers = TypeVar("Numbers", float, np.ndarray)

RELATIVE_BOUND = 1e-4  # distances that differ by less may be ranked either way; twice that for 1 - cosine
_ROUNDING = 2.0**-24  # relative error of float32
_SAMPLED_ROWS = 256  # of each side, for the centre
_LONGEST = 2.0**60  # length of the longest feature after scaling: squares are far from the limits of float32
_USUAL = (2.0**-5, 2.0**61)  # lengths with which features can be multiplied as they are


@dataclass(frozen=True)
class Centring:
    """The change of features before the product, to (x - `centre`) · `scale`.

    For cosine distance x is L2-normalised first, so that |q - g|² = 2 - 2 cos; a zero vector stays zero. `centre`: (D,)
    float64; None where features can be multiplied as they are. `scale`: a power of two.
    """

    metric: Metric
    centre: np.ndarray | None
    scale: float

    def embed(self, matrix: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(N, D) float32, in `out` if given: a changed copy of features, with distances `scale` times as large."""
        changed = np.empty(matrix.shape, dtype=np.float32) if out is None else out
        for start in range(0, len(matrix), SQUARED_ROWS):
            rows = to_double(matrix[start : start + SQUARED_ROWS], self.metric)
            if self.centre is not None:
                rows -= self.centre
            np.multiply(rows, self.scale, out=changed[start : start + SQUARED_ROWS], casting="same_kind")
        return changed


def choose_centring(queries: np.ndarray, images: np.ndarray, metric: Metric, lengths: np.ndarray) -> Centring:
    """The change for two float32 matrices, (Q, D) and (G, D), by a sample of their rows.

    `lengths`: of all rows. The centre is rounded to multiples of a power of two near the spread, so that equal
    distances between different images of few digits stay equal.
    """
    sample = to_double(np.concatenate([side[:: 1 + len(side) // _SAMPLED_ROWS] for side in (queries, images)]), metric)
    mean = sample.mean(axis=0)
    sample -= mean
    spread = float(np.sqrt(np.square(sample, out=sample).mean()))
    longest = 1.0 if metric == "cosine" else float(lengths.max())
    if np.square(mean).mean() <= spread**2 or not spread:
        present = lengths[lengths > 0] if metric == "cosine" else np.array([longest])
        if ((present >= _USUAL[0]) & (present <= _USUAL[1])).all():
            return Centring(metric, None, _power_of_two(_LONGEST / longest))
        mean[:] = 0
    elif spread:
        mean = np.round(mean / _power_of_two(spread)) * _power_of_two(spread)
    return Centring(metric, mean, _power_of_two(_LONGEST / (longest + float(np.linalg.norm(mean)) or 1.0)))


def rough_below(squares: np.ndarray, width: int) -> np.ndarray:
    """The squared distances below which a product is too rough, for queries with these squared lengths, in float32.

    Rounding errors add up like random ones: a product of two float32 vectors is taken to be within
    (sqrt(D) + 8) · 2^-24 · |q| |g|, D being the `width`. (We measured at most 7, 10 and 7 times 2^-24 · |q| |g| at
    D = 64, 512 and 2,048.) With all other roundings, a squared distance is then within
    (4 sqrt(D) + 52) · 2^-24 · |q|² if |g| <= 2 |q|. A longer g is at least |g| / 2 away, where the product is good
    enough. So from this limit on, the relative errors of squared distances are at most `RELATIVE_BOUND`, and
    distances that differ by more are in order. The second term is for products so small that float32 has fewer digits.
    """
    relative = (4 * width**0.5 + 52) * _ROUNDING / RELATIVE_BOUND
    return (relative * squares + width * 2.0**-134).astype(np.float32)


def key_errors(keys: np.ndarray, limit: float, width: int) -> np.ndarray:
    """(N,) the largest errors of squared distances `keys` in float32, by the assumption of `rough_below`.

    `limit`: what `rough_below` gives for the query. A longer image, |g| > 2 |q|, is at least |g| / 2 away, so that the
    error is relative to the squared distance in place of |q|².
    """
    return np.maximum(RELATIVE_BOUND * limit, (4 * width**0.5 + 52) * _ROUNDING * keys)


def exact_distances(vector: np.ndarray, images: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    """(N,) float64: the distances that ranks are by. Euclidean, or 1 - cosine, from `squared_distances`."""
    return to_distances(squared_distances(vector, images, rows, metric), metric)


def to_distances(squares: np.ndarray, metric: Metric) -> np.ndarray:
    """Distances from squared ones, which are 2 - 2 cos for cosine distance."""
    return np.sqrt(squares) if metric == "euclidean" else squares / 2


def to_squares(distances: Numbers, metric: Metric) -> Numbers:
    """The squared distances of `to_distances`, up to their last bits."""
    return distances * distances if metric == "euclidean" else 2 * distances


def squared_distances(vector: np.ndarray, images: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    """(N,) float64: |q - g|² of a (D,) vector and the images at `rows`, by differences; for cosine, 2 - 2 cos.

    Equal for equal images, wherever they are. The cosine of a zero vector and any other is 0.
    """
    query = to_double(vector[None], metric)
    squares = np.empty(len(rows))
    for start in range(0, len(rows), SQUARED_ROWS):
        part = slice(start, start + SQUARED_ROWS)
        squares[part] = _square_differences(query, to_double(images[rows[part]], metric), metric)
    return squares


def pair_distances(
    queries: np.ndarray, images: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], metric: Metric
) -> np.ndarray:
    """(N,) float64: the `exact_distances` of pairs: (N,) rows of the `queries`, and as many of the `images`."""
    rows, columns = pairs
    squares = np.empty(len(rows))
    for start in range(0, len(rows), SQUARED_ROWS):
        part = slice(start, start + SQUARED_ROWS)
        left, right = to_double(queries[rows[part]], metric), to_double(images[columns[part]], metric)
        squares[part] = _square_differences(left, right, metric)
    return to_distances(squares, metric)


def _square_differences(queries: np.ndarray, images: np.ndarray, metric: Metric) -> np.ndarray:
    """(N,) squared distances, as in `squared_distances`, of float64 rows; `images`, (N, D), are overwritten."""
    no_direction = metric == "cosine" and ~(images.any(axis=1) & queries.any(axis=1))
    images -= queries
    return np.where(no_direction, 2, np.square(images, out=images).sum(axis=1))


def to_double(matrix: np.ndarray, metric: Metric) -> np.ndarray:
    """A float64 copy of an (N, D) float32 matrix, for cosine L2-normalised; a zero row stays zero."""
    rows = matrix.astype(np.float64)
    if metric == "cosine":
        lengths = np.sqrt(np.square(rows).sum(axis=1))
        rows /= np.where(lengths > 0, lengths, 1)[:, None]
    return rows


def _power_of_two(value: float) -> float:
    """The largest power of two that is not larger than the positive `value`."""
    return float(np.ldexp(0.5, int(np.frexp(value)[1])))
