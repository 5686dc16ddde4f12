"""Verification: counts of pairs by distance, and the operating points read off them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from ptlreid.errors import DataError
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.thresholds import PairCounts, count_pairs
from ptlreid.retrieval.types import Features, Retrieval

MARKET = PROTOCOLS["market"]


def count(query, gallery, metric="euclidean", **bins):
    return count_pairs(Retrieval(query, gallery, MARKET), metric=metric, memory_budget=None, **bins)


def features(matrix, pids, camids):
    matrix = np.asarray(matrix, dtype=np.float32)
    paths = np.array([f"{row}.jpg" for row in range(len(matrix))], dtype=object)
    return Features(matrix, np.asarray(pids, dtype=np.int64), np.asarray(camids, dtype=np.int64), paths)


def random_sides(seed=0, identities=8, width=6):
    """Queries and a gallery with junk, distractors, distractor queries, and identities that overlap."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(identities + 3, width))
    sides = []
    for size, lowest in ((60, -2), (150, -2)):
        pids = rng.integers(lowest, identities + 1, size=size)
        sides.append(
            features(centres[pids] + 0.8 * rng.normal(size=(size, width)), pids, rng.integers(0, 3, size=size))
        )
    return sides


def pairs_by_loop(query, gallery, metric):
    """Every pair that the Market-1501 protocol allows, one by one: (distances, same identity or not)."""
    distances, same = [], []
    for q, pid, camid in zip(query.matrix.astype(float), query.pids, query.camids, strict=True):
        for g, other, other_camid in zip(gallery.matrix.astype(float), gallery.pids, gallery.camids, strict=True):
            if pid < 0 or other == -1 or (pid == other and camid == other_camid):
                continue
            cosine = q @ g / np.linalg.norm(q) / np.linalg.norm(g)
            distances.append(np.linalg.norm(q - g) if metric == "euclidean" else 1 - cosine)
            same.append(pid == other)
    return np.array(distances), np.array(same)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_counts_equal_a_slow_loop(metric):
    query, gallery = random_sides()
    counts = count(query, gallery, metric, bins=40)
    distances, same = pairs_by_loop(query, gallery, metric)
    # A distance on an edge may fall on either side of it: float32 here, float64 there.
    for found, kind in ((counts.same, same), (counts.different, ~same)):
        expected = np.histogram(distances[kind], counts.edges)[0]
        assert found.sum() == expected.sum()
        assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 1


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_operating_points_equal_scikit_learn(metric):
    query, gallery = random_sides(seed=1)
    counts = count(query, gallery, metric)
    distances, same = pairs_by_loop(query, gallery, metric)
    false, true, thresholds = roc_curve(same, -distances, drop_intermediate=False)
    equal = counts.equal_error_point()
    nearest = np.argmin(np.abs(false - (1 - true)))
    step = 1 / min(same.sum(), (~same).sum())  # the curve is made of steps as high as one pair
    assert equal.far == pytest.approx(false[nearest], abs=step)
    assert equal.far == pytest.approx(1 - equal.tar, abs=step)
    assert equal.threshold == pytest.approx(-thresholds[nearest], rel=0.02)
    for rate in (0.01, 0.1):
        at = np.flatnonzero(false <= rate)[-1]
        found = counts.at_far(rate)
        assert found.threshold == pytest.approx(-thresholds[at], rel=0.02)
        assert found.tar == pytest.approx(true[at], abs=2 * step)


def test_operating_points_by_hand():
    # Same identity: 75% in bin 1, 25% in bin 3. Different identities: 10% in bin 2, 40% in bin 3, 50% in bin 4.
    counts = PairCounts(np.array([0.0, 1, 2, 3, 4]), np.array([3, 0, 1, 0]), np.array([0, 10, 40, 50]))
    point = counts.at_far(0.05)  # half of the 10% in bin 2
    assert (point.threshold, point.far, point.tar) == (1.5, 0.05, 0.75)
    equal = counts.equal_error_point()
    # In bin 3 FAR rises from 0.1 to 0.5 and 1 - TAR falls from 0.25 to 0: equal at x = 0.15 / 0.65 of the bin.
    assert equal.threshold == pytest.approx(2 + 0.15 / 0.65)
    assert equal.far == pytest.approx(0.1 + 0.4 * 0.15 / 0.65)
    assert equal.tar == pytest.approx(1 - equal.far)


def test_a_far_below_one_pair_has_no_threshold():
    counts = PairCounts(np.array([0.0, 1, 2]), np.array([1, 0]), np.array([0, 99]))
    assert counts.at_far(0.01) is None
    assert counts.at_far(0.02) is not None


def test_perfect_features_have_no_error():
    query = features([[0, 0], [9, 9]], [1, 2], [1, 1])
    gallery = features([[0, 0.5], [9, 8.5]], [1, 2], [2, 2])
    equal = count(query, gallery).equal_error_point()
    assert (equal.far, equal.tar) == pytest.approx((0, 1), abs=1e-6)
    assert 0.5 < equal.threshold < np.linalg.norm([9, 8.5])


def test_equal_features_are_at_distance_zero():
    query = features([[1, 1], [1, 1]], [1, 2], [1, 1])
    gallery = features([[1, 1], [1, 1]], [1, 2], [2, 2])
    counts = count(query, gallery)
    assert (counts.same[0], counts.different[0]) == (2, 2)


def test_features_that_are_all_zero_are_counted():
    query, gallery = features([[0, 0]], [1], [1]), features([[0, 0], [0, 0]], [1, 2], [2, 2])
    for metric in ("euclidean", "cosine"):
        counts = count(query, gallery, metric)
        assert (counts.same.sum(), counts.different.sum()) == (1, 1)


def test_without_a_same_identity_pair_it_is_an_error():
    query, gallery = features([[0.0]], [1], [1]), features([[1.0]], [2], [1])
    with pytest.raises(
        DataError, match="give 0 same-identity and 1 different-identity pairs: expected at least one of each"
    ):
        count(query, gallery)
