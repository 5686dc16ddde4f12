"""Confidence intervals of scores by the bootstrap over identities.

Queries of one identity are alike, so identities are resampled, with replacement, each with all its queries; resampling
single queries would make intervals too narrow. The gallery stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval.types import PRINTED_RANKS, Scores

LEVEL = 0.95
_MAX_TABLE_ENTRIES = 1 << 22  # entries of a table of resamples: 32 MB


@dataclass(frozen=True)
class Interval:
    """The central `LEVEL` of the resampled means."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bootstrap_intervals(values: np.ndarray, pids: np.ndarray, *, resamples: int, seed: int) -> list[Interval]:
    """The percentile interval of the mean of each column of `values`, (V, K), one row per query.

    `pids`: (V,) the identity of each query. The mean of a resample is over its queries, so that an identity with more
    of them counts more, as in the score itself. Raises `DataError` for fewer than two identities.
    """
    return [central_interval(column) for column in resampled_means(values, pids, resamples=resamples, seed=seed).T]


def resampled_means(values: np.ndarray, pids: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """(resamples, K) the means that `bootstrap_intervals` takes its percentiles of."""
    _, identity = np.unique(pids, return_inverse=True)
    sizes = np.bincount(identity)  # (I,)
    sums = np.stack([np.bincount(identity, weights=column) for column in values.T], axis=1)  # (I, K)
    return resampled_ratios(sums, sizes, resamples=resamples, seed=seed)


def resampled_ratios(
    sums: np.ndarray,
    sizes: np.ndarray,
    *,
    resamples: int,
    seed: int,
    fixed_sums: np.ndarray | float = 0,
    fixed_sizes: np.ndarray | float = 0,
) -> np.ndarray:
    """(resamples, K): the `sums` of the resampled identities over their `sizes`, (I, K) and (I,).

    The same seed and number of identities give the same resamples. `fixed_sums`, (K,), and `fixed_sizes` are added to
    those of every resample; with none and without a size in a resample, its ratio is 0.
    """
    if resamples < 1:
        raise OptionError(f"A bootstrap of {resamples} resamples: expected 1 or more; 2000 is common.")
    if len(sizes) < 2:
        raise DataError(f"The queries have {len(sizes)} identity: a bootstrap needs at least two.")
    rng, even = np.random.default_rng(seed), np.full(len(sizes), 1 / len(sizes))
    ratios = np.empty((resamples, sums.shape[1]))
    chunk = max(1, _MAX_TABLE_ENTRIES // len(sizes))
    for start in range(0, resamples, chunk):
        part = ratios[start : start + chunk]
        times = rng.multinomial(len(sizes), even, size=len(part))  # how often each identity is sampled
        totals = (times @ sizes + fixed_sizes)[:, None]
        part[...] = (times @ sums + fixed_sums) / np.where(totals > 0, totals, 1)
    return ratios


def central_interval(values: np.ndarray) -> Interval:
    """The central `LEVEL` of the values."""
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(low), float(high))


def score_intervals(scores: Scores, pids: np.ndarray, *, resamples: int, seed: int) -> dict[str, object]:
    """`[low, high]` for mAP, mINP and each printed rank of the CMC, laid out as in `Scores.summary`.

    `pids`: (Q,) the identities of all queries.
    """
    values = np.column_stack([scores.average_precision, scores.inp, _printed(scores)])
    intervals = bootstrap_intervals(values, pids[scores.rows], resamples=resamples, seed=seed)
    ends = [[one.low, one.high] for one in intervals]
    cmc = {str(rank): pair for rank, pair in zip(PRINTED_RANKS, ends[2:], strict=True)}
    return {"mAP": ends[0], "mINP": ends[1], "cmc": cmc}


@dataclass(frozen=True)
class Difference:
    """A second score minus a first, from -1 to 1, with its `LEVEL` confidence interval."""

    value: float
    interval: Interval

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return 0 not in self.interval


def score_differences(
    first: Scores, second: Scores, pids: np.ndarray, *, resamples: int, seed: int
) -> list[Difference]:
    """The differences of mAP and of CMC-1, in this order: second minus first, paired by query.

    `pids`: (Q,) the identities of all queries, which must be the same for both scores.
    """
    require_same_queries([first, second])
    left, right = (np.column_stack([one.average_precision, one.cmc_by_query[:, 0]]) for one in (first, second))
    gaps = right - left
    intervals = bootstrap_intervals(gaps, pids[first.rows], resamples=resamples, seed=seed)
    return [Difference(float(gap), one) for gap, one in zip(gaps.mean(axis=0), intervals, strict=True)]


def require_same_queries(scores: Sequence[Scores]) -> None:
    """Raise `DataError` unless all scores are of the same queries."""
    if not all(np.array_equal(one.rows, scores[0].rows) for one in scores):
        raise DataError(
            "The scores are of different queries. Evaluate all on the same dataset under the same protocol."
        )


def _printed(scores: Scores) -> np.ndarray:
    """(V, 4): each query's CMC at the printed ranks; beyond the curve, its last point."""
    columns = [min(rank, scores.cmc_by_query.shape[1]) - 1 for rank in PRINTED_RANKS]
    return np.asarray(scores.cmc_by_query[:, columns])
