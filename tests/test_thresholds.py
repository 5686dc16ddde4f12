"""Verification: counts of pairs by distance, and the operating points read off them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from ptlreid.errors import DataError
from ptlreid.retrieval.distance import distance_blocks
from ptlreid.retrieval.pairs import Pairs
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.thresholds import OperatingPoint, PairCounts, count_pairs
from ptlreid.retrieval.types import Features, Retrieval

MARKET = PROTOCOLS["market"]


def all_pairs(query, gallery, metric="euclidean", protocol=MARKET):
    retrieval = Retrieval(query, gallery, protocol)
    return Pairs(retrieval, distance_blocks(retrieval, metric=metric, memory_budget=None), metric)


def count(query, gallery, metric="euclidean", rates=(), **bins):
    return count_pairs(all_pairs(query, gallery, metric), rates, **bins)


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


def rounded(query, gallery):
    """The same sides with whole numbers as features, so that many distances are equal, and some are 0."""
    return [features(np.round(side.matrix), side.pids, side.camids) for side in (query, gallery)]


@pytest.mark.parametrize(("metric", "ties"), [("euclidean", False), ("cosine", False), ("euclidean", True)])
def test_operating_points_equal_scikit_learn(metric, ties):
    query, gallery = rounded(*random_sides(seed=1)) if ties else random_sides(seed=1)
    rates = (0.001, 0.01, 0.1)
    counts = count(query, gallery, metric, rates)
    distances, same = pairs_by_loop(query, gallery, metric)
    false, true, thresholds = roc_curve(same, -distances, drop_intermediate=False)
    for rate in rates:
        at = np.flatnonzero(false <= rate)[-1]
        found = counts.at_far(rate)
        assert (found.far, found.tar) == (false[at], true[at])
        assert -thresholds[at] <= found.threshold + 1e-5
        assert found.threshold <= -thresholds[at + 1]
    equal = counts.equal_error_point()
    gaps = np.abs(false - (1 - true))
    assert abs(equal.far - (1 - equal.tar)) == pytest.approx(gaps.min(), abs=1e-12)
    at = np.flatnonzero((false == equal.far) & (true == equal.tar))[0]
    assert -thresholds[at] <= equal.threshold + 1e-5
    assert equal.threshold <= -thresholds[at + 1]


def test_operating_points_by_hand():
    # Same identity: 3 pairs in bin 1, 1 in bin 3. Different identities: 10 pairs in bin 2, 40 in bin 3, 50 in bin 4.
    counts = PairCounts(np.array([0.0, 1, 2, 3, 4]), np.array([3, 0, 1, 0]), np.array([0, 10, 40, 50]))
    # Bin 2 would be a FAR of 10%. Bins 1 and 2 touch: between them is edge 1.
    assert counts.at_far(0.05) == OperatingPoint(1, 0, 0.75)
    assert counts.at_far(0.1) == OperatingPoint(2, 0.1, 0.75)
    assert counts.at_far(0.49) == OperatingPoint(2, 0.1, 0.75)
    # Gaps of FAR and 1 - TAR: 0.25 at edge 1, 0.15 at edge 2, 0.5 at edge 3.
    assert counts.equal_error_point() == OperatingPoint(2, 0.1, 0.75)


def test_a_threshold_is_halfway_between_the_pairs_next_to_it():
    # One different-identity pair at 2 to 3, ten at 7 to 8: FAR 10% allows one of eleven.
    counts = PairCounts(np.arange(11.0), np.eye(10, dtype=int)[0], np.array([0, 0, 1, 0, 0, 0, 0, 10, 0, 0]))
    assert counts.at_far(0.1).threshold == (3 + 7) / 2


def test_pairs_within_a_bin_are_separated():
    """With 300 bins, several pairs of both kinds are in the bin of each threshold."""
    query, gallery = random_sides(seed=2)
    few, many = (count(query, gallery, rates=(0.01, 0.1), bins=bins) for bins in (300, 20_000))
    for rate in (0.01, 0.1):
        assert (few.at_far(rate).far, few.at_far(rate).tar) == (many.at_far(rate).far, many.at_far(rate).tar)


@pytest.mark.parametrize("accepted", [7, 29, 57, 99])
def test_a_far_of_a_number_of_pairs_accepts_that_number(accepted):
    """0.29 times 100 is 28.999999999999996 in floating point."""
    counts = PairCounts(np.arange(102.0), np.eye(101, dtype=int)[0], np.append(0, np.ones(100, dtype=int)))
    assert counts.at_far(accepted / 100).far == accepted / 100


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
