"""The gate of `ptlreid export`: a graph in its own runtime, or features from another program, against the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid.errors import DataError, ExportError
from ptlreid.export import card as cards
from ptlreid.export.gate import BATCHES, Comparison, FeatureGap, compare, find_faults, sample_test_set
from ptlreid.export.runtimes import changed_weights
from ptlreid.export.source import Source
from ptlreid.export.speed import SIZES, measure_speed
from ptlreid.features import Extractor
from ptlreid.models.graph_file import GraphFile
from ptlreid.progress import Progress
from ptlreid.records import Records, Splits
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.types import Features, Retrieval
from ptlreid.runs import test_set_digest
from ptlreid.views import decode, resize


def gate_graph(
    source: Source, graph: GraphFile, tensors: Mapping[str, np.ndarray], file: Path, progress: Progress
) -> dict[str, Any]:
    """What was compared, and the speeds. `tensors`: the run's, by the names they have in an ONNX graph; may be empty.

    `file`: what messages call the graph. Raises `ExportError` for one that does not agree with the run.
    """
    settings = source.settings
    sample = sample_test_set(source.splits, settings)
    own = {name: None for name in ("flip", "normalize") if getattr(graph.readout, name)}
    exported = Extractor.from_graph(
        graph, settings.model_copy(update=own | {"weights": "last"})
    )  # a graph has one set of weights
    with progress.task("compare features", None):
        before = source.extract(source.extractor, sample, progress)
        after = source.extract(exported, sample, progress)
        batches = _compare_batches(source, exported, sample.query, after.query.matrix)
    changed = changed_weights(graph.path, tensors) if tensors else []
    thresholds = cards.own_thresholds(source.calibration)
    comparison = compare(before, after, thresholds, settings, batch_gaps=batches, weights_changed=changed)
    found = _describe(source, sample, comparison, file)
    return found | ({"speed": _measure(source, exported, sample, progress)} if settings.speed else {})


def gate_features(source: Source, file: Path, progress: Progress) -> dict[str, Any]:
    """What was compared of a file with features of the test images, by another program or machine.

    Raises `ExportError` for features that do not agree with the run, `DataError` for images that are missing.
    """
    sample = sample_test_set(source.splits, source.settings)
    features = feature_files.read(file)
    rows = {str(Path(path).absolute()): row for row, path in enumerate(features.paths)}
    with progress.task("compare features", None):
        before = source.extract(source.extractor, sample, progress)
    after = Retrieval(
        _find_features(features, sample.query, rows, file),
        _find_features(features, sample.gallery, rows, file),
        before.protocol,
    )
    if features.width != before.query.width:
        raise DataError(
            f"{file}: features of width {features.width}, expected {before.query.width}, as {source.run.path} has. "
            "Extract them with the graph of this run."
        )
    thresholds = cards.own_thresholds(source.calibration)
    comparison = compare(before, after, thresholds, source.settings, batch_gaps={}, weights_changed=[])
    return _describe(source, sample, comparison, file)


def _find_features(features: Features, images: Records, rows: Mapping[str, int], file: Path) -> Features:
    """The features of these images, by path."""
    names = [str(Path(path).absolute()) for path in images.paths]
    missing = [name for name in names if name not in rows]
    if missing:
        raise DataError(
            f"{file}: has no features of {len(missing):,} of {len(names):,} test images, such as {missing[0]}: "
            "expected all of the query and gallery images. Extract them, with their paths."
        )
    found = features.matrix[[rows[name] for name in names]]
    paths = np.array([str(path) for path in images.paths], dtype=object)
    return Features(found, images.pids, images.camids, paths, images.clothes)


def _describe(source: Source, sample: Splits, comparison: Comparison, file: Path) -> dict[str, Any]:
    """The comparison for the card; `ExportError` if it is beyond the limits."""
    settings = source.settings
    if faults := find_faults(comparison, settings):
        raise ExportError(
            f"{file}: does not agree with {source.run.path}: {'; '.join(faults)}: expected features within the limits. "
            f"{_advise(comparison, source)}"
        )
    about = {"data": source.splits.name, "images": len(sample.query) + len(sample.gallery)}
    limits = {
        "min_cosine": settings.cosine_limit,
        "max_relative": settings.difference_limit,
        "max_map_loss": settings.max_map_loss,
    }
    return about | {"test_images": test_set_digest(sample), "limits": limits} | comparison.describe()


def _advise(comparison: Comparison, source: Source) -> str:
    if source.settings.half and not comparison.weights_changed:
        return "Leave --half out, or choose other limits with --min-cosine, --max-difference and --max-map-loss."
    return "Check the preprocessing and the weights of the graph, or export it again."


def _compare_batches(
    source: Source, exported: Extractor, images: Records, features: np.ndarray
) -> dict[int, FeatureGap]:
    """How far features of the first images change in batches of other sizes."""
    some = source.place(images.select(np.arange(min(len(images), max(BATCHES)))))
    found = {}
    for size in BATCHES:
        resized = replace(exported, batch_size=size)
        vars(resized)["network"] = exported.network  # it is loaded once
        found[size] = FeatureGap.between(features[: len(some)], resized.extract(some).matrix)
    return found


def _measure(source: Source, exported: Extractor, sample: Splits, progress: Progress) -> dict[str, Any]:
    """Images per second, with the threads that torch has."""
    import torch

    pixels = [decode(path) for path in sample.query.paths[: max(SIZES)]]
    runs = {
        name: (lambda batch, one=one: one.run_batch(batch))
        for name, one in (("graph", exported), ("torch", source.extractor))
    }
    with progress.task("measure speed", None):
        speeds = measure_speed(runs, resize(pixels, source.extractor.view))
    devices = {"graph": str(exported.placement.device), "torch": str(source.extractor.placement.device)}
    return {"threads": torch.get_num_threads(), "devices": devices, "images_per_second": speeds}
