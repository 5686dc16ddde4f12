"""The nearest images, against a slow loop in float64, with ties, junk, several images a query and hidden images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ranking import rerank as rerank_blocks_of
from shard_folders import random_features as make

from ptlreid.retrieval.search import Person, average, rank_gallery, rerank_gallery
from ptlreid.retrieval.types import Features


def distance(left: np.ndarray, right: np.ndarray, metric: str) -> float:
    """Of two lists of Python floats."""
    a, b = [float(x) for x in left], [float(x) for x in right]
    if metric == "euclidean":
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 1.0


def by_loop(queries: list[np.ndarray], gallery: Features, metric: str, hidden: set[int], size: int):
    """(column, distance) of the nearest by the smallest distance to any of the queries, then by column."""
    listed = [
        (min(round(distance(query, row, metric), 12) for query in queries), column)
        for column, row in enumerate(gallery.matrix)
        if column not in hidden
    ]
    return [(column, value) for value, column in sorted(listed)[:size]]


def check(found, expected) -> None:
    assert found.columns.tolist() == [column for column, _ in expected]
    np.testing.assert_allclose(found.distances, [value for _, value in expected], atol=1e-7)


CASES = [(seed, metric, size) for seed in range(6) for metric in ("euclidean", "cosine") for size in (1, 7, 100)]


@pytest.mark.parametrize(("seed", "metric", "size"), CASES)
def test_ranks_are_those_of_a_loop(seed, metric, size):
    whole = metric == "euclidean"  # equal cosines of different vectors are equal up to rounding only
    query, gallery = make(seed, 7, whole=whole), make(seed + 50, 60, whole=whole)
    rng = np.random.default_rng(seed)
    people, row = [], 0
    for count in (1, 3, 2, 1):
        hidden = rng.choice(60, rng.integers(0, 20), replace=False)
        people.append(Person(np.arange(row, row + count), hidden))
        row += count
    found = rank_gallery(query, people, gallery, size=size, metric=metric, memory_budget=None)
    for one, hits in zip(people, found, strict=True):
        check(hits, by_loop(list(query.matrix[one.rows]), gallery, metric, set(one.hidden.tolist()), size))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_cut_is_that_of_exact_distances(offset):
    """Rounding in float32 must decide neither the order nor what is among the first: distances differ by 1e-5."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200, 16))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    lengths = 1 + 1e-5 * rng.permutation(200)
    gallery = make(0, 200, width=16)
    object.__setattr__(gallery, "matrix", (directions * lengths[:, None] * 100 + offset).astype(np.float32))
    query = make(0, 1, width=16)
    object.__setattr__(query, "matrix", np.full((1, 16), offset, dtype=np.float32))
    exact = np.linalg.norm(gallery.matrix.astype(float) - query.matrix.astype(float), axis=1)
    people = [Person(np.array([0]), np.empty(0, dtype=int))]
    (found,) = rank_gallery(query, people, gallery, size=20, metric="euclidean", memory_budget=None)
    assert found.columns.tolist() == np.argsort(exact, kind="stable")[:20].tolist()
    np.testing.assert_allclose(found.distances, np.sort(exact)[:20], rtol=1e-12)


def test_any_memory_budget_gives_the_same_hits():
    query, gallery = make(1, 40, width=8), make(2, 300, width=8)
    people = [Person(np.arange(at, at + 4), np.array([at])) for at in range(0, 40, 4)]
    plain, tight = (
        rank_gallery(query, people, gallery, size=9, metric="euclidean", memory_budget=budget) for budget in (None, 1)
    )
    for left, right in zip(plain, tight, strict=True):
        np.testing.assert_array_equal(left.columns, right.columns)
        np.testing.assert_array_equal(left.distances, right.distances)


def test_a_mean_is_that_of_features_of_length_1():
    query = make(3, 4)
    object.__setattr__(query, "matrix", np.array([[3, 4], [0, 2], [0, 0], [5, 5]], dtype=np.float32))
    people = [Person(np.array([0, 1, 2]), np.array([7])), Person(np.array([3]), np.array([8]))]
    means, merged = average(query, people)
    # (0.6, 0.8), (0, 1), (0, 0): a zero vector has no direction, and counts; one image keeps its feature
    np.testing.assert_allclose(means.matrix, [[0.2, 0.6], [5, 5]], rtol=1e-6)
    assert [one.rows.tolist() for one in merged] == [[0], [1]]
    assert [one.hidden.tolist() for one in merged] == [[7], [8]]


def test_nobody_is_left_where_all_are_hidden():
    query, gallery = make(0, 1), make(1, 4)
    (found,) = rank_gallery(
        query, [Person(np.array([0]), np.arange(4))], gallery, size=3, metric="euclidean", memory_budget=None
    )
    assert (len(found.columns), len(found.distances)) == (0, 0)


def test_reranked_hits_are_in_the_order_of_reranked_distances():
    rng = np.random.default_rng(0)

    def random(seed: int, size: int) -> Features:
        like = make(seed, size, width=6)
        return Features(rng.normal(size=(size, 6)).astype(np.float32), like.pids * 0, like.camids, like.paths)

    query, gallery = random(0, 3), random(1, 50)
    expected = np.array([block.keys_of(row) for block in rerank_blocks_of(query, gallery) for row in block.rows])
    people = [Person(np.array([0, 1]), np.array([4])), Person(np.array([2]), np.empty(0, dtype=int))]
    found = rerank_gallery(query, people, gallery, size=5, k1=20, k2=6, weight=0.3, memory_budget=None)
    nearest = np.minimum(expected[0], expected[1])
    nearest[4] = np.inf
    for hits, row in zip(found, (nearest, expected[2]), strict=True):
        assert hits.columns.tolist() == np.argsort(row, kind="stable")[:5].tolist()
        np.testing.assert_array_equal(hits.distances, np.sort(row)[:5])


def test_people_out_of_order_are_a_mistake_of_ours():
    query, gallery = make(0, 2), make(1, 4)
    people = [Person(np.array([1]), np.arange(0)), Person(np.array([0]), np.arange(0))]
    with pytest.raises(ValueError, match="in order"):
        rank_gallery(query, people, gallery, size=1, metric="euclidean", memory_budget=None)
