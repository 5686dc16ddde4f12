"""Sparse re-ranking against the dense definition, which is written here once more, slowly, from the paper."""

from __future__ import annotations

import numpy as np
import pytest
from ranking import evaluate_blocks, rank_list_of, rerank

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval import memory_plan
from ptlreid.retrieval.protocols import PROTOCOLS
from ptlreid.retrieval.types import Features


def features(matrix: np.ndarray, pids: list[int] | None = None, camid: int = 1) -> Features:
    size = len(matrix)
    people = np.ones(size, dtype=np.int64) if pids is None else np.asarray(pids, dtype=np.int64)
    paths = np.array([f"{row}.jpg" for row in range(size)], dtype=object)
    return Features(matrix.astype(np.float32), people, np.full(size, camid, dtype=np.int64), paths)


def dense(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """(Q, G) final distances after Zhong et al. 2017, sections 3.2 to 3.5, with sets and whole matrices in float64.

    As the authors' code has it: an image is its own first neighbour, a neighbour's set joins when it shares strictly
    more than two thirds, and half of an odd k1 is rounded to even.
    """
    everyone = np.concatenate([query, gallery]).astype(float)
    everyone /= np.linalg.norm(everyone, axis=1, keepdims=True)
    original = 2 - 2 * everyone @ everyone.T
    original = (original / original.max(axis=0)).T  # row i: the distances of image i over the largest of them
    nearest = np.argsort(original, axis=1, kind="stable")
    num = len(everyone)

    def mutual(image: int, k: int) -> set[int]:
        return {other for other in nearest[image, : k + 1] if image in nearest[other, : k + 1]}

    codes = np.zeros((num, num))
    for image in range(num):
        core = mutual(image, k1)
        extended = set(core)
        for candidate in core:
            its = mutual(candidate, round(k1 / 2))
            if 3 * len(core & its) > 2 * len(its):
                extended |= its
        for member in extended:
            codes[image, member] = np.exp(-original[image, member])
        codes[image] /= codes[image].sum() or 1
    codes = np.stack([codes[nearest[image, :k2]].mean(axis=0) for image in range(num)])
    final = np.empty((len(query), len(gallery)))
    for row in range(len(query)):
        for column in range(len(gallery)):
            mine, other = codes[row], codes[len(query) + column]
            jaccard = 1 - np.minimum(mine, other).sum() / np.maximum(mine, other).sum()
            final[row, column] = (1 - weight) * jaccard + weight * original[row, len(query) + column]
    return final


def clustered(seed: int, num_query: int, num_gallery: int, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((8, width))
    people = rng.integers(0, 8, num_query + num_gallery)
    points = centres[people] + 0.6 * rng.standard_normal((len(people), width))
    return points[:num_query].astype(np.float32), points[num_query:].astype(np.float32)


def reranked(query: Features, gallery: Features, **options: object) -> np.ndarray:
    return np.stack([block.keys_of(row) for block in rerank(query, gallery, **options) for row in block.rows])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 3), (5, 1), (1, 1), (12, 12), (9, 2)])
def test_equal_to_the_dense_definition(seed: int, k1: int, k2: int):
    query, gallery = clustered(seed, 5 + seed, 30 + 6 * seed)
    weight = (0.3, 0.0, 1.0, 0.7)[seed % 4]
    found = reranked(features(query), features(gallery), k1=k1, k2=k2, weight=weight)
    np.testing.assert_allclose(found, dense(query, gallery, k1, k2, weight), atol=1e-5)


def test_equal_to_the_dense_definition_where_images_are_repeated():
    query, gallery = clustered(1, 6, 40)
    gallery[[7, 20, 21]] = gallery[3]
    gallery[30] = query[2]
    found = reranked(features(query), features(gallery), k1=6, k2=3)
    np.testing.assert_allclose(found, dense(query, gallery, 6, 3, 0.3), atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_a_gallery_smaller_than_k1(size: int):
    query, gallery = clustered(size, 2, size)
    np.testing.assert_allclose(
        reranked(features(query), features(gallery)), dense(query, gallery, 20, 6, 0.3), atol=1e-5
    )


def test_two_images_worked_by_hand():
    """One query and one image at a right angle: both are neighbours of both, and one code is exp(0) : exp(-1)."""
    found = reranked(features(np.eye(2)[:1]), features(np.eye(2)[1:]), k1=1, k2=1, weight=0.25)
    near, far = 1 / (1 + np.exp(-1)), np.exp(-1) / (1 + np.exp(-1))
    assert found[0, 0] == pytest.approx(0.75 * (1 - 2 * far / (2 * near)) + 0.25 * 1)


def test_junk_takes_no_part_and_is_infinitely_far():
    query, gallery = clustered(4, 6, 50)
    pids = np.ones(50, dtype=np.int64)
    pids[[0, 9, 33, 49]] = -1
    with_junk = reranked(features(query), features(gallery, pids))
    np.testing.assert_array_equal(with_junk[:, pids > 0], reranked(features(query), features(gallery[pids > 0])))
    assert np.isinf(with_junk[:, pids < 0]).all()


def test_no_memory_budget_changes_a_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_plan, "_TILE_COLUMNS", 32)
    query, gallery = (features(side) for side in clustered(5, 40, 200))
    whole = reranked(query, gallery)
    for memory_budget in (200_000, 100_000, 1):
        np.testing.assert_array_equal(reranked(query, gallery, memory_budget=memory_budget), whole)


def test_re_ranked_blocks_are_scored_and_listed_like_any_others():
    query, gallery = clustered(6, 8, 60)
    left, right = features(query, [1] * 8), features(gallery, [1, 2, 3] * 20, camid=2)
    scores = evaluate_blocks(rerank(left, right), left, right, PROTOCOLS["market"])
    order = np.argsort(dense(query, gallery, 20, 6, 0.3), axis=1, kind="stable")
    assert scores.first_match_rank.tolist() == [1 + (row % 3).tolist().index(0) for row in order]
    listed = rank_list_of(rerank(left, right), left, right, PROTOCOLS["market"], 5)
    np.testing.assert_array_equal(listed.columns, order[:, :5])


@pytest.mark.parametrize("option", [{"k1": 0}, {"k2": 0}, {"weight": 1.5}, {"weight": -0.1}])
def test_a_setting_without_meaning_is_an_error(option: dict[str, float]):
    query, gallery = (features(side) for side in clustered(7, 3, 9))
    with pytest.raises(OptionError, match="expected k1"):
        reranked(query, gallery, **option)


def test_sides_that_cannot_be_compared_are_an_error_at_once():
    with pytest.raises(DataError, match="gallery is empty"):
        rerank(features(np.ones((2, 3))), features(np.ones((0, 3))))
    with pytest.raises(DataError, match="only junk"):
        rerank(features(np.ones((2, 3))), features(np.ones((2, 3)), [-1, -1]))
    with pytest.raises(DataError, match="width"):
        rerank(features(np.ones((2, 3))), features(np.ones((2, 4))))
