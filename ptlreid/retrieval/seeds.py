"""Scores over several seeds: their mean and standard deviation, and the difference between two methods.

A difference has two sources of chance: the seeds, of which there are few, and the test identities, of which there are
many. In its interval, a hierarchical bootstrap, identities are resampled, each with all its queries, and the same for
all seeds, as they are tested on the same images. The seeds' part of a resample is drawn from Student's t with the
sample variance of the seeds: resampling three or five values themselves shrinks their variance by (n - 1) / n and has
the tails of a few values, so that such an interval misses the true difference two or three times as often as it states
(tests/test_seeds.py has both in a simulation). This takes differences between seeds to be normally distributed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptlreid.errors import OptionError
from ptlreid.retrieval.bootstrap import Difference, central_interval, require_same_queries, resampled_means
from ptlreid.retrieval.types import Scores

_SCORES = ("mAP", "mINP", "cmc")


def mean_and_sd(results: Sequence[Any]) -> tuple[Any, Any]:
    """The mean and the sample standard deviation (n - 1) of numbers, or of lists and dictionaries of numbers.

    These are laid out like each of `results`. For one result, and for None, which takes the place of a number that is
    not defined, the standard deviation is None.
    """
    first = results[0]
    if isinstance(first, Mapping):
        pairs = {key: mean_and_sd([one[key] for one in results]) for key in first}
        return {key: mean for key, (mean, _) in pairs.items()}, {key: sd for key, (_, sd) in pairs.items()}
    if isinstance(first, Sequence):
        columns = [mean_and_sd(column) for column in zip(*results, strict=True)]
        return [mean for mean, _ in columns], [sd for _, sd in columns]
    if any(value is None for value in results):
        return None, None
    return float(np.mean(results)), float(np.std(results, ddof=1)) if len(results) > 1 else None


def summarize_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of one run per seed (`runs`), with `mean` and `sd` of their scores, for JSON.

    Both are None for runs without a test set; in `sd` each score is None for a single run. `averaged` has both of the
    scores of averaged weights, if all runs have these.
    """
    averaged = [run["averaged"] for run in runs if "averaged" in run]
    both = {"averaged": _spread(averaged)} if len(averaged) == len(runs) else {}
    return {"runs": list(runs), **_spread(runs), **both}


def _spread(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scored = all(set(_SCORES) <= set(run) for run in runs)
    mean, sd = mean_and_sd([{name: run[name] for name in _SCORES} for run in runs]) if scored else (None, None)
    return {"mean": mean, "sd": sd}


@dataclass(frozen=True)
class MethodDifference(Difference):
    """A second method's mean score minus a first's, with its interval over seeds and identities.

    `seeds_error`, `identities_error`: the two parts of its standard error.
    """

    seeds_error: float
    identities_error: float


def method_differences(
    first: Sequence[Scores], second: Sequence[Scores], pids: np.ndarray, *, resamples: int, seed: int
) -> list[MethodDifference]:
    """The differences of mAP and of CMC-1, in this order: second minus first, paired by seed and by query.

    `first`, `second`: scores of each seed, in the same order. `pids`: (Q,) the identities of all queries. Raises
    `OptionError` for a single seed and for other numbers of seeds, `DataError` for scores of different queries.
    """
    if len(first) != len(second):
        raise OptionError(
            f"{len(first)} and {len(second)} scores: expected one of each seed for both methods, in the same order. "
            "Leave out the seeds that only one of them has."
        )
    require_same_queries([*first, *second])
    gaps = np.stack([_by_query(two) - _by_query(one) for one, two in zip(first, second, strict=True)])  # (S, V, 2)
    return gap_intervals(gaps, pids[first[0].rows], resamples=resamples, seed=seed)


def gap_intervals(gaps: np.ndarray, pids: np.ndarray, *, resamples: int, seed: int) -> list[MethodDifference]:
    """The difference of each column of `gaps`, (S, V, K): differences of S seeds at V queries in K scores.

    `pids`: (V,) the identity of each query. The two parts of the variance are those of random effects that are crossed:
    the seeds' part is the variance between seeds on these identities; the identities' part leaves out what is different
    for each seed, which the former has in it. Their sum has the expected value of the variance of the mean.
    """
    if len(gaps) < 2:
        raise OptionError(f"An interval over {len(gaps)} seed: expected two or more seeds. Train others.")
    means = resampled_means(gaps.mean(axis=0), pids, resamples=resamples, seed=seed)  # (resamples, K)
    rng, found = np.random.default_rng([seed, 1]), []
    for column, resampled in zip(np.moveaxis(gaps, 2, 0), means.T, strict=True):
        value = float(column.mean())
        seeds, identities, sampled = _variances(column, pids)
        shift = np.sqrt(seeds) * rng.permutation(_student_quantiles(len(gaps) - 1, resamples))
        scale = np.sqrt(identities / sampled) if sampled else 0.0
        interval = central_interval(value + scale * (resampled - value) + shift)
        found.append(MethodDifference(value, interval, float(np.sqrt(seeds)), float(np.sqrt(identities))))
    return found


def _variances(gaps: np.ndarray, pids: np.ndarray) -> tuple[float, float, float]:
    """The parts of the variance of the mean of `gaps`, (S, V): seeds, identities; and that of resampled identities.

    As the mean of resampled identities is over their queries, an identity counts by the sum of its queries' deviations.
    """
    num_seeds, num_queries = gaps.shape
    _, identity = np.unique(pids, return_inverse=True)
    seed_means = gaps.mean(axis=1)  # (S,)
    centred = gaps - seed_means[:, None]
    sums = np.stack([np.bincount(identity, weights=row) for row in centred]) / num_queries  # (S, I)
    sampled = float(np.sum(sums.mean(axis=0) ** 2))
    num_identities = sums.shape[1]
    correction = num_identities / (num_identities - 1)
    differs = correction * float(np.sum(np.var(sums, axis=0, ddof=1))) / num_seeds  # between seeds, in an identity
    seeds = float(np.var(seed_means, ddof=1)) / num_seeds
    return seeds, max(0.0, correction * sampled - differs), sampled


def _student_quantiles(degrees: int, count: int) -> np.ndarray:
    """(count,) quantiles of Student's t at the middles of equal parts: its distribution without sampling error."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(degrees, (np.arange(count) + 0.5) / count))


def _by_query(scores: Scores) -> np.ndarray:
    """(V, 2): average precision and CMC-1 of each query."""
    return np.column_stack([scores.average_precision, scores.cmc_by_query[:, 0]])
