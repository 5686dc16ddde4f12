"""What can be said of clusters without labels: their number, sizes, cameras, and agreement with earlier ones.

None of these figures is an accuracy: clusters of several identities, or many of one identity, can look as good.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

_PERMUTATIONS = 100  # a standard error of 0.0014 with 50 clusters of 8 images and 4 cameras

# Our choices, for warnings only. Few images are about three times the usual k1. The excess is the part of the way from
# the purity by chance to a purity of 1. On a synthetic site of four cameras (k1 10, three networks) it was 0.29 to 0.44
# where clusters followed cameras, and at most 0.21 with features centred per camera.
_FEW_IMAGES = 100
_MOST_IMAGES = 0.5
_MOST_OUTLIERS = 0.9
_CAMERA_EXCESS = 0.4
_FEW_SEVERAL = 0.25


@dataclass(frozen=True)
class ClusterStatistics:
    """Figures of one clustering; shares are from 0 to 1, and None where nothing defines them.

    `smallest`, `median_size`, `largest`: images per cluster, 0 without clusters. `cameras`: those of all images, and
    `several_cameras` the share of clusters with images from two or more. `camera_purity`: the share of clustered images
    that are from the most frequent camera of their cluster. `chance_purity`: the same if the cameras of the clustered
    images were spread over clusters of these sizes at random, the mean of 100 seeded permutations. `agreement`: the
    adjusted Rand index (Hubert and Arabie, 1985) with the previous clusters, on the images that are in a cluster both
    times, at least two.
    """

    images: int
    outliers: int
    cameras: int
    clusters: int = 0
    smallest: int = 0
    median_size: float = 0.0
    largest: int = 0
    several_cameras: float | None = None
    camera_purity: float | None = None
    chance_purity: float | None = None
    agreement: float | None = None

    def describe(self) -> dict[str, Any]:
        """The figures by name, for JSON."""
        return asdict(self)

    def warnings(self) -> list[str]:
        """What is doubtful about the clusters, a sentence or two each; empty if nothing is."""
        found = []
        if self.images < _FEW_IMAGES:
            found.append(
                f"There are {self.images} images to cluster: expected {_FEW_IMAGES} or more, so that an image has "
                "others of its identity among its neighbours. Add images."
            )
        if not self.clusters:
            found.append(
                f"None of {self.images} images is in a cluster: there is nothing to learn from. Use a larger radius or "
                "a smaller min_samples, or more images of each identity."
            )
        elif self.outliers > _MOST_OUTLIERS * self.images:
            found.append(
                f"{self.outliers} of {self.images} images are outliers: expected at most {_MOST_OUTLIERS:.0%}. Use a "
                "larger radius or a smaller min_samples, or more images of each identity."
            )
        if self.largest > _MOST_IMAGES * self.images:
            found.append(
                f"One cluster has {self.largest} of {self.images} images: expected one identity in a cluster. Use a "
                "smaller k1 (no more than the images of an identity) or a smaller radius."
            )
        return found + self._camera_warnings()

    def _camera_warnings(self) -> list[str]:
        if self.cameras == 1:
            return [
                "All images are from one camera: nothing is learned about differences between cameras. Check that the "
                "dataset states the cameras, or add images from others."
            ]
        if self.several_cameras is None or self.camera_purity is None or self.chance_purity is None:
            return []
        if self.camera_purity - self.chance_purity > _CAMERA_EXCESS * (1 - self.chance_purity):
            return [
                f"Clusters follow cameras: {self.camera_purity:.0%} of the clustered images are from the main camera "
                f"of their cluster, expected {self.chance_purity:.0%} by chance. Unless few identities pass several "
                "cameras, adapt to the cameras first."
            ]
        if self.several_cameras < _FEW_SEVERAL:
            return [
                f"{self.several_cameras:.0%} of the clusters have images from several cameras: expected "
                f"{_FEW_SEVERAL:.0%} or more. Unless few identities pass several cameras, adapt to the cameras first."
            ]
        return []


def measure_clusters(labels: np.ndarray, cameras: np.ndarray, previous: np.ndarray | None = None) -> ClusterStatistics:
    """The figures of clusters, `labels`: (N,) integers, -1 for outliers, and N >= 1.

    `cameras`: (N,) integers, one for each camera. `previous`: (N,) labels of the same images from the previous epoch.
    """
    inside = labels >= 0
    sizes = np.unique(labels[inside], return_counts=True)[1]
    names, columns = np.unique(cameras, return_inverse=True)
    outliers = len(labels) - int(np.count_nonzero(inside))
    if not len(sizes):
        return ClusterStatistics(images=len(labels), outliers=outliers, cameras=len(names))
    counts = partial(_count, np.unique(labels[inside], return_inverse=True)[1])
    generator = np.random.default_rng(0)
    chance = [_purity(counts(generator.permutation(columns[inside]))) for _ in range(_PERMUTATIONS)]
    return ClusterStatistics(
        images=len(labels),
        outliers=outliers,
        cameras=len(names),
        clusters=len(sizes),
        smallest=int(sizes.min()),
        median_size=float(np.median(sizes)),
        largest=int(sizes.max()),
        several_cameras=float((np.count_nonzero(counts(columns[inside]), axis=1) > 1).mean()),
        camera_purity=_purity(counts(columns[inside])),
        chance_purity=float(np.mean(chance)),
        agreement=None if previous is None else _agreement(labels, previous),
    )


def _count(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(K, C): how often each row goes with each column, both (N,) and from 0."""
    shape = int(rows.max()) + 1, int(columns.max()) + 1
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)


def _purity(counts: np.ndarray) -> float:
    """The share of images that are from the most frequent camera of their cluster, `counts`: (K, C)."""
    return float(counts.max(axis=1).sum() / counts.sum())


def _agreement(labels: np.ndarray, previous: np.ndarray) -> float | None:
    from sklearn.metrics import adjusted_rand_score

    both = (labels >= 0) & (previous >= 0)
    if np.count_nonzero(both) < 2:
        return None
    return float(adjusted_rand_score(previous[both], labels[both]))
