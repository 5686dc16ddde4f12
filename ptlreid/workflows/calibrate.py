"""`ptlreid calibrate`: thresholds on the distance, of a run on a dataset or of two feature files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import distributed
from ptlreid.calibrations import EQUAL_ERROR, FeatureOrigin, name_far, name_open_set, save_calibration
from ptlreid.errors import DataError
from ptlreid.evaluation import load_retrieval, read_retrieval
from ptlreid.features import Extractor
from ptlreid.progress import Progress, Silent
from ptlreid.records import Splits
from ptlreid.retrieval.accepted import count_accepted
from ptlreid.retrieval.open_set import Answers, OpenSet
from ptlreid.retrieval.thresholds import OperatingPoint, PairCounts, count_pairs
from ptlreid.retrieval.types import Retrieval
from ptlreid.runs import RunFolder, test_set_digest
from ptlreid.settings import CalibrateSettings
from ptlreid.workflows.evaluate import preview_files, preview_run
from ptlreid.workflows.realised_rates import describe_rates, describe_search, find_answers, make_pairs

__all__ = ["calibrate_files", "calibrate_run", "preview_files", "preview_run"]

_CURVE_RATES = np.logspace(-6, 0, 61)[:-1]


def calibrate_run(run: RunFolder, splits: Splits, settings: CalibrateSettings, progress: Progress) -> dict[str, Any]:
    """The operating points of the run on the test set of `splits`, which are also saved in the run folder."""
    extractor = Extractor.from_run(run, settings)
    retrieval = load_retrieval(run, splits, settings, progress, extractor=extractor)

    def measure() -> dict[str, Any]:
        calibration: Any = {
            **FeatureOrigin.of(extractor, settings.metric).describe(),
            "data": splits.name,
            "test_images": test_set_digest(splits),
            **_calibrate(retrieval, settings, progress),
        }
        replaced = save_calibration(run, calibration, progress)
        if replaced and replaced != splits.name:
            progress.note(f"{run.thresholds.name}: replaced the thresholds of the same features on {replaced}")
        return {"run": str(run.path), "thresholds": str(run.thresholds), **calibration}

    return distributed.run_on_main(measure)


def calibrate_files(query: Path, gallery: Path, settings: CalibrateSettings, progress: Progress) -> dict[str, Any]:
    """The operating points of two feature files, from any program; nothing is saved."""
    retrieval = read_retrieval(query, gallery, settings, progress)
    files = {"query": str(query), "gallery": str(gallery)}
    return {"files": files, "metric": settings.metric, **_calibrate(retrieval, settings, progress)}


def _calibrate(retrieval: Retrieval, settings: CalibrateSettings, progress: Progress) -> dict[str, Any]:
    """The part of a calibration that is measured."""
    counts, points = _measure_pairs(retrieval, settings, progress)
    answers = find_answers(retrieval, settings, progress)
    query, gallery = retrieval.query, retrieval.gallery
    found: dict[str, Any] = {
        "protocol": retrieval.protocol.name,
        "cameras": {name: np.unique(side.camids).tolist() for name, side in (("query", query), ("gallery", gallery))},
        "pairs": _count(counts),
        "operating_points": points,
        "open_set": _describe_searches(answers, settings) if answers else [],
        "open_set_split": _describe_split(answers) if answers else None,
        "curves": {"roc": _roc(counts), "open_set": _open_set_curve(answers) if answers else []},
        "bootstrap": settings.bootstrap,
        "seed": settings.seed,
    }
    if settings.per_camera:
        found["camera_pairs"] = _calibrate_cameras(retrieval, settings, progress)
    return found


def _measure_pairs(
    retrieval: Retrieval, settings: CalibrateSettings, progress: Progress
) -> tuple[PairCounts, list[dict[str, Any]]]:
    """The pairs by distance, and the operating points: the EER's, then one for each FAR."""
    rates = settings.false_accept_rates
    counts = count_pairs(make_pairs(retrieval, settings, progress, "count pairs"), rates)
    found: dict[str, OperatingPoint | None] = {EQUAL_ERROR: counts.equal_error_point()}
    found |= {name_far(rate): counts.at_far(rate) for rate in rates}
    thresholds = [point.threshold for point in found.values() if point]
    accepted = count_accepted(make_pairs(retrieval, settings, progress, "count accepted pairs"), thresholds)
    measured = iter(accepted.rates(resamples=settings.bootstrap, seed=settings.seed))
    num_pairs = int(counts.different.sum())
    return counts, [
        {"name": name, **describe_rates(next(measured))} if point else _not_measurable(name, "tar", num_pairs, "pairs")
        for name, point in found.items()
    ]


def _describe_searches(answers: OpenSet, settings: CalibrateSettings) -> list[dict[str, Any]]:
    """The operating points of searches, one for each false alarm rate."""
    described = []
    for rate in settings.open_set_rates:
        name, threshold = name_open_set(rate), answers.find_threshold(rate)
        if threshold is None:
            described.append(_not_measurable(name, "dir", len(answers.absent), "queries without their identity"))
        else:
            described.append({"name": name, **describe_search(answers, threshold, settings)})
    return described


def _not_measurable(name: str, second: str, count: int, what: str) -> dict[str, Any]:
    keys = ("threshold", "far", "far_interval", second, f"{second}_interval")
    return {"name": name, **dict.fromkeys(keys), "note": f"not measurable with {count:,} {what}"}


def _count(counts: PairCounts) -> dict[str, int]:
    return {"same": int(counts.same.sum()), "different": int(counts.different.sum())}


def _describe_split(answers: OpenSet) -> dict[str, Any]:
    def describe(side: Answers) -> dict[str, int]:
        return {"queries": len(side), "identities": len(np.unique(side.pids))}

    return {"enrolled": describe(answers.enrolled), "absent": describe(answers.absent)}


def _roc(counts: PairCounts) -> list[list[float]]:
    points = (counts.at_far(rate) for rate in _CURVE_RATES.tolist())
    return _curve([(point.far, point.tar) for point in points if point])


def _open_set_curve(answers: OpenSet) -> list[list[float]]:
    thresholds = (answers.find_threshold(rate) for rate in _CURVE_RATES.tolist())
    points = (answers.at(threshold, resamples=0, seed=0) for threshold in thresholds if threshold is not None)
    return _curve([(point.far, point.dir) for point in points])


def _curve(points: Sequence[tuple[float, float]]) -> list[list[float]]:
    """The points without repetitions, ascending."""
    return [list(point) for point in sorted(set(points))]


def _calibrate_cameras(retrieval: Retrieval, settings: CalibrateSettings, progress: Progress) -> list[dict[str, Any]]:
    """The operating points of each query camera with each gallery camera; none where one kind of pairs is missing."""
    query, gallery = retrieval.query, retrieval.gallery
    cells = []
    query_cameras, gallery_cameras = (np.unique(side.camids).tolist() for side in (query, gallery))
    with progress.task("calibrate cameras", len(query_cameras) * len(gallery_cameras)) as advance:
        for searched in gallery_cameras:
            images = gallery.select(gallery.camids == searched)
            for asking in query_cameras:
                part = Retrieval(query.select(query.camids == asking), images, retrieval.protocol)
                try:
                    counts, points = _measure_pairs(part, settings, Silent())
                    numbers = _count(counts)
                except DataError:
                    points, numbers = [], None
                cells.append({"query": asking, "gallery": searched, "pairs": numbers, "operating_points": points})
                advance(len(cells))
    return sorted(cells, key=lambda cell: (cell["query"], cell["gallery"]))
