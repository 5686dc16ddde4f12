"""Scores over seeds: mean and deviation, and the difference of two methods with both parts of its variance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval.bootstrap import bootstrap_intervals
from ptlreid.retrieval.seeds import gap_intervals, mean_and_sd, method_differences, summarize_seeds
from ptlreid.retrieval.types import Scores


def scores(average_precision: np.ndarray, hits: np.ndarray) -> Scores:
    """Scores with these AP and first-rank hits by query; the rest of no importance."""
    count = len(average_precision)
    return Scores(
        protocol="market",
        num_queries=count,
        num_gallery=9,
        num_junk=0,
        rows=np.arange(count),
        average_precision=average_precision,
        inp=average_precision,
        cmc_by_query=hits[:, None].astype(float),
        match_ranks=np.ones(count, int),
        match_columns=np.zeros(count, int),
        match_starts=np.arange(count + 1),
    )


def difference(gaps, pids, *, resamples=400, seed=0):
    """The difference of one score: `gaps` by seed and query."""
    return gap_intervals(np.asarray(gaps, float)[:, :, None], np.asarray(pids), resamples=resamples, seed=seed)[0]


def test_mean_and_sample_deviation_worked_by_hand():
    # Deviations from 3 are -2, -1 and 3: their squares sum to 14, over n - 1 = 2.
    assert mean_and_sd([1, 2, 6]) == (3, pytest.approx(math.sqrt(7)))


def test_lists_and_dictionaries_keep_their_layout():
    mean, sd = mean_and_sd([{"a": [1, 5], "b": None}, {"a": [3, 5], "b": None}])
    assert mean == {"a": [2, 5], "b": None}
    assert sd == {"a": [pytest.approx(math.sqrt(2)), 0], "b": None}


def test_a_single_seed_has_a_mean_but_no_deviation():
    assert mean_and_sd([{"mAP": 0.25}]) == ({"mAP": 0.25}, {"mAP": None})


def test_runs_of_seeds_keep_their_metrics_and_get_the_mean_of_their_scores():
    runs = [{"run": f"r{n}", "epochs": 1, "mAP": n / 10, "mINP": 0.0, "cmc": {"1": n / 5}} for n in (1, 3)]
    found = summarize_seeds(runs)
    assert found["runs"] == runs
    assert found["mean"] == {"mAP": pytest.approx(0.2), "mINP": 0, "cmc": {"1": pytest.approx(0.4)}}
    assert found["sd"]["cmc"]["1"] == pytest.approx(0.2 * math.sqrt(2))


def test_runs_without_a_test_set_have_no_mean():
    assert summarize_seeds([{"run": "r", "epochs": 1}]) == {
        "runs": [{"run": "r", "epochs": 1}],
        "mean": None,
        "sd": None,
    }


def test_both_parts_of_the_variance_worked_by_hand():
    """Two seeds, two identities of one query. Means of seeds 0.1 and 0.4: their variance over two is 0.045 / 2.

    Means of identities 0.1 and 0.4; all residuals of the table are 0.05, mean square 0.01. The identities' mean square
    is 2 · 2 · 0.15² = 0.09, so that their variance is (0.09 - 0.01) / 2, and that of their mean half of it, 0.02.
    """
    found = difference([[0, 0.2], [0.2, 0.6]], [1, 2])
    assert found.value == pytest.approx(0.25)
    assert found.seeds_error == pytest.approx(math.sqrt(0.0225))
    assert found.identities_error == pytest.approx(math.sqrt(0.02))


def test_the_parts_are_those_of_the_two_way_analysis_of_variance():
    rng = np.random.default_rng(0)
    table = rng.normal(size=4)[:, None] + 3 * rng.normal(size=30) + rng.normal(size=(4, 30))
    residuals = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    between, error = 4 * np.var(table.mean(0), ddof=1), (residuals**2).sum() / (3 * 29)
    found = difference(np.repeat(table, 2, axis=1), np.repeat(np.arange(30), 2))  # two equal queries each
    assert found.identities_error**2 == pytest.approx((between - error) / 4 / 30)
    assert found.seeds_error**2 == pytest.approx(np.var(table.mean(1), ddof=1) / 4)


def test_without_differences_between_identities_the_interval_is_students():
    gaps = np.repeat([[0.01], [0.03], [0.02], [0.06]], 12, axis=1)
    found = difference(gaps, np.arange(12) % 5, resamples=20_000)
    low, high = stats.t.interval(0.95, 3, 0.03, np.std(gaps[:, 0], ddof=1) / 2)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), rel=0.01)
    assert found.identities_error == pytest.approx(0, abs=1e-12)


def test_without_differences_between_seeds_the_interval_is_that_of_identities_alone():
    rng = np.random.default_rng(1)
    pids, gaps = np.arange(300) % 100, rng.normal(0.02, 0.1, 300)
    found = difference([gaps] * 3, pids, resamples=2000)
    (alone,) = bootstrap_intervals(gaps[:, None], pids, resamples=2000, seed=0)
    wider = math.sqrt(100 / 99)
    assert found.interval.low == pytest.approx(found.value + wider * (alone.low - found.value))
    assert found.interval.high == pytest.approx(found.value + wider * (alone.high - found.value))
    assert found.seeds_error == 0


def simulate(rng, seeds, sd_seeds, sd_identities, sd_both, *, identities=80):
    """Gaps whose mean over all seeds and identities is 0.01: random effects of both and of each pair, and queries."""
    pids = np.repeat(np.arange(identities), rng.integers(1, 6, identities))
    effects = rng.normal(0, sd_seeds, (seeds, 1)) + rng.normal(0, sd_identities, identities)[pids]
    return 0.01 + effects + rng.normal(0, sd_both, (seeds, identities))[:, pids] + rng.normal(
        0, 0.05, (seeds, len(pids))
    ), pids


@pytest.mark.parametrize(
    ("seeds", "effects"),
    [
        (5, (0.02, 0.1, 0.1)),
        (5, (0.02, 0.0, 0.1)),
        (5, (0.0, 0.15, 0.1)),
        (10, (0.02, 0.1, 0.1)),
        (3, (0.02, 0.1, 0.1)),
    ],
)
def test_the_interval_covers_the_known_difference_in_95_of_100_cases(seeds, effects):
    """0.02 of a seed and 0.1 of an identity: both parts matter. With three seeds as well."""
    rng, covered, parts = np.random.default_rng(0), 0, []
    for _ in range(400):
        found = difference(*simulate(rng, seeds, *effects), resamples=300, seed=int(rng.integers(2**31)))
        covered += 0.01 in found.interval
        parts.append((found.seeds_error**2, found.identities_error**2))
    assert 0.92 <= covered / 400 <= 0.985
    # Of the mean over queries: an identity weighs by its 1 to 5 queries, whose sum of squares is 11/9 of I times 3².
    both, queries = effects[2] ** 2 * 11 / 9 / 80, 0.05**2 / 240
    expected = (effects[0] ** 2 + both + queries) / seeds, effects[1] ** 2 * 11 / 9 / 80
    assert np.mean(parts, axis=0) == pytest.approx(expected, rel=0.15, abs=0.1 * both)


def test_resampling_the_seeds_themselves_covers_too_little():
    """The two-level bootstrap of the same five seeds: this is why the seeds' part is drawn from Student's t."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        gaps, pids = simulate(rng, 5, 0.02, 0.02, 0.02)
        by_identity = np.stack([np.bincount(pids, weights=row) for row in gaps])  # (S, I)
        chosen = rng.integers(0, 5, (300, 5))
        times = rng.multinomial(80, np.full(80, 1 / 80), size=300)
        means = (by_identity[chosen].mean(axis=1) * times).sum(axis=1) / (times @ np.bincount(pids))
        low, high = np.quantile(means, (0.025, 0.975))
        covered += low <= 0.01 <= high
    assert covered / 300 < 0.88


