"""FAR and TAR of given thresholds, and their intervals over identities."""

from __future__ import annotations

import numpy as np
import pytest
from test_thresholds import all_pairs, features, pairs_by_loop, random_sides

from ptlreid.retrieval.accepted import AcceptedPairs, IdentityCounts, count_accepted


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_rates_equal_a_slow_loop(metric):
    query, gallery = random_sides(seed=3)
    distances, same = pairs_by_loop(query, gallery, metric)
    thresholds = np.quantile(distances, (0, 0.01, 0.2, 0.7)) + 1e-6
    accepted = count_accepted(all_pairs(query, gallery, metric), thresholds.tolist())
    below = distances < thresholds[:, None]
    assert accepted.fars == pytest.approx(below[:, ~same].mean(axis=1))
    assert accepted.tars == pytest.approx(below[:, same].mean(axis=1))


def test_pairs_are_counted_by_the_identity_of_either_side():
    """Queries of identities 1 and 2; gallery images of 1, 2, 3 and a distractor. Distances are differences."""
    query = features([[0], [10]], [1, 2], [1, 1])
    gallery = features([[1], [12], [3], [20]], [1, 2, 3, -2], [2, 2, 2, 2])
    found = count_accepted(all_pairs(query, gallery), [2.5, 9.5])
    # Same: 1 (query 1), 2 (query 2). Different: 12, 3, 20 (query 1); 9, 7, 10 (query 2).
    assert (found.same.pairs.tolist(), found.same.accepted.tolist()) == ([1, 1], [[1, 1], [1, 1]])
    assert (found.by_query.pairs.tolist(), found.by_query.accepted.tolist()) == ([3, 3], [[0, 1], [0, 2]])
    # By gallery image: 9 (1), 12 (2); the others 3, 7, 20, 10.
    assert (found.by_gallery.pairs.tolist(), found.by_gallery.accepted.tolist()) == ([1, 1], [[0, 1], [0, 0]])
    assert (found.others.pairs.tolist(), found.others.accepted.tolist()) == ([4], [[0, 2]])
    assert found.fars.tolist() == [0, 3 / 6]


def test_a_threshold_is_not_below_itself():
    query, gallery = features([[0]], [1], [1]), features([[2], [3]], [1, 2], [2, 2])
    assert count_accepted(all_pairs(query, gallery), [2, 2.1]).tars.tolist() == [0, 1]


def test_intervals_of_three_identities_equal_every_resample():
    """All 27 resamples of three identities, enumerated: FAR by queries times FAR by gallery images over FAR."""
    tables = [np.array([[3, 1], [0, 2], [5, 0]]), np.array([[1, 0], [4, 2], [1, 1]])]
    sizes = [np.array([10, 20, 30]), np.array([15, 15, 20])]
    others = IdentityCounts(np.array([10]), np.array([[2, 0]]))
    same = IdentityCounts(np.array([1, 2, 3]), np.array([[1, 0], [1, 1], [3, 2]]))
    by_query, by_gallery = (IdentityCounts(*pair) for pair in zip(sizes, tables, strict=True))
    found = AcceptedPairs([0.5, 0.7], same, by_query, by_gallery, others).rates(resamples=20_000, seed=0)
    chosen = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T  # (27, 3)

    def interval(values):
        return pytest.approx(tuple(np.quantile(np.repeat(values, 1000), (0.025, 0.975))))

    for at in (0, 1):
        far = tables[0][:, at].sum() / 60
        queries = tables[0][chosen, at].sum(axis=1) / sizes[0][chosen].sum(axis=1)
        images = (tables[1][chosen, at].sum(axis=1) + [2, 0][at]) / (sizes[1][chosen].sum(axis=1) + 10)
        assert (found[at].far_interval.low, found[at].far_interval.high) == interval(queries * images / far)
        tars = same.accepted[chosen, at].sum(axis=1) / same.pairs[chosen].sum(axis=1)
        assert (found[at].tar_interval.low, found[at].tar_interval.high) == interval(tars)


def test_without_resamples_or_with_one_identity_there_are_no_intervals():
    query, gallery = random_sides(seed=3)
    rates = count_accepted(all_pairs(query, gallery), [1.0]).rates(resamples=0, seed=0)[0]
    assert (rates.far_interval, rates.tar_interval) == (None, None)
    one = features([[0]], [1], [1]), features([[2], [3]], [1, 2], [2, 2])
    rates = count_accepted(all_pairs(*one), [2.5]).rates(resamples=10, seed=0)[0]
    assert (rates.far, rates.far_interval, rates.tar, rates.tar_interval) == (0, None, 1, None)


def test_about_95_of_100_intervals_cover_the_true_rates():
    """Identities are points on a line, images scatter around them. The true rates are those of very many others."""
    spread, identities = 0.05, 40
    rng = np.random.default_rng(0)
    someone, everyone = (np.sort(rng.uniform(size=5000) + rng.normal(0, spread, 5000)) for _ in range(2))
    gaps = np.abs(rng.normal(0, spread * np.sqrt(2), 20_000))
    pids = np.repeat(np.arange(identities), 2)
    same = pids[:, None] == pids
    covered = np.zeros(2)
    for _ in range(200):
        places = rng.uniform(size=identities)[pids]
        query, gallery = (places + rng.normal(0, spread, len(pids)) for _ in range(2))
        distances = np.abs(query[:, None] - gallery)
        threshold = np.quantile(distances[~same], 0.02)
        near = distances < threshold
        counts = [
            IdentityCounts(*(table.reshape(identities, -1).sum(axis=1) for table in tables))
            for tables in ((same, same & near), (~same, ~same & near), (~same, (~same & near).T))
        ]
        counts = [IdentityCounts(one.pairs, one.accepted[:, None]) for one in counts]
        nothing = IdentityCounts(np.zeros(1), np.zeros((1, 1)))
        found = AcceptedPairs([threshold], *counts, nothing).rates(resamples=300, seed=0)[0]
        far = np.mean(everyone.searchsorted(someone + threshold) - everyone.searchsorted(someone - threshold)) / 5000
        tar = np.mean(gaps < threshold)
        covered += far in found.far_interval, tar in found.tar_interval
    assert ((covered > 176) & (covered < 200)).all(), covered
