"""Sparse Jaccard distances of all images against the dense definition, written here slowly from the paper."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from ptlreid.errors import DataError, OptionError
from ptlreid.retrieval import jaccard, memory_plan
from ptlreid.retrieval.jaccard import jaccard_graph
from ptlreid.retrieval.memory_plan import plan_blocks

PAPER = {"k1": 30, "k2": 6}


def dense(matrix: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """(N, N) distances after Zhong et al. 2017, sections 3.2 to 3.4, with sets and sums in float64.

    As the authors' code has it: an image is its own first neighbour, a neighbour's set joins when it shares strictly
    more than two thirds, and half of an odd k1 is rounded to even.
    """
    num = len(matrix)
    lengths = np.linalg.norm(matrix.astype(float), axis=1, keepdims=True)
    vectors = matrix / np.where(lengths > 0, lengths, 1)
    original = np.array([[np.square(one - other).sum() for other in vectors] for one in vectors])
    nearest = np.argsort(original, axis=1, kind="stable")
    original /= np.where(original.max(axis=1) > 0, original.max(axis=1), 1)[:, None]

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
    minima = np.array([[np.minimum(one, other).sum() for other in codes] for one in codes])
    maxima = np.array([[np.maximum(one, other).sum() for other in codes] for one in codes])
    return 1 - minima / maxima


def clustered(seed: int, num: int, width: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((8, width))[rng.integers(0, 8, num)]
    return (points + 0.6 * rng.standard_normal((num, width))).astype(np.float32)


def assert_equal_to_dense(matrix: np.ndarray, k1: int, k2: int, radius: float) -> None:
    found = jaccard_graph(matrix, k1=k1, k2=k2, radius=radius, memory_budget=None)
    expected = dense(matrix, k1, k2)
    stored = found.tocoo()
    np.testing.assert_allclose(stored.data, expected[stored.row, stored.col], atol=2e-6)
    missing = np.ones(expected.shape, dtype=bool)
    missing[stored.row, stored.col] = False
    assert (expected[missing] > radius - 2e-6).all()
    assert (stored.data <= radius).all()
    assert found.has_canonical_format  # ascending columns, none twice


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("k1", "k2", "radius"), [(20, 6, 0.6), (7, 3, 0.99), (5, 1, 0.5), (1, 1, 0.7), (9, 10, 0.3)])
def test_equal_to_the_dense_definition(seed, k1, k2, radius):
    assert_equal_to_dense(clustered(seed, 20 + 10 * seed), k1, k2, radius)


@pytest.mark.parametrize("num", [1, 2, 3, 12])
def test_fewer_images_than_neighbours(num):
    assert_equal_to_dense(clustered(num, num), 30, 6, 0.99)


def test_repeated_images_are_stored_at_distance_zero():
    matrix = clustered(1, 60)
    matrix[[7, 20, 21]] = matrix[3]
    matrix[[5, 50]] = matrix[30]
    assert_equal_to_dense(matrix, 12, 4, 0.6)
    found = jaccard_graph(matrix, k1=12, k2=4, radius=0.6, memory_budget=None)
    pairs = {(int(row), int(column)) for row, column in zip(*found.tocoo().coords, strict=True)}
    zeros = {(row, column) for row, column in pairs if found[row, column] == 0}
    same = {(row, column) for row in range(60) for column in range(60) if (matrix[row] == matrix[column]).all()}
    assert same <= zeros


@pytest.mark.parametrize("k2", [1, 6])
def test_more_copies_of_an_image_than_neighbours(k2):
    """All copies have the same neighbours, the first ones, so that those are in the encoding of every copy."""
    matrix = clustered(2, 40)
    matrix[10:30] = matrix[9]
    assert_equal_to_dense(matrix, 8, k2, 0.6)
    found = jaccard_graph(matrix, k1=8, k2=k2, radius=0.6, memory_budget=None)
    assert found[9:30, 9:30].nnz == 21 * 21
    assert found[9:30, 9:30].max() == 0


def test_ties_between_different_images():
    """Unit vectors along the axes: each is at one distance from all others, and at twice that from its opposite."""
    matrix = np.concatenate([np.eye(12), -np.eye(12)]).astype(np.float32)
    assert_equal_to_dense(matrix, 6, 3, 0.9)


def test_zero_vectors_are_images_like_any_other():
    matrix = np.concatenate([np.zeros((3, 8)), np.eye(8), np.zeros((2, 8))]).astype(np.float32)
    assert_equal_to_dense(matrix, 4, 2, 0.9)


def test_the_length_of_a_feature_does_not_matter():
    matrix = clustered(3, 50)
    longer = matrix * 2.0 ** np.random.default_rng(0).integers(-4, 5, (50, 1))
    graphs = [
        jaccard_graph(one.astype(np.float32), **PAPER, radius=0.6, memory_budget=None) for one in (matrix, longer)
    ]
    np.testing.assert_array_equal(graphs[0].toarray(), graphs[1].toarray())


def test_symmetric_to_the_last_bit():
    found = jaccard_graph(clustered(4, 200), **PAPER, radius=0.8, memory_budget=None)
    assert_same(found, found.T.tocsr())


def test_two_images_worked_by_hand():
    """At a right angle: both are neighbours of both, and one code is exp(0) : exp(-1)."""
    found = jaccard_graph(np.eye(2, dtype=np.float32), k1=1, k2=1, radius=0.9, memory_budget=None)
    near, far = 1 / (1 + np.exp(-1)), np.exp(-1) / (1 + np.exp(-1))
    distance = 1 - 2 * far / (2 * near)
    np.testing.assert_allclose(found.toarray(), [[0, distance], [distance, 0]], atol=1e-6)


def test_no_memory_budget_changes_a_bit(monkeypatch):
    monkeypatch.setattr(memory_plan, "_TILE_COLUMNS", 32)
    matrix = clustered(5, 300)
    whole = jaccard_graph(matrix, **PAPER, radius=0.6, memory_budget=None)
    for memory_budget in (300_000, 100_000, 1):
        assert_same(jaccard_graph(matrix, **PAPER, radius=0.6, memory_budget=memory_budget), whole)
    monkeypatch.setattr(jaccard, "_LONGEST_BLOCK", 10_000)
    assert_same(jaccard_graph(matrix, **PAPER, radius=0.6, memory_budget=None), whole)


def assert_same(one: sparse.csr_array, other: sparse.csr_array) -> None:
    np.testing.assert_array_equal(one.indptr, other.indptr)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.data, other.data)


@pytest.mark.parametrize("option", [{"k1": 0}, {"k2": 0}, {"radius": 1.0}, {"radius": -0.1}, {"radius": float("nan")}])
def test_a_setting_without_meaning_is_an_error(option):
    with pytest.raises(OptionError, match="expected k1"):
        jaccard_graph(clustered(6, 9), **{**PAPER, "radius": 0.6, **option}, memory_budget=None)


def test_no_images_are_an_error():
    with pytest.raises(DataError, match="no features to cluster"):
        jaccard_graph(np.empty((0, 4), dtype=np.float32), **PAPER, radius=0.6, memory_budget=None)


def test_memory_stays_within_what_is_stated():
    """A copy of the features, the blocks, 4 kB per image, and 8 bytes per pair, twice while parts are joined."""
    rng = np.random.default_rng(0)
    matrix = np.repeat(rng.standard_normal((400, 16), dtype=np.float32), 20, axis=0)
    matrix += 0.5 * rng.standard_normal(matrix.shape, dtype=np.float32)
    budget = 10_000_000
    tracemalloc.start()
    graph = jaccard_graph(matrix, **PAPER, radius=0.6, memory_budget=budget)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stated = matrix.nbytes + plan_blocks(8000, 8000, 16, budget).peak_bytes + 8000 * 4096 + 2 * 8 * graph.nnz
    assert graph.nnz > 10 * 8000
    assert peak <= stated < 4 * 8000**2 / 3  # a third of a dense matrix
