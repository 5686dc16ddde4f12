"""How far scores would move with other people: the bootstrap over identities.

Queries of one person are alike, so people are drawn, with replacement, and each brings all its queries; to draw
queries one by one would make intervals too narrow. The gallery stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval.types import PRINTED_RANKS, Features, Scores

LEVEL = 0.95
_DRAWN_AT_ONCE = 1 << 22  # numbers in a table of draws: 32 MB


@dataclass(frozen=True)
class Interval:
    """Where a mean lies in `LEVEL` of the draws."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bootstrap_intervals(values: np.ndarray, people: np.ndarray, *, repeats: int, seed: int = 0) -> list[Interval]:
    """For each column of `values`, (V, K) by query, the percentile interval of its mean.

    `people`: (V,) who each query shows. `repeats`: how often as many people as there are, are drawn. The mean of a draw
    is that of its queries, so that a person with more of them counts more, as in the score itself. Raises `DataError`
    for fewer than two people, who could not be drawn otherwise.
    """
    if repeats < 1:
        raise OptionError(f"A bootstrap of {repeats} draws was asked for, expected 1 or more. 2000 is usual.")
    present, person = np.unique(people, return_inverse=True)
    if len(present) < 2:
        raise DataError(f"Queries of {len(present)} person were found, a bootstrap needs two people or more.")
    sizes = np.bincount(person)  # (I,)
    sums = np.stack([np.bincount(person, weights=column) for column in values.T], axis=1)  # (I, K)
    rng, even = np.random.default_rng(seed), np.full(len(sizes), 1 / len(sizes))
    means = np.empty((repeats, values.shape[1]))
    at_once = max(1, _DRAWN_AT_ONCE // len(sizes))
    for start in range(0, repeats, at_once):
        part = means[start : start + at_once]
        times = rng.multinomial(len(sizes), even, size=len(part))  # how often each person is drawn
        part[...] = (times @ sums) / (times @ sizes)[:, None]
    tail = (1 - LEVEL) / 2
    return [Interval(*(float(end) for end in np.quantile(column, (tail, 1 - tail)))) for column in means.T]


def score_intervals(scores: Scores, query: Features, *, repeats: int, seed: int = 0) -> dict[str, object]:
    """`[low, high]` for mAP, mINP and each printed rank of the CMC, laid out as in `Scores.summary`."""
    values = np.column_stack([scores.average_precision, scores.inp, _printed(scores)])
    found = bootstrap_intervals(values, query.pids[scores.rows], repeats=repeats, seed=seed)
    ends = [[one.low, one.high] for one in found]
    cmc = {str(rank): pair for rank, pair in zip(PRINTED_RANKS, ends[2:], strict=True)}
    return {"mAP": ends[0], "mINP": ends[1], "cmc": cmc}


@dataclass(frozen=True)
class Difference:
    """How much higher a second score is than a first, from -1 to 1, and where that lies in `LEVEL` of the draws."""

    value: float
    interval: Interval

    @property
    def outside_noise(self) -> bool:
        """Whether the interval leaves 0 out."""
        return 0 not in self.interval


def score_differences(
    first: Scores, second: Scores, query: Features, *, repeats: int, seed: int = 0
) -> list[Difference]:
    """Of mAP and of CMC-1: the second's less the first's, paired by query. Both are scores of the same `query`."""
    if not np.array_equal(first.rows, second.rows):
        raise DataError("The two scores are of other queries. Evaluate both on the same dataset by the same protocol.")
    left, right = (np.column_stack([one.average_precision, one.cmc_by_query[:, 0]]) for one in (first, second))
    gaps = right - left
    found = bootstrap_intervals(gaps, query.pids[first.rows], repeats=repeats, seed=seed)
    return [Difference(float(gap), one) for gap, one in zip(gaps.mean(axis=0), found, strict=True)]


def _printed(scores: Scores) -> np.ndarray:
    """(V, 4): each query's CMC at the printed ranks; beyond the curve, its last point."""
    columns = [min(rank, scores.cmc_by_query.shape[1]) - 1 for rank in PRINTED_RANKS]
    return np.asarray(scores.cmc_by_query[:, columns])
