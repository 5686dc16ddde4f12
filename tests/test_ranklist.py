"""Rank lists against a full stable sort."""

from __future__ import annotations

import numpy as np
import pytest
from ranking import ranklist

from ptlreid.errors import OptionError
from ptlreid.retrieval.protocols import PROTOCOLS, Judge
from ptlreid.retrieval.types import Features

MARKET = PROTOCOLS["market"]


def features(matrix: np.ndarray, pids: list[int], camids: list[int]) -> Features:
    paths = np.array([f"{row}.jpg" for row in range(len(matrix))], dtype=object)
    ids = (np.asarray(column, dtype=np.int64) for column in (pids, camids))
    return Features(np.asarray(matrix, dtype=np.float32), *ids, paths)


def test_the_nearest_three_with_distance_and_verdict():
    query = features([[0], [0]], [7, 9], [1, 1])
    gallery = features([[5], [1], [2], [3], [4]], [7, 7, -1, 8, 7], [2, 1, 2, 2, 2])
    found = ranklist(query, gallery, MARKET, 3)
    assert found.columns.tolist() == [[3, 4, 0], [1, 3, 4]]  # junk and the query's own camera are not there
    assert found.distances.tolist() == [[3, 4, 5], [1, 3, 4]]
    assert found.matches.tolist() == [[False, True, True], [False, False, False]]


def test_places_beyond_what_a_query_sees_are_empty():
    found = ranklist(features([[0]], [7], [1]), features([[1], [2]], [-1, 7], [2, 2]), MARKET, 10)
    assert found.columns.tolist() == [[1, -1]]
    assert found.distances.tolist() == [[2, np.inf]]
    assert found.matches.tolist() == [[True, False]]


def test_nobodys_images_match_nobody():
    found = ranklist(features([[0]], [-2], [1]), features([[1]], [-2], [2]), MARKET, 1)
    assert found.matches.tolist() == [[False]]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("ties", [True, False])
def test_equal_to_a_full_sort(metric: str, ties: bool):
    rng = np.random.default_rng(5)
    for size, width in ((3, 2), (70, 3), (1500, 4), (4000, 30)):
        query, gallery = (
            features(
                rng.integers(-1, 2, (n, width)) if ties and metric == "euclidean" else rng.standard_normal((n, width)),
                rng.integers(-1, 6, n).tolist(),
                rng.integers(1, 4, n).tolist(),
            )
            for n in (20, size)
        )
        found = ranklist(query, gallery, MARKET, 20, metric=metric)
        left, right = query.matrix.astype(float), gallery.matrix.astype(float)
        if metric == "cosine":
            left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
            exact = 1 - left @ right.T
        else:
            exact = np.sqrt(np.square(left[:, None] - right[None]).sum(axis=-1))
        keys = exact.copy()
        judge = Judge(MARKET, query, gallery)
        for row in range(len(query)):
            judge.hide(keys[row], judge.verdict(row))
        order = np.argsort(keys, axis=1, kind="stable")[:, :20]
        seen = np.take_along_axis(keys, order, axis=1) < np.inf
        np.testing.assert_array_equal(found.columns[seen], order[seen])
        assert (found.columns[~seen] == -1).all()
        np.testing.assert_allclose(found.distances[seen], np.take_along_axis(exact, order, axis=1)[seen], atol=1e-7)


def test_the_distance_to_the_same_image_is_zero():
    """Not the root of a rounding error, which a difference of squares would give."""
    matrix = 20 + np.random.default_rng(0).standard_normal((5, 512)).astype(np.float32)
    found = ranklist(features(matrix[:1], [7], [1]), features(matrix, [7] * 5, [2] * 5), MARKET, 1)
    assert found.distances.tolist() == [[0.0]]


def test_no_memory_budget_changes_a_list():
    rng = np.random.default_rng(5)
    query, gallery = (features(rng.standard_normal((n, 9)), [1] * n, [c] * n) for c, n in ((1, 30), (2, 20_000)))
    whole = ranklist(query, gallery, MARKET, 7)
    np.testing.assert_array_equal(ranklist(query, gallery, MARKET, 7, memory_budget=1).columns, whole.columns)


def test_a_list_of_none_is_an_error():
    with pytest.raises(OptionError, match="0 images"):
        ranklist(features([[0]], [7], [1]), features([[1]], [7], [2]), MARKET, 0)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_last_listed_image_is_that_of_exact_distances(size):
    """Distances differ by a hundredth of what a product in float32 tells apart."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200, 64))
    directions *= ((1 + 1e-8 * rng.permutation(200)) / np.linalg.norm(directions, axis=1))[:, None]
    query, gallery = features([rng.normal(size=64) * 1e-7], [1], [1]), features(directions, [2] * 200, [2] * 200)
    squares = np.square(gallery.matrix.astype(float) - query.matrix[0].astype(float)).sum(axis=1)
    found = ranklist(query, gallery, PROTOCOLS["any-image"], size)
    assert found.columns[0].tolist() == np.argsort(np.sqrt(squares), kind="stable")[:size].tolist()
