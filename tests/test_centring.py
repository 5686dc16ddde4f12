"""Rankings against a slow loop in float64: at any offset and scale, with duplicates, and with all rows alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranking import evaluate, expand, ranklist, rerank
from ranking import matrix as all_distances
from test_rerank import dense

from ptlreid.retrieval import ranking_keys
from ptlreid.retrieval.centring import RELATIVE_BOUND, squared_distances
from ptlreid.retrieval.distance import key_blocks
from ptlreid.retrieval.protocols import Protocol
from ptlreid.retrieval.types import Features

METRICS = ("euclidean", "cosine")
PLAIN = Protocol("plain")


def features(matrix: np.ndarray) -> Features:
    ids = np.ones(len(matrix), dtype=np.int64)
    return Features(matrix, ids, ids, np.array([f"{row}.jpg" for row in range(len(matrix))], dtype=object))


def exact(query: np.ndarray, image: np.ndarray, metric: str) -> float:
    """The distance of two vectors with more digits than float64 has; for cosine from the vectors' difference."""
    left, right = query.astype(np.longdouble), image.astype(np.longdouble)
    if metric == "euclidean":
        return np.sqrt(np.square(left - right).sum())
    if not left.any() or not right.any():
        return np.longdouble(1)
    return np.square(left / np.sqrt(np.square(left).sum()) - right / np.sqrt(np.square(right).sum())).sum() / 2


def check_order(queries: np.ndarray, images: np.ndarray, metric: str) -> None:
    """Two images whose distances differ by more than the bound are ranked by them; equal images keep their order."""
    bound = RELATIVE_BOUND * (1 if metric == "euclidean" else 2)
    negligible = 1e-36 * max(np.linalg.norm(row.astype(float)) for row in (*queries, *images))
    for block in key_blocks(queries, images, metric=metric, memory_budget=None):
        for row in block.rows:
            order = np.argsort(block.keys_of(row), kind="stable")
            found = np.array([exact(queries[row], image, metric) for image in images])[order]
            nearest_of_the_rest = np.minimum.accumulate(found[::-1])[::-1]
            assert (found <= nearest_of_the_rest * (1 + bound) + negligible).all()
            for image in images:
                twins = np.flatnonzero((images == image).all(axis=1))
                assert order[np.isin(order, twins)].tolist() == twins.tolist()


