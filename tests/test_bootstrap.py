"""Bootstrap intervals: their coverage, and differences between two runs."""

from __future__ import annotations

import numpy as np
import pytest

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval.bootstrap import bootstrap_intervals, score_differences, score_intervals
from ptlreid.retrieval.types import Scores


def one_column(values: list[float], pids: list[int], **options: int):
    return bootstrap_intervals(np.array(values)[:, None], np.array(pids), **{"resamples": 2000, "seed": 0} | options)[0]


def scores(precision: np.ndarray, cmc1: np.ndarray | None = None) -> Scores:
    """V queries with one match each; their CMC is that of `cmc1` at rank 1, and 1 from rank 2 on."""
    num = len(precision)
    hit = precision if cmc1 is None else cmc1
    curve = np.column_stack([hit, np.ones((num, 19))])
    ones = np.ones(num, dtype=np.int64)
    return Scores("market", num, 9, 0, np.arange(num), precision, precision / 2, curve, ones, ones, np.arange(num + 1))


def test_95_of_100_intervals_cover_the_known_mean():
    """Synthetic identities: each has its own level around 0.6, and two to six queries around that level."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        sizes = rng.integers(2, 7, 120)
        level = rng.normal(0.6, 0.15, 120)
        pids = np.repeat(np.arange(120), sizes)
        values = rng.normal(level[pids], 0.1)
        covered += 0.6 in one_column(values.tolist(), pids.tolist(), resamples=400)
    assert 0.92 <= covered / 400 <= 0.98  # 95%, give or take the sampling error of 400 cases of 120 identities


def test_resampling_queries_instead_of_identities_covers_too_little():
    """Each query counts as an identity of its own: this is why identities are resampled."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        level = rng.normal(0.6, 0.15, 60)
        values = rng.normal(np.repeat(level, 6), 0.02)
        covered += 0.6 in one_column(values.tolist(), list(range(360)), resamples=400)
    assert covered / 200 < 0.8


def test_two_identities_worked_by_hand():
    """Of the resamples, a quarter has the first twice (0), a quarter the second twice (1), half both (0.75)."""
    found = bootstrap_intervals(np.array([[0.0], [1.0], [1.0], [1.0]]), np.array([7, 8, 8, 8]), resamples=4000, seed=0)[
        0
    ]
    assert (found.low, found.high) == (0, 1)
    assert 0.75 in found


def test_an_identity_is_resampled_with_all_its_queries_and_the_mean_is_over_queries():
    """Three identities with 1, 2 and 3 queries of level 0, 0 and 1, against every resample, enumerated."""
    values, pids = np.array([0, 0, 0, 1, 1, 1.0]), np.array([1, 2, 2, 3, 3, 3])
    sizes, sums = np.array([1, 2, 3]), np.array([0, 0, 3])
    resamples = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
    means = sums[resamples].sum(axis=1) / sizes[resamples].sum(axis=1)
    found = bootstrap_intervals(values[:, None], pids, resamples=20_000, seed=0)[0]
    low, high = np.quantile(np.repeat(means, 1000), (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_interval_depends_on_the_seed_only():
    rng = np.random.default_rng(1)
    values, pids = rng.random(50).tolist(), rng.integers(0, 20, 50).tolist()
    assert one_column(values, pids, seed=3) == one_column(values, pids, seed=3)
    assert one_column(values, pids, seed=3) != one_column(values, pids, seed=4)


def test_the_number_of_resamples_at_once_changes_nothing(monkeypatch):
    values, pids = np.random.default_rng(1).random((50, 2)), np.arange(50) % 17
    expected = bootstrap_intervals(values, pids, resamples=100, seed=0)
    monkeypatch.setattr("ptlreid.retrieval.bootstrap._MAX_TABLE_ENTRIES", 17 * 7)
    assert bootstrap_intervals(values, pids, resamples=100, seed=0) == expected


def test_an_interval_needs_resamples_and_two_identities():
    with pytest.raises(OptionError, match="0 resamples"):
        one_column([1, 2], [1, 2], resamples=0)
    with pytest.raises(DataError, match="1 identity"):
        one_column([1, 2], [1, 1])


def test_each_score_has_its_interval_around_it():
    rng = np.random.default_rng(2)
    pids = np.repeat(np.arange(1, 41), 3)
    one = scores(rng.random(120), (rng.random(120) < 0.6).astype(float))
    found = score_intervals(one, pids, resamples=500, seed=0)
    summary = one.summary()
    assert list(found) == ["mAP", "mINP", "cmc"]
    assert found["mAP"][0] < summary["mAP"] < found["mAP"][1]
    assert found["mINP"][0] < summary["mINP"] < found["mINP"][1]
    assert found["cmc"]["1"][0] < summary["cmc"]["1"] < found["cmc"]["1"][1]
    assert found["cmc"]["20"] == [1, 1]


def test_a_small_but_steady_gain_is_outside_the_noise_and_a_scattered_one_inside():
    """Paired: each query gains 0.01, though identities differ by far more; then gains of the same mean that scatter."""
    rng = np.random.default_rng(3)
    pids = np.repeat(np.arange(1, 101), 3)
    first = rng.uniform(0.1, 0.8, 300)
    steady = score_differences(scores(first), scores(first + 0.01), pids, resamples=500, seed=0)
    assert steady[0].value == pytest.approx(0.01)
    assert steady[0].significant
    gains = rng.normal(0, 0.3, 300)
    scattered = score_differences(
        scores(first), scores(first + gains - gains.mean() + 0.01), pids, resamples=500, seed=0
    )
    assert scattered[0].value == pytest.approx(0.01)
    assert not scattered[0].significant


def test_a_loss_is_a_negative_difference_of_each_score():
    pids = np.arange(1, 31)
    first, second = scores(np.full(30, 0.9), np.ones(30)), scores(np.full(30, 0.7), np.zeros(30))
    mean_ap, cmc1 = score_differences(first, second, pids, resamples=50, seed=0)
    assert (mean_ap.value, cmc1.value) == pytest.approx((-0.2, -1))
    assert cmc1.interval.low == cmc1.interval.high == -1
    assert cmc1.significant


def test_scores_of_other_queries_are_not_compared():
    with pytest.raises(DataError, match="different queries"):
        score_differences(scores(np.ones(3)), scores(np.ones(4)), np.arange(1, 5), resamples=10, seed=0)
