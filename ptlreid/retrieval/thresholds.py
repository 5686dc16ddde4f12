"""Verification: same identity or not, by a threshold on the distance.

The distances of all pairs are counted in 20,000 equal bins, then those in the bins of the operating points in as many
narrower ones. So memory does not grow with the number of pairs, and thresholds are exact: they separate distances that
differ in float32, and equal distances are never separated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError
from ptlreid.retrieval.pairs import Pairs

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
    """The number of pairs in each of B bins of the distance.

    `edges`: (B + 1,), ascending; a bin has its lower edge and not its upper one. `same`, `different`: (B,) int64, pairs
    of one identity and of two. A threshold never divides a bin: it is halfway between the last bin with a pair that is
    accepted and the first with one that is not.
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray

    def at_far(self, rate: float) -> OperatingPoint | None:
        """The operating point with the highest TAR whose FAR is at most `rate`.

        None if `rate` amounts to less than one different-identity pair.
        """
        allowed = count_allowed(rate, int(self.different.sum()))
        if not allowed:
            return None
        return self._accept(int(np.cumsum(self.different).searchsorted(allowed, side="right")))

    def equal_error_point(self) -> OperatingPoint:
        """The operating point at which FAR and 1 - TAR are closest, the lower threshold of two that are."""
        far, tar = _cumulative_shares(self.different), _cumulative_shares(self.same)
        upper = self._equal_error_bin() + 1
        gaps = np.abs(far - (1 - tar))[[upper - 1, upper]]
        return self._accept(upper - 1 + int(np.argmin(gaps)))

    def decisive_bins(self, rates: Sequence[float]) -> np.ndarray:
        """The bins, ascending, in which the equal error point and the points of these FARs lie."""
        accepted, total = np.cumsum(self.different), int(self.different.sum())
        at_rates = [int(accepted.searchsorted(count_allowed(rate, total), side="right")) for rate in rates]
        bins = np.unique([self._equal_error_bin(), *at_rates])
        return bins[bins < len(self.same)]

    def _equal_error_bin(self) -> int:
        """The bin in which FAR reaches 1 - TAR."""
        far, tar = _cumulative_shares(self.different), _cumulative_shares(self.same)
        return int(np.argmax(far >= 1 - tar)) - 1  # never at edge 0, where no pair is accepted

    def _accept(self, stop: int) -> OperatingPoint:
        """The operating point that accepts the pairs in the first `stop` bins."""
        filled = np.flatnonzero(self.same + self.different)
        after = int(filled.searchsorted(stop))
        low = self.edges[filled[after - 1] + 1] if after else self.edges[0]
        high = self.edges[filled[after]] if after < len(filled) else self.edges[-1]
        far, tar = (float(kind[:stop].sum() / kind.sum()) for kind in (self.different, self.same))
        return OperatingPoint(float(low + high) / 2, far, tar)


def count_allowed(rate: float, total: int) -> int:
    """How many of `total` may be accepted at a false accept rate of `rate`; 0 if the rate is less than one of them."""
    return int(rate * total * (1 + 1e-12))  # 0.29 * 100 is 28.999999999999996


def count_pairs(pairs: Pairs, rates: Sequence[float], *, bins: int = _BINS) -> PairCounts:
    """The number of pairs by distance, exact at the equal error point and at the FARs in `rates`.

    Raises `DataError` without a same-identity pair or without a different-identity pair.
    """
    scale = bins / pairs.max_distance
    counts = _count(pairs, scale, bins)
    return _divide(counts, _count_within(pairs, scale, bins, counts.decisive_bins(rates)))


def _count(pairs: Pairs, scale: float, bins: int) -> PairCounts:
    """The counts in equal bins: a distance is in bin floor(distance · scale)."""
    same, different = np.zeros(bins + 1, dtype=np.int64), np.zeros(bins + 1, dtype=np.int64)
    for one in pairs:
        at = _find_bins(one.distances * scale, bins)
        matched = np.bincount(at[one.matches], minlength=bins + 1)
        same += matched
        different += np.bincount(at, minlength=bins + 1) - matched
    same, different = same[:-1], different[:-1]
    if not same.any() or not different.any():
        retrieval = pairs.retrieval
        raise DataError(
            f"{len(retrieval.query)} queries and {len(retrieval.gallery)} gallery images under protocol "
            f"{retrieval.protocol.name!r} give {same.sum()} same-identity and {different.sum()} different-identity "
            "pairs: expected at least one of each. Use a test set with more images."
        )
    return PairCounts(np.arange(bins + 1) / scale, same, different)


@dataclass(frozen=True)
class _BinContents:
    """What is in some bins, ascending `chosen` (S,), by B equal parts of each: `same`, `different` (S, B)."""

    chosen: np.ndarray
    same: np.ndarray
    different: np.ndarray


def _count_within(pairs: Pairs, scale: float, bins: int, chosen: np.ndarray) -> _BinContents:
    """The contents of some of the bins that `_count` counted, by `bins` parts."""
    found = _BinContents(chosen, *np.zeros((2, len(chosen), bins), dtype=np.int64))
    for one in pairs:
        positions = one.distances * scale
        at = _find_bins(positions, bins)
        is_match = np.zeros(len(at), dtype=bool)
        is_match[one.matches] = True
        for index, start in enumerate(chosen.tolist()):
            inside = np.flatnonzero(at == start)
            if len(inside):
                parts, matched = _find_bins((positions[inside] - start) * bins, bins - 1), is_match[inside]
                np.add.at(found.same[index], parts[matched], 1)
                np.add.at(found.different[index], parts[~matched], 1)
    return found


def _divide(counts: PairCounts, contents: _BinContents) -> PairCounts:
    """The counts with some of their bins divided into equal parts."""
    parts = contents.same.shape[1]
    edges, same, different = counts.edges, counts.same, counts.different
    for index in range(len(contents.chosen))[::-1]:  # from the last on, so that the places of others stay
        at = contents.chosen[index]
        between = np.linspace(edges[at], edges[at + 1], parts + 1)[1:-1]
        edges = np.insert(edges, at + 1, between)
        same, different = (
            np.concatenate([kind[:at], inner[index], kind[at + 1 :]])
            for kind, inner in ((same, contents.same), (different, contents.different))
        )
    return PairCounts(edges, same, different)


def _find_bins(positions: np.ndarray, last: int) -> np.ndarray:
    """The bin of each position, at most `last`, which in `_count` is one past the others, for a hidden image."""
    return np.minimum(np.maximum(positions, 0), last).astype(np.intp)


def _cumulative_shares(counts: np.ndarray) -> np.ndarray:
    """(B + 1,) the share of pairs below each edge."""
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
