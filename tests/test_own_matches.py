"""Queries that are in the gallery themselves, by path or by identity and features."""

from __future__ import annotations

import numpy as np
import pytest
from ranking import blocks as distance_blocks
from ranking import camera_scores, evaluate, matrix, ranklist

from ptlreid.errors import DataError
from ptlreid.retrieval.own_matches import find_own_images
from ptlreid.retrieval.pairs import Pairs
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.thresholds import count_pairs
from ptlreid.retrieval.types import Features, Retrieval

ANY_CAMERA = PROTOCOLS["any-camera"]


def line(positions: list[float], pids: list[int], paths: str) -> Features:
    """Images on a line; `paths`: one letter for each."""
    rows = np.float32(positions)[:, None]
    return Features(rows, np.array(pids), np.ones(len(pids), dtype=np.int64), np.array(list(paths), dtype=object))


def test_the_same_path_or_the_same_identity_and_features_is_the_query_itself():
    query = line([1, 2, 0, 5], [7, 8, 7, -1], "abcd")
    gallery = line([1, 2, 9, -0.0, 5, 1], [7, 9, 8, 7, -1, 7], "uvbwxy")
    # a: u and y; b: the path b, but not v, which is another identity; c: w, as -0 is 0; junk is not compared
    found = {row: columns.tolist() for row, columns in find_own_images(Retrieval(query, gallery, ANY_CAMERA)).items()}
    assert found == {0: [0, 5], 1: [2], 2: [3]}
    assert find_own_images(Retrieval(query, gallery, PROTOCOLS["market"])) == {}


def test_a_gallery_searched_for_its_own_images_leaves_each_one_out():
    both = line([0, 1, 3, 3.5], [7, 8, 7, 8], "abcd")
    scores = evaluate(both, both, ANY_CAMERA)
    # a: b c d, match at 2. b: a c d, match at 3. c: d b a, match at 3. d: c b a, match at 2.
    assert scores.match_ranks.tolist() == [2, 3, 3, 2]
    assert ranklist(both, both, ANY_CAMERA, 4).columns.tolist() == [
        [1, 2, 3, -1],
        [0, 2, 3, -1],
        [3, 1, 0, -1],
        [2, 1, 0, -1],
    ]
    cell = camera_scores(distance_blocks(both, both), both, both, ANY_CAMERA)
    assert (cell.cmc1[0, 0], cell.mean_ap[0, 0]) == (0, pytest.approx((1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 4))
    retrieval = Retrieval(both, both, ANY_CAMERA)
    counts = count_pairs(Pairs(retrieval, distance_blocks(both, both), "euclidean"), [])
    assert (counts.same.sum(), counts.different.sum()) == (4, 8)
    assert np.isfinite(matrix(distance_blocks(both, both))).all()


def test_a_query_whose_only_match_is_itself_has_none():
    both = line([0, 1], [7, 8], "ab")
    with pytest.raises(DataError, match="None of the 2 queries has a true match"):
        evaluate(both, both, ANY_CAMERA)
