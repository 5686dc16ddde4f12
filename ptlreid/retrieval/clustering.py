"""Clusters of images from the distances between near pairs.

Published settings of pseudo-labels for person ReID are those of SpCL (Ge et al., NeurIPS 2020, by its authors' code):
k1 30, k2 6, `radius` 0.6 and `min_samples` 4. MMT's DBSCAN (Ge et al., ICLR 2020, by its authors' code) has
`min_samples` 4, too, and as radius the mean of the smallest 0.16% of all distances in the first epoch, which is not
offered here.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ptlreid.errors import OptionError


def cluster(graph: sparse.csr_array, *, radius: float, min_samples: int) -> np.ndarray:
    """(N,) int64: the cluster of each image, numbered from 0 by each one's first image, and -1 for outliers.

    DBSCAN (Ester et al., KDD 1996) by scikit-learn. An image with at least `min_samples` within `radius`, itself
    included, is a core of a cluster; a cluster has the cores that are within `radius` of one another, directly or by
    way of other cores, and all images near them. An image near cores of several clusters is in the one whose first core
    comes first. (HDBSCAN needs a graph in one piece, which this is not.) `graph`: (N, N), as `jaccard_graph` makes it:
    a stored entry is a distance, also where it is 0.
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import sort_graph_by_row_values

    if not 0 < radius < 1 or min_samples < 1:
        raise OptionError(
            f"radius {radius}, min_samples {min_samples}: expected a radius between 0 and 1, min_samples of 1 or more."
        )
    # scikit-learn 1.5 warns where rows are not in the order of their distances.
    ordered = sort_graph_by_row_values(graph, copy=True, warn_when_not_sorted=False)
    found = DBSCAN(eps=radius, min_samples=min_samples, metric="precomputed").fit(ordered).labels_
    return _number_by_first_image(found)


def _number_by_first_image(labels: np.ndarray) -> np.ndarray:
    """(N,) int64: the same clusters, numbered in the order of their first images."""
    clusters, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    numbers = np.full(len(clusters), -1, dtype=np.int64)
    real = np.flatnonzero(clusters >= 0)
    numbers[real[np.argsort(first[real])]] = np.arange(len(real))
    return numbers[inverse]
