"""The page of the clusters of one epoch: rows of crops, to see whether a cluster is one identity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptlreid.reports.cluster_rows import Cluster, ClusteredImages, choose, show_cluster, show_outliers
from ptlreid.reports.elements import Section, Table, format_number, format_percent
from ptlreid.reports.page import Page
from ptlreid.retrieval.cluster_statistics import ClusterStatistics, measure_clusters

_CLUSTERS = 12  # rows of a section
_IMAGES = 10  # crops of a row
_SUMMARY = (
    "A cluster should show one identity, from several cameras. Clusters are found without identities: no figure on "
    "this page measures accuracy. Look through the rows."
)
_ROWS = (
    "Each row has images of one cluster, the most similar to its centroid first, evenly spaced if there are more than "
    f"{_IMAGES}. Below each: its similarity (cosine) to the centroid, and its camera. Dashed frame and “new”: in the "
    "previous epoch, the image was in another cluster, or in none."
)


def make_cluster_page(title: str, subtitle: str, images: ClusteredImages, *, report_url: str = "") -> Page:
    """The page of clusters: the largest, the newest, the least sure, those of one camera, and outliers.

    `report_url`: of the page of their run.
    """
    statistics = measure_clusters(images.labels, images.cameras, images.previous)
    clusters = images.clusters()
    rows = [[name, value] for name, value in _describe(images, statistics, clusters).items()]
    links = {}
    if report_url:
        rows.append(["Report of the run", "scores, cameras, and clusters over epochs"])
        links["Report of the run"] = report_url
    summary = Section("summary", "Summary", [_SUMMARY], tables=[Table(("", ""), rows, links)])
    return Page(title, subtitle, [summary, *_show_clusters(images, clusters)], notes=statistics.warnings())


def _describe(images: ClusteredImages, statistics: ClusterStatistics, clusters: Sequence[Cluster]) -> dict[str, str]:
    found = {"Images": f"{statistics.images:,} from {statistics.cameras:,} camera{_plural(statistics.cameras)}"}
    found["Outliers"] = f"{statistics.outliers:,} ({format_percent(statistics.outliers / statistics.images)}%)"
    found["Clusters"] = f"{len(clusters):,}"
    if not clusters:
        return found
    found["Images of a cluster"] = (
        f"{statistics.smallest:,} to {statistics.largest:,}, median {format_number(statistics.median_size)}"
    )
    if images.previous is not None:
        found["New images"] = f"{int(images.new.sum()):,} of {statistics.images - statistics.outliers:,} in clusters"
    if statistics.agreement is not None:
        found["Agreement with the previous epoch"] = f"{statistics.agreement:.2f} (adjusted Rand index; 1: the same)"
    if statistics.cameras > 1 and statistics.several_cameras is not None:
        found["From several cameras"] = f"{format_percent(statistics.several_cameras)}% of the clusters"
    if statistics.cameras > 1 and statistics.camera_purity is not None and statistics.chance_purity is not None:
        found["Camera purity"] = (
            f"{format_percent(statistics.camera_purity)}% of the images are from the main camera of their cluster; "
            f"{format_percent(statistics.chance_purity)}% by chance"
        )
    return found


def _show_clusters(images: ClusteredImages, clusters: Sequence[Cluster]) -> list[Section]:
    """A section for each choice of clusters; those without any are left out."""
    newest = [one for one in clusters if one.new]
    alone = [one for one in clusters if len(one.cameras) == 1] if len(np.unique(images.cameras)) > 1 else []
    choices = [
        ("largest", "Largest clusters", _ROWS, choose(clusters, lambda one: (-len(one.rows),), _CLUSTERS)),
        (
            "newest",
            "Newest clusters",
            "Those with the largest share of new images; among equals, the larger ones first.",
            choose(newest, lambda one: (-one.new / len(one.rows), -len(one.rows)), _CLUSTERS),
        ),
        (
            "least-sure",
            "Least sure clusters",
            "Those whose images are least similar to their centroid, by the mean.",
            choose(clusters, lambda one: (one.mean,), _CLUSTERS),
        ),
        (
            "one-camera",
            "Clusters of one camera",
            f"The largest of {len(alone):,} cluster{_plural(len(alone))} with images from one camera only: nothing is "
            "learned from them about differences between cameras. They are right for an identity that passes one "
            "camera only.",
            choose(alone, lambda one: (-len(one.rows),), _CLUSTERS),
        ),
    ]
    sections = [
        Section(name, title, [text], crop_rows=[show_cluster(images, one, _IMAGES) for one in chosen])
        for name, title, text, chosen in choices
        if chosen
    ]
    if (images.labels < 0).any():
        text = "Images that are in no cluster, evenly spaced over the order of the dataset."
        sections.append(Section("outliers", "Outliers", [text], crop_rows=[show_outliers(images, 2 * _IMAGES)]))
    return sections


def _plural(count: int) -> str:
    return "" if count == 1 else "s"
