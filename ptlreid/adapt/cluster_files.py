"""The clusters of one epoch in the run folder, for reports and other programs: docs/file-formats.md."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ptlreid import contents
from ptlreid.files import atomic_write
from ptlreid.records import Records


def write_clusters(file: Path, records: Records, features: np.ndarray, labels: np.ndarray) -> None:
    """Write the clusters of N images, with paths relative to the dataset and similarities to the centroids."""
    file.parent.mkdir(parents=True, exist_ok=True)
    paths = [os.path.relpath(path, contents.dataset_folder(path)) for path in records.paths]
    with atomic_write(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            labels=labels,
            similarities=_similarities(features, labels),
            camids=records.camids,
            sources=records.sources.astype(str),
            paths=np.array(paths),
        )


def _similarities(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) float32: the cosine of each image and its cluster's centroid, the mean of its normalised features; NaN for
    outliers."""
    vectors = _normalise(features)
    kept = labels >= 0
    centroids = np.zeros((labels.max() + 1, features.shape[1]), dtype=np.float32)
    np.add.at(centroids, labels[kept], vectors[kept])
    found = np.full(len(labels), np.nan, dtype=np.float32)
    found[kept] = (vectors[kept] * _normalise(centroids)[labels[kept]]).sum(axis=1)
    return found


def _normalise(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
