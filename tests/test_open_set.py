"""Searches for identities that may be missing from the gallery: worked by hand, and by a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
from test_thresholds import all_pairs, features, random_sides

from ptlreid.errors import DataError
from ptlreid.retrieval.open_set import Answers, OpenSet, OpenSetPoint, answer_queries
from ptlreid.retrieval.protocols import PROTOCOLS


def answers(distances, correct=None):
    rows = np.arange(len(distances))
    return Answers(rows, np.array(distances, dtype=float), np.array(correct or [False] * len(rows)))


def test_points_worked_by_hand():
    # Ten absent queries with nearest images at 1, 2, ..., 10; four enrolled ones, of which that at 1.5 finds another.
    found = OpenSet(answers([0.5, 1.5, 2.5, 4.5], [True, False, True, True]), answers(range(1, 11)))
    # FAR 0.1: one alarm, so the absent query at 2 is refused; the last answer below is at 1.5.
    assert found.find_threshold(0.1) == (1.5 + 2) / 2
    assert found.at(1.75, resamples=0, seed=0) == OpenSetPoint(1.75, 0.1, None, 0.25, None)
    # FAR 0.3: the absent query at 4 is refused; the last answer below is that at 3. DIR: 0.5 and 2.5 of four.
    assert found.find_threshold(0.3) == (3 + 4) / 2
    assert found.at(3.5, resamples=0, seed=0) == OpenSetPoint(3.5, 0.3, None, 0.5, None)
    assert found.find_threshold(0.09) is None  # of ten queries, less than one


def test_equal_distances_are_accepted_together_or_not_at_all():
    found = OpenSet(answers([1.0], [True]), answers([3, 3, 3, 8]))
    threshold = found.find_threshold(0.5)  # two of four, but three are at 3
    assert threshold == 2
    assert found.at(threshold, resamples=0, seed=0).far == 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("protocol", ["market", "cuhk03-classic", "any-camera"])
def test_answers_equal_a_slow_loop(metric, protocol):
    query, gallery = random_sides(seed=4)
    found = answer_queries(all_pairs(query, gallery, metric, PROTOCOLS[protocol]), seed=1)
    gone = set(found.absent.pids.tolist())
    expected = {True: [], False: []}
    with_match = set()
    for row, (q, pid, camid) in enumerate(zip(query.matrix.astype(float), query.pids, query.camids, strict=True)):
        nearest, is_match, matches = np.inf, False, 0
        for column, g in enumerate(gallery.matrix.astype(float)):
            other, same_camera = gallery.pids[column], camid == gallery.camids[column]
            hidden = {
                "market": same_camera and other == pid,
                "cuhk03-classic": same_camera,
                "any-camera": query.paths[row] == gallery.paths[column],
            }
            if other == -1 or hidden[protocol]:
                continue
            matches += other == pid
            cosine = q @ g / np.linalg.norm(q) / np.linalg.norm(g)
            distance = np.linalg.norm(q - g) if metric == "euclidean" else 1 - cosine
            if other not in gone and distance < nearest:
                nearest, is_match = distance, other == pid
        if pid >= 0 and matches:
            with_match.add(pid)
            expected[pid in gone].append((pid, nearest, is_match))
    for side, rows in ((found.enrolled, expected[False]), (found.absent, expected[True])):
        pids, distances, correct = (np.array(column) for column in zip(*rows, strict=True))
        assert (side.pids == pids).all()
        assert side.distances == pytest.approx(distances, rel=1e-4)
        assert (side.correct == correct).all()
    assert len(gone) == len(with_match) // 2
    assert not found.absent.correct.any()


def test_the_split_depends_on_the_seed_only():
    pairs = all_pairs(*random_sides(seed=5))
    splits = [set(answer_queries(pairs, seed=seed).absent.pids.tolist()) for seed in (0, 0, 1, 2)]
    assert splits[0] == splits[1]
    assert len({frozenset(one) for one in splits}) > 1


def test_a_query_that_is_in_the_gallery_itself_does_not_find_itself():
    rng = np.random.default_rng(0)
    pids = [*np.repeat(np.arange(4), 3), 4]  # the last one's only match would be itself
    both = features(rng.normal(size=(13, 3)), pids, np.ones(13))
    found = answer_queries(all_pairs(both, both, protocol=PROTOCOLS["any-camera"]), seed=0)
    assert len(found.enrolled) == len(found.absent) == 6
    assert (found.enrolled.distances > 0).all()


def test_intervals_are_over_identities():
    """Two identities of each kind, all queries of one alike: a resample has FAR 0, 0.5 or 1, and so has DIR."""
    pids = np.repeat([1, 2], 5)
    side = Answers(pids, np.where(pids == 1, 1.0, 3.0), np.full(10, fill_value=True))
    point = OpenSet(side, side).at(2.0, resamples=500, seed=0)
    assert (point.far, point.dir) == (0.5, 0.5)
    assert (point.far_interval.low, point.far_interval.high) == (0, 1)
    assert (point.dir_interval.low, point.dir_interval.high) == (0, 1)


def test_one_identity_cannot_be_split():
    query, gallery = features([[0]], [1], [1]), features([[1], [2]], [1, 2], [2, 2])
    with pytest.raises(DataError, match="1 identities have a query with a true match: expected two or more"):
        answer_queries(all_pairs(query, gallery), seed=0)
