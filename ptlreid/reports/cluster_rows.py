"""Clusters as rows of crops: which clusters are shown, which of their images, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ptlreid.reports.elements import CropRow, ShownImage, Table

_MOST_CAMERAS = 8  # whose names a heading has; beyond, it has their number


@dataclass(frozen=True)
class ClusteredImages:
    """N images in clusters. `labels`: (N,) integers, -1 for outliers. `similarities`: (N,), to the cluster's centroid.

    `cameras`: (N,) rows of `camera_names`. `paths`: (N,) object array of `Path`. `previous`: (N,) labels from the
    previous epoch, None without one.
    """

    labels: np.ndarray
    similarities: np.ndarray
    cameras: np.ndarray
    camera_names: Sequence[str]
    paths: np.ndarray
    previous: np.ndarray | None = None

    @cached_property
    def new(self) -> np.ndarray:
        """(N,) whether an image came to its cluster in this epoch: see `find_new`. None did without a previous one."""
        if self.previous is None:
            return np.zeros(len(self.labels), dtype=bool)
        return find_new(self.labels, self.previous)

    def clusters(self) -> list[Cluster]:
        """All clusters, in the order of their labels."""
        order = np.argsort(self.labels, kind="stable")
        order = order[self.labels[order] >= 0]
        parts = np.split(order, np.flatnonzero(np.diff(self.labels[order])) + 1)
        return [self._describe(rows) for rows in parts if len(rows)]

    def _describe(self, rows: np.ndarray) -> Cluster:
        values = self.similarities[rows]
        cameras, new = np.unique(self.cameras[rows]), int(self.new[rows].sum())
        low, mean, high = float(values.min()), float(values.mean()), float(values.max())
        return Cluster(int(self.labels[rows[0]]), rows, cameras, new, low, mean, high)


@dataclass(frozen=True)
class Cluster:
    """One cluster: the `rows` of its images, ascending; `cameras`: the distinct ones; `new`: how many images are new.

    `low`, `mean`, `high`: of the similarities of its images to its centroid.
    """

    label: int
    rows: np.ndarray
    cameras: np.ndarray
    new: int
    low: float
    mean: float
    high: float


def find_new(labels: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """(N,) whether the previous cluster of an image was another than that which its cluster continues, or none.

    A cluster continues a previous one if each shares more images with the other than with any third; among equals,
    the one with the lower label counts. An outlier is not new.
    """
    both = np.flatnonzero((labels >= 0) & (previous >= 0))
    width = int(previous.max(initial=0)) + 1
    pairs, members, counts = np.unique(labels[both] * width + previous[both], return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")  # the largest overlap first, then the lower labels
    now, before = (order[np.unique(side[order], return_index=True)[1]] for side in np.divmod(pairs, width))
    new = labels >= 0
    new[both[np.isin(members, np.intersect1d(now, before))]] = False
    return new


def choose(clusters: Sequence[Cluster], key: Callable[[Cluster], tuple[float, ...]], count: int) -> list[Cluster]:
    """The `count` clusters with the lowest `key`; among equals, the one whose first image comes first."""
    return sorted(clusters, key=lambda one: (*key(one), int(one.rows[0])))[:count]


def show_cluster(images: ClusteredImages, cluster: Cluster, size: int) -> CropRow:
    """At most `size` of the cluster's images, most similar first, evenly spaced from the first to the last."""
    order = cluster.rows[np.argsort(-images.similarities[cluster.rows], kind="stable")]
    text = f"{_count(len(cluster.rows), 'image')} · {_name_cameras(images, cluster.cameras)} · similarity "
    text += f"{cluster.low:.2f} to {cluster.high:.2f}, mean {cluster.mean:.2f}"
    text += f" · {cluster.new} new" if images.previous is not None else ""
    return _show(images, f"Cluster {cluster.label}", text, _space(order, size))


def show_outliers(images: ClusteredImages, size: int) -> CropRow:
    """At most `size` of the images that are in no cluster, evenly spaced over their order."""
    rows = np.flatnonzero(images.labels < 0)
    chosen = _space(rows, size)
    return _show(images, "Outliers", f"{len(chosen):,} of {_count(len(rows), 'image')} in no cluster", chosen)


def _show(images: ClusteredImages, title: str, description: str, rows: np.ndarray) -> CropRow:
    shown, table = [], []
    for row in rows:
        path, camera, new = images.paths[row], images.camera_names[images.cameras[row]], bool(images.new[row])
        inside = images.labels[row] >= 0
        similarity = f"{images.similarities[row]:.2f}" if inside else "–"
        lines = [*([similarity] if inside else []), f"camera {camera}", *(["new"] if new else [])]
        alt = f"{title}: camera {camera}" + (f", similarity {similarity}" if inside else "") + (", new" if new else "")
        shown.append(ShownImage(path, lines, f"{alt}, {path.name}", new))
        before = "–" if images.previous is None else _name_cluster(int(images.previous[row]))
        table.append([path.name, camera, similarity, before])
    return CropRow(title, description, shown, Table(("file", "camera", "similarity", "cluster before"), table))


def _space(rows: np.ndarray, size: int) -> np.ndarray:
    """At most `size` of the rows, evenly spaced, with the first and the last."""
    return rows[np.linspace(0, len(rows) - 1, min(size, len(rows))).round().astype(np.int64)]


def _name_cluster(label: int) -> str:
    return str(label) if label >= 0 else "none"


def _name_cameras(images: ClusteredImages, cameras: np.ndarray) -> str:
    names = [images.camera_names[camera] for camera in cameras]
    if len(names) > _MOST_CAMERAS:
        return _count(len(names), "camera")
    return f"camera{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
