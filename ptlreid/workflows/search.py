"""`ptlreid search`: the nearest images of people in a gallery of images or features, and whether they are matches."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid import distributed
from ptlreid.errors import DataError, OptionError
from ptlreid.files import atomic_write
from ptlreid.progress import Progress
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.path_times import find_time
from ptlreid.retrieval.search import (
    Hits,
    Person,
    Side,
    average,
    find_own,
    name_cameras,
    rank_gallery,
    rerank_gallery,
)
from ptlreid.settings import SearchSettings

if TYPE_CHECKING:
    from ptlreid.features import Extractor
    from ptlreid.runs import RunFolder


def search_run(
    queries: Sequence[str], run: RunFolder, gallery: str, settings: SearchSettings, progress: Progress, *, listed: bytes
) -> dict[str, Any]:
    """The answer to each query, in the form of `--json`: docs/search.md.

    `queries`: images, folders or lists. `gallery`: a feature file, or what `ptlreid embed` takes as a source. `listed`:
    what standard input holds, the paths of the query `-`.
    """
    # Not needed without a run, and slow to load next to a search.
    from ptlreid.features import Extractor
    from ptlreid.workflows.search_sides import load_gallery, load_queries

    found = load_gallery(gallery, run, Extractor.from_run(run, settings), settings, progress)
    query = load_queries(queries, run, found, settings, progress, listed=listed)
    _check_widths(query, found.side, str(run.path), gallery)
    threshold = _find_threshold(run, settings, found.extractor)
    readout = found.extractor.readout
    about = {"run": str(run.path), "gallery": gallery, "flip": readout.flip, "normalize": readout.normalize}
    return distributed.run_on_main(lambda: _search(query, found.side, settings, threshold, about))


def search_files(
    queries: Sequence[str], file: Path, gallery: Path | None, settings: SearchSettings, progress: Progress
) -> dict[str, Any]:
    """The same for features of any program. `queries`: paths of images in `file`, by default all of them.

    `gallery`: another file; by default the same one.
    """
    if settings.threshold is not None and settings.threshold_distance is None:
        raise OptionError(
            f"threshold {settings.threshold}: the thresholds of a run, expected a distance without one. Give the "
            "number that `ptlreid calibrate --query FILE --gallery FILE` prints."
        )
    content = feature_files.read_in_place(file)
    side = Side(content.features, name_cameras(content.features, content.names))
    query = side.select(_find_rows(queries, side.features.paths, file)) if queries else side
    if gallery is not None:
        content = feature_files.read_in_place(gallery)
        side = Side(content.features, name_cameras(content.features, content.names))
    _check_widths(query, side, str(file), str(gallery))
    if settings.query_camera is not None:
        query = replace(query, cameras=np.full(len(query.features), settings.query_camera, dtype=object))
    about = {"features": str(file), "gallery": str(gallery or file)}
    return _search(query, side, settings, settings.threshold_distance, about)


def _find_threshold(run: RunFolder, settings: SearchSettings, extractor: Extractor) -> float | None:
    """The threshold as a distance: the one given, or that of the run's calibration for such features."""
    if settings.threshold is None or settings.threshold_distance is not None:
        return settings.threshold_distance
    from ptlreid.calibrations import FeatureOrigin, find_threshold

    return find_threshold(run, settings.threshold, FeatureOrigin.of(extractor, settings.distance))


def _check_widths(query: Side, gallery: Side, first: str, second: str) -> None:
    if query.features.width != gallery.features.width:
        raise DataError(
            f"{second} has features of width {gallery.features.width}, {first} of width {query.features.width}: "
            "expected the same width. Extract both with the same weights."
        )


def _search(
    query: Side, gallery: Side, settings: SearchSettings, threshold: float | None, about: Mapping[str, Any]
) -> dict[str, Any]:
    """The answers, with the settings in effect."""
    filtered = settings.camera or settings.glob or settings.after or settings.before
    side = gallery.select(_filter(gallery, settings)) if filtered else gallery
    people = _group(query, side, settings)
    features, searched = average(query.features, people) if settings.averages else (query.features, people)
    common: dict[str, Any] = {"size": settings.top, "memory_budget": settings.budget_bytes}
    if settings.rerank:
        common |= {"k1": settings.rerank_k1, "k2": settings.rerank_k2, "weight": settings.rerank_lambda}
        found = rerank_gallery(features, searched, side.features, **common)
    else:
        found = rank_gallery(features, searched, side.features, metric=settings.distance, **common)
    answers = [
        _answer(query.features.paths[one.rows].tolist(), hits, side.features.paths, threshold)
        for one, hits in zip(people, found, strict=True)
    ]
    in_effect = settings.model_copy(update={"metric": settings.distance}).model_dump() | dict(about)
    return {"queries": answers, "threshold": threshold, "settings": in_effect}