@st.composite
def sides(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Queries and gallery with some equal rows, at an offset of up to 10^6 times the spread, at any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width, num_queries, num_images = draw(st.integers(1, 70)), draw(st.integers(1, 4)), draw(st.integers(1, 40))
    matrix = rng.standard_normal((num_queries + num_images, width)) * 10.0 ** rng.uniform(
        -draw(st.integers(0, 6)), 0, (num_queries + num_images, 1)
    )
    matrix += draw(st.sampled_from((0, 1, 30, 300, 1e4, 1e6))) * rng.standard_normal(width)
    matrix[rng.random(len(matrix)) < draw(st.sampled_from((0, 0.3, 1)))] = matrix[0]
    matrix[rng.random(len(matrix)) < draw(st.sampled_from((0, 0, 0.2)))] = 0
    matrix *= 10.0 ** draw(st.sampled_from((0, 0, -30, -37, 15, 37))) / max(1e-300, np.abs(matrix).max())
    return matrix[:num_queries].astype(np.float32), matrix[num_queries:].astype(np.float32)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(sides(), st.sampled_from(METRICS))
def test_the_ranking_is_that_of_exact_distances(both, metric):
    check_order(*both, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("offset", [0, 300, 1e6])
def test_wide_features_with_close_neighbours_are_ranked_exactly(metric, offset):
    rng = np.random.default_rng(1)
    images = rng.standard_normal((60, 2048)) + offset * rng.standard_normal(2048)
    images[20:40] = images[5] + np.geomspace(1e-3, 1, 20)[::-1, None] * rng.standard_normal(2048)
    check_order(images[5:6].astype(np.float32), images.astype(np.float32), metric)


def test_features_of_very_different_length_are_ranked_exactly():
    images = np.float32([[1e38, 0], [1, 0], [1 + 1e-3, 0], [0, 1e-3], [3e-20, 0], [-3e38, 0], [0, 0]])
    for metric in METRICS:
        check_order(images, images, metric)


@pytest.mark.parametrize("offset", [0, 30, 100, 300, 1000])
def test_a_query_finds_its_own_copy_first(offset):
    images = np.random.default_rng(0).standard_normal((200, 512)).astype(np.float32) + np.float32(offset)
    gallery = features(images)
    own = Features(images, np.arange(200), gallery.camids, gallery.paths)
    scores = evaluate(Features(images, own.pids, own.camids, np.array(["q"] * 200, dtype=object)), own, PLAIN)
    assert scores.cmc[0] == 1


@settings(derandomize=True, deadline=None, max_examples=60)
@given(sides(), st.sampled_from(METRICS))
def test_a_rank_list_is_in_the_order_of_its_distances(both, metric):
    found = ranklist(features(both[0]), features(both[1]), PLAIN, 20, metric=metric)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    tied = np.diff(found.distances, axis=1) == 0
    assert (np.diff(found.columns, axis=1)[tied] > 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_near_ties_are_listed_in_the_order_of_their_distances(metric):
    rng = np.random.default_rng(5)
    images = rng.standard_normal((300, 2048)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    query = features(np.eye(1, 2048, dtype=np.float32))
    images[:, 0] = 0  # all at distance 1.414, or 1
    found = ranklist(query, features(images), PLAIN, 300, metric=metric)
    assert (np.diff(found.distances[0]) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_features_far_from_the_origin_are_centred_and_few_are_compared_by_differences(metric, monkeypatch):
    images = np.random.default_rng(6).standard_normal((500, 64)).astype(np.float32) + np.float32(1000)
    compared = []

    def count(vector, images, rows, metric):
        compared.append(len(rows))
        return squared_distances(vector, images, rows, metric)

    monkeypatch.setattr(ranking_keys, "squared_distances", count)
    check_order(images[:20], images, metric)
    assert sum(compared) == 20  # each query and its own copy


def test_a_zero_vector_among_far_features_has_cosine_0_with_everything():
    images = np.random.default_rng(7).standard_normal((50, 8)).astype(np.float32) + np.float32(1000)
    images[[3, 9]] = 0
    keys = np.concatenate(
        [
            [block.keys_of(row) * block.unit for row in block.rows]
            for block in key_blocks(images[2:4], images, metric="cosine", memory_budget=None)
        ]
    )
    assert keys[0, [3, 9]].tolist() == [2, 2]
    assert keys[1].tolist() == [2] * 50


@pytest.mark.parametrize("scale", [1e-37, 1e37])
@pytest.mark.parametrize("offset", [0, 1000])
def test_re_ranking_is_that_of_the_dense_definition(scale, offset):
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((60, 12))
    matrix += 0.6 * rng.standard_normal(12) + offset * np.ones(12)
    matrix = (matrix * (scale / np.abs(matrix).max())).astype(np.float32)
    unit = matrix.astype(float) / np.linalg.norm(matrix.astype(float), axis=1, keepdims=True)
    found = all_distances(rerank(features(matrix[:10]), features(matrix[10:]), k1=6, k2=3))
    np.testing.assert_allclose(found, dense(unit[:10], unit[10:], 6, 3, 0.3), atol=1e-4)


def test_an_expanded_query_is_the_mean_of_its_nearest_at_any_offset():
    rng = np.random.default_rng(4)
    query, gallery = (rng.standard_normal((n, 8)).astype(np.float32) + np.float32(3000) for n in (5, 50))
    found = expand(features(query), features(gallery), size=3).matrix
    for row in range(5):
        nearest = np.argsort([exact(query[row], image, "cosine") for image in gallery])[:3]
        mean = sum(one.astype(float) / np.linalg.norm(one.astype(float)) for one in (query[row], *gallery[nearest]))
        np.testing.assert_allclose(found[row], mean / np.linalg.norm(mean), rtol=2e-7)