@settings(derandomize=True, max_examples=30)
@given(st.integers(2, 6), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_the_order_of_seeds_and_the_direction_change_nothing_else(seeds, identities, seed):
    rng = np.random.default_rng(seed)
    pids = np.concatenate([np.arange(identities), rng.integers(0, identities, 9)])
    gaps = rng.normal(size=(seeds, len(pids)))
    found, other = difference(gaps, pids), difference(-gaps[::-1], pids)
    assert other.value == pytest.approx(-found.value)
    assert (other.seeds_error, other.identities_error) == pytest.approx((found.seeds_error, found.identities_error))
    assert found.interval.low <= found.interval.high


def test_differences_of_scores_are_paired_by_seed_and_query():
    rng = np.random.default_rng(2)
    first = [rng.uniform(0.2, 0.8, 40) for _ in range(3)]
    pids = np.arange(40) // 2
    one = [scores(ap, ap > 0.5) for ap in first]
    two = [scores(ap + 0.01, np.ones(40)) for ap in first]
    mean_ap, cmc1 = method_differences(one, two, pids, resamples=200, seed=0)
    assert mean_ap.value == pytest.approx(0.01)
    assert mean_ap.significant  # each seed and query gains the same
    assert (mean_ap.seeds_error, mean_ap.identities_error) == pytest.approx((0, 0), abs=1e-9)
    assert cmc1.value == pytest.approx(np.mean([ap <= 0.5 for ap in first]))


def test_one_seed_and_scores_of_other_queries_are_refused():
    one, other = (scores(np.ones(count), np.ones(count)) for count in (3, 4))
    with pytest.raises(OptionError, match=r"An interval over 1 seed: expected two or more seeds\. Train others"):
        method_differences([one], [one], np.arange(3), resamples=10, seed=0)
    with pytest.raises(DataError, match="different queries"):
        method_differences([one, one], [one, other], np.arange(4), resamples=10, seed=0)