def _answer(paths: list[str], hits: Hits, gallery: np.ndarray, threshold: float | None) -> dict[str, Any]:
    """One query in the form of `--json`. A hit is accepted below the threshold; without one every hit is."""
    rows = [
        {
            "rank": rank,
            "path": str(gallery[column]),
            "distance": distance,
            "accepted": threshold is None or distance < threshold,
        }
        for rank, (column, distance) in enumerate(zip(hits.columns, hits.distances.tolist(), strict=True), start=1)
    ]
    verdict = "match" if any(row["accepted"] for row in rows) else "nobody"
    return {"paths": paths, "verdict": verdict, "hits": rows}


def write_csv(file: Path, document: Mapping[str, Any]) -> None:
    """Write a line for each hit, and one without a hit for a query without any."""
    names = ("query", "paths", "verdict", "rank", "path", "distance", "accepted")
    with (
        atomic_write(file) as temporary,
        # Names of files that are not UTF-8 are written byte for byte.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(names)
        for number, one in enumerate(document["queries"], start=1):
            start = (number, ";".join(one["paths"]), one["verdict"])
            for hit in one["hits"]:
                writer.writerow((*start, hit["rank"], hit["path"], hit["distance"], str(hit["accepted"]).lower()))
            if not one["hits"]:
                writer.writerow((*start, "", "", "", ""))


def _find_rows(queries: Sequence[str], paths: np.ndarray, file: Path) -> np.ndarray:
    """The rows of the images called `queries`."""
    known = {path: row for row, path in reversed([*enumerate(paths.tolist())])}
    missing = [query for query in queries if query not in known]
    if missing:
        raise DataError(
            f"{file}: no image is called {missing[0]}, expected a path such as {paths[0]}. Give paths as the file has "
            "them, or none to search for all."
        )
    return np.array([known[query] for query in queries])


def _filter(gallery: Side, settings: SearchSettings) -> np.ndarray:
    """(N,) bool: the gallery images that are searched. `DataError` if there is none."""
    kept = np.ones(len(gallery.features), dtype=bool)
    if settings.camera:
        known = sorted(set(gallery.cameras.tolist()) - {""})
        unknown = [name for name in settings.camera if name not in known]
        if unknown:
            raise DataError(
                f"--camera {unknown[0]}: no gallery image is known to be by it, expected one of "
                f"{', '.join(known[:20]) or 'none, as no cameras are known'}. Correct it."
            )
        kept &= np.isin(gallery.cameras.astype(str), settings.camera)
    if settings.glob:
        pattern = settings.glob
        kept &= np.array([fnmatchcase(path, pattern) for path in gallery.features.paths.tolist()])
    if settings.after or settings.before:
        kept &= _find_times(gallery.features.paths, settings)
    if not kept.any():
        raise DataError(
            "No gallery image is left by --camera, --glob, --after and --before: expected at least one. Change them."
        )
    return kept


def _find_times(paths: np.ndarray, settings: SearchSettings) -> np.ndarray:
    """(N,) bool: the images between the times; one whose path states none is not. `DataError` if no path does."""
    low, high = settings.times
    times = [find_time(path) for path in paths.tolist()]
    if not any(times):
        raise DataError(
            f"--after, --before: none of {len(times):,} paths states a time, expected some such as "
            f"2024-05-01/door/12-30-05.jpg; the first is {paths[0]}. Leave them out, or use --glob."
        )
    return np.array(
        [time is not None and (low is None or time >= low) and (high is None or time < high) for time in times]
    )


def _group(query: Side, gallery: Side, settings: SearchSettings) -> list[Person]:
    """The people who are searched for, with the gallery images that are hidden from each."""
    size = len(query.features)
    groups = [np.arange(size)] if settings.together else [np.array([row]) for row in range(size)]
    own = find_own(query.features.paths, gallery.features.paths) if settings.exclude_query else {}
    people = []
    for rows in groups:
        hidden = [own[row] for row in rows.tolist() if row in own]
        if settings.exclude_same_camera:
            cameras = set(query.cameras[rows].tolist())
            if "" in cameras:
                row = rows[query.cameras[rows].tolist().index("")]
                raise DataError(
                    f"{query.features.paths[row]}: its camera is not known, expected it for --exclude-same-camera. "
                    "Give it with --query-camera."
                )
            hidden.append(np.flatnonzero(np.isin(gallery.cameras.astype(str), sorted(cameras))))
        people.append(Person(rows, np.concatenate(hidden) if hidden else np.empty(0, dtype=np.int64)))
    return people
