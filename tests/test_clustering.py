"""Clusters of the sparse graph against scikit-learn's on the dense distances, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score
from test_jaccard import clustered, dense

from ptlreid.errors import OptionError
from ptlreid.retrieval.clustering import cluster
from ptlreid.retrieval.jaccard import jaccard_graph


def graph_of(num: int, pairs: dict[tuple[int, int], float]) -> sparse.csr_array:
    """Stored distances of these pairs, in both directions, and of each image to itself."""
    entries = {**{(row, row): 0.0 for row in range(num)}, **pairs, **{(j, i): gap for (i, j), gap in pairs.items()}}
    rows, columns = zip(*sorted(entries), strict=True)
    data = [entries[pair] for pair in sorted(entries)]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num))])
    return sparse.csr_array((np.array(data, dtype=np.float32), np.array(columns), indptr), shape=(num, num))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("repeated", [0, 15])
def test_equal_to_clusters_of_the_dense_distances(seed, repeated):
    matrix = clustered(seed, 90)
    matrix[40 : 40 + repeated] = matrix[39]
    graph = jaccard_graph(matrix, k1=12, k2=4, radius=0.6, memory_budget=None)
    found = cluster(graph, radius=0.6, min_samples=4)
    whole = np.maximum(dense(matrix, 12, 4), 0)
    expected = DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit_predict(whole)
    assert expected.max() >= 2
    np.testing.assert_array_equal(found < 0, expected < 0)
    assert adjusted_rand_score(expected, found) == 1


def test_clusters_are_numbered_by_their_first_image():
    """Image 0 touches the cluster of 2 and 4 and is no core itself; 1, 3 and 5 are another; 6 is near nothing."""
    graph = graph_of(7, {(1, 3): 0.1, (3, 5): 0.1, (1, 5): 0.2, (0, 4): 0.3, (2, 4): 0.0})
    assert cluster(graph, radius=0.5, min_samples=3).tolist() == [0, 1, 0, 1, 0, 1, -1]
    assert cluster(graph, radius=0.5, min_samples=3).dtype == np.int64


def test_images_at_distance_zero_are_neighbours():
    graph = graph_of(5, {(0, 1): 0.0, (0, 2): 0.0, (1, 2): 0.0})
    assert cluster(graph, radius=0.5, min_samples=3).tolist() == [0, 0, 0, -1, -1]


def test_distances_above_the_radius_do_not_count():
    graph = graph_of(3, {(0, 1): 0.5, (1, 2): 0.4})
    assert cluster(graph, radius=0.45, min_samples=2).tolist() == [-1, 0, 0]


def test_the_graph_is_left_as_it_is():
    graph = graph_of(3, {(0, 1): 0.0, (1, 2): 0.4})
    before = graph.copy()
    cluster(graph, radius=0.45, min_samples=2)
    assert graph.nnz == before.nnz
    np.testing.assert_array_equal(graph.toarray(), before.toarray())


def test_no_pairs_make_no_cluster():
    assert cluster(graph_of(3, {}), radius=0.6, min_samples=4).tolist() == [-1, -1, -1]
    assert cluster(graph_of(1, {}), radius=0.6, min_samples=1).tolist() == [0]


@pytest.mark.parametrize("option", [{"radius": 0.0}, {"radius": 1.0}, {"min_samples": 0}])
def test_a_setting_without_meaning_is_an_error(option):
    with pytest.raises(OptionError, match="expected a radius"):
        cluster(graph_of(3, {}), **{"radius": 0.6, "min_samples": 4, **option})
