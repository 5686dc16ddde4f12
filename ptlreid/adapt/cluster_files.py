"""The clusters of one epoch in the run folder, for reports and other programs: docs/file-formats.md."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ptlreid import contents
from ptlreid.errors import DataError
from ptlreid.files import atomic_write
from ptlreid.records import Records
from ptlreid.retrieval.array_files import read_arrays
from ptlreid.runs import RunFolder

_NAMES = ("labels", "similarities", "camids", "sources", "paths")


def write_clusters(file: Path, records: Records, features: np.ndarray, labels: np.ndarray) -> None:
    """Write the clusters of N images, with paths relative to the dataset and similarities to the centroids."""
    file.parent.mkdir(parents=True, exist_ok=True)
    named = _name_images(records)
    with atomic_write(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            labels=labels,
            similarities=_similarities(features, labels),
            camids=named["camids"],
            sources=named["sources"],
            paths=named["paths"],
        )


def find_epochs(run: RunFolder) -> list[int]:
    """The epochs, from 0, whose clusters are in the run's folder, ascending."""
    names = [file.stem for file in run.clusters(0).parent.glob("*.npz")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def read_clusters(file: Path, records: Records) -> tuple[np.ndarray, np.ndarray]:
    """(N,) labels and (N,) similarities of the images `records`, as `write_clusters` wrote them.

    `DataError` if the file is damaged, or of other images.
    """
    unsound = DataError(f"{file}: damaged, or not clusters of images. Remove it, or adapt again under another --name.")
    try:
        found = read_arrays(file, _NAMES).arrays
    except DataError:
        raise unsound from None
    labels, similarities = (found.get(name, np.empty(0)) for name in ("labels", "similarities"))
    sound = (
        set(found) == set(_NAMES)
        and labels.ndim == 1
        and labels.dtype == np.int64
        and similarities.dtype == np.float32
        and all(array.shape == labels.shape for array in found.values())
        and bool((np.isfinite(similarities) == (labels >= 0)).all())
        and bool((labels >= -1).all())
    )
    if not sound:
        raise unsound
    if any(not np.array_equal(found[name], values) for name, values in _name_images(records).items()):
        raise DataError(
            f"{file}: is of other images than the {len(records):,} training images that were found: expected those "
            "that the run was adapted to. Restore the dataset, or adapt again under another --name."
        )
    return labels, similarities


def _name_images(records: Records) -> dict[str, np.ndarray]:
    paths = [os.path.relpath(path, contents.dataset_folder(path)) for path in records.paths]
    return {"camids": records.camids, "sources": records.sources.astype(str), "paths": np.array(paths)}


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
