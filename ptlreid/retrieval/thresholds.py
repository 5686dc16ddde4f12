"""Verification: same identity or not, by a threshold on the distance.

The distances of all pairs are counted in narrow bins, in one pass and within the memory budget; operating points (FAR,
TAR, EER) follow from the counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError
from ptlreid.retrieval.centring import Metric
from ptlreid.retrieval.distance import Block, distance_blocks
from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.protocols import Judge
from ptlreid.retrieval.ranking_keys import squared_lengths
from ptlreid.retrieval.types import Features, Retrieval

_BINS = 20_000


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the distance: a pair below it is accepted as the same identity.

    `far`: the false accept rate, the share of different-identity pairs that are accepted. `tar`: the true accept rate,
    the share of same-identity pairs that are accepted. Both from 0 to 1.
    """

    threshold: float
    far: float
    tar: float


@dataclass(frozen=True)
class PairCounts:
    """The number of pairs in each of B equal bins of the distance.

    `edges`: (B + 1,). `same`, `different`: (B,) int64, pairs of one identity and of two. Operating points are
    interpolated linearly within a bin.
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def at_far(self, rate: float) -> OperatingPoint | None:
        """The operating point with this FAR; None if `rate` amounts to less than one different-identity pair."""
        if rate * self.different.sum() < 1:
            return None
        far = _cumulative_shares(self.different)
        last = int(far.searchsorted(rate, side="right")) - 1
        if last == len(far) - 1:
            return OperatingPoint(float(self.edges[-1]), 1.0, 1.0)
        threshold = float(np.interp(rate, far[last : last + 2], self.edges[last : last + 2]))
        return OperatingPoint(threshold, rate, float(np.interp(threshold, self.edges, _cumulative_shares(self.same))))

    def equal_error_point(self) -> OperatingPoint:
        """The operating point with FAR = 1 - TAR, the equal error rate (EER)."""
        far, tar = _cumulative_shares(self.different), _cumulative_shares(self.same)
        upper = int(np.argmax(far >= 1 - tar))  # never edge 0, where no pair is accepted
        gap = (1 - tar - far)[[upper - 1, upper]]
        part = gap[0] / (gap[0] - gap[1])
        threshold = float(self.edges[upper - 1] + part * (self.edges[upper] - self.edges[upper - 1]))
        return OperatingPoint(threshold, *(float(np.interp(threshold, self.edges, shares)) for shares in (far, tar)))


def count_pairs(retrieval: Retrieval, *, metric: Metric, memory_budget: int | None, bins: int = _BINS) -> PairCounts:
    """The number of pairs by distance, of each query with each gallery image that the protocol leaves.

    Queries that are junk or distractors are skipped. Raises `DataError` without a same-identity pair or
    without a different-identity pair.
    """
    query, gallery, protocol = retrieval.query, retrieval.gallery, retrieval.protocol
    max_distance = 1.0001 * (2.0 if metric == "cosine" else _max_norm(query) + _max_norm(gallery)) or 1.0
    judge = Judge(protocol, gallery.pids, gallery.camids)
    own = find_own_images(retrieval)
    same, different = np.zeros(bins + 1, dtype=np.int64), np.zeros(bins + 1, dtype=np.int64)
    for block in distance_blocks(retrieval, metric=metric, memory_budget=memory_budget):
        for row in block.rows:
            if query.pids[row] < 0:
                continue
            verdict = judge.verdict(int(query.pids[row]), int(query.camids[row]), own.get(row))
            keys = block.keys_of(row)
            judge.hide(keys, verdict)
            indices = _find_bins(_convert_keys(keys, block, metric), bins / max_distance, bins)
            matched = np.bincount(indices[verdict.matches], minlength=bins + 1)
            same += matched
            different += np.bincount(indices, minlength=bins + 1) - matched
    if not same[:-1].any() or not different[:-1].any():
        raise DataError(
            f"{len(query)} queries and {len(gallery)} gallery images under protocol {protocol.name!r} give "
            f"{same[:-1].sum()} same-identity and {different[:-1].sum()} different-identity pairs: "
            "expected at least one of each. Use a test set with more images."
        )
    return PairCounts(np.linspace(0, max_distance, bins + 1), same[:-1], different[:-1])


def _convert_keys(keys: np.ndarray, block: Block, metric: Metric) -> np.ndarray:
    """Distances from the ranking keys of a block; infinity stays infinity."""
    squares = keys.astype(np.float64) * block.unit
    return np.sqrt(squares) if metric == "euclidean" else squares / 2


def _find_bins(distances: np.ndarray, scale: float, bins: int) -> np.ndarray:
    """The bin of each distance; `bins`, one past the last, for a hidden image."""
    return np.minimum(np.maximum(distances * scale, 0), bins).astype(np.intp)


def _cumulative_shares(counts: np.ndarray) -> np.ndarray:
    """(B + 1,) the share of pairs below each edge."""
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])


def _max_norm(side: Features) -> float:
    return float(np.sqrt(squared_lengths(np.ascontiguousarray(side.matrix)).max(initial=0)))
