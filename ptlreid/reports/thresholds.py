"""Same person or not, by a threshold on the distance: counts of all pairs, streamed, and what they tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError
from ptlreid.retrieval.distance import blocks
from ptlreid.retrieval.protocols import Judge, Protocol
from ptlreid.retrieval.ranking_keys import Metric, squares
from ptlreid.retrieval.types import Features

_BINS = 20_000


@dataclass(frozen=True)
class Point:
    """A threshold on the distance: the shares of pairs of `different` and of the `same` person that are below it."""

    threshold: float
    different: float
    same: float


@dataclass(frozen=True)
class PairCounts:
    """How many pairs have a distance in each of B equal bins: `same`, `different`: (B,) int64; `edges`: (B + 1,).

    `Point`s lie between edges by straight lines, so they are as exact as a bin is narrow.
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def at(self, share: float) -> Point | None:
        """Where `share` of the pairs of different people lie below; None where there are too few pairs to tell."""
        if share * self.different.sum() < 1:
            return None
        below = _below(self.different)
        last = int(below.searchsorted(share, side="right")) - 1
        if last == len(below) - 1:
            return Point(float(self.edges[-1]), 1.0, 1.0)
        threshold = float(np.interp(share, below[last : last + 2], self.edges[last : last + 2]))
        return Point(threshold, share, float(np.interp(threshold, self.edges, _below(self.same))))

    def equal_error(self) -> Point:
        """Where as large a share of different people is taken for the same as of the same for different people."""
        accepted, missed = _below(self.different), 1 - _below(self.same)
        after = int(np.argmax(accepted >= missed))  # never the first edge: nobody is accepted there
        gap = (missed - accepted)[[after - 1, after]]
        part = gap[0] / (gap[0] - gap[1])
        threshold = self.edges[after - 1] + part * (self.edges[after] - self.edges[after - 1])
        shares = (float(np.interp(threshold, self.edges, _below(counts))) for counts in (self.different, self.same))
        return Point(float(threshold), next(shares), next(shares))


def count_pairs(
    query: Features, gallery: Features, protocol: Protocol, *, metric: Metric = "euclidean", bins: int = _BINS
) -> PairCounts:
    """The distances of every query to every gallery image that the protocol leaves it, counted.

    Queries that show nobody in particular (pid 0 or -1) are left out. Raises `DataError` where no pair is of the same
    person, or none of different ones.
    """
    top = 1.0001 * (2.0 if metric == "cosine" else _length(query) + _length(gallery)) or 1.0
    judge = Judge(protocol, gallery.pids, gallery.camids)
    lengths = squares(np.ascontiguousarray(query.matrix))
    same, different = np.zeros(bins + 1, dtype=np.int64), np.zeros(bins + 1, dtype=np.int64)
    for block in blocks(query, gallery, metric=metric):
        for row in range(block.start, block.start + block.shape[0]):
            if query.pids[row] < 1:
                continue
            verdict = judge.verdict(int(query.pids[row]), int(query.camids[row]))
            keys = block.keys_of(row - block.start)
            judge.hide(keys, verdict)
            places = _places(_distances(keys, float(lengths[row]), metric), bins / top, bins)
            matched = np.bincount(places[verdict.matches], minlength=bins + 1)
            same += matched
            different += np.bincount(places, minlength=bins + 1) - matched
    if not same[:-1].any() or not different[:-1].any():
        raise DataError(
            f"Under the protocol {protocol.name!r} the {len(query)} queries and {len(gallery)} gallery images make "
            f"{same[:-1].sum()} pairs of one person and {different[:-1].sum()} of two, expected some of each."
        )
    return PairCounts(np.linspace(0, top, bins + 1), same[:-1], different[:-1])


def _distances(keys: np.ndarray, square: float, metric: Metric) -> np.ndarray:
    """Distances from ranking keys (see `retrieval.keys`) of a query with this squared length; infinity stays."""
    if metric == "euclidean":
        return np.sqrt(np.maximum(2 * keys + square, 0))
    return np.asarray(1 + keys / np.sqrt(square or 1))


def _places(distances: np.ndarray, scale: float, bins: int) -> np.ndarray:
    """The bin of each distance; `bins`, which is one too many, for an image that is hidden."""
    return np.minimum(np.maximum(distances * scale, 0), bins).astype(np.intp)


def _below(counts: np.ndarray) -> np.ndarray:
    """(B + 1,) the share of pairs below each edge."""
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])


def _length(side: Features) -> float:
    return float(np.sqrt(squares(np.ascontiguousarray(side.matrix)).max(initial=0)))
