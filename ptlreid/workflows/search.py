"""`ptlreid search`: the nearest images of people in a gallery of images or features, and whether they are matches."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptlreid import distributed
from ptlreid.errors import DataError, OptionError
from ptlreid.files import atomic_write
from ptlreid.progress import Progress
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.index_file import Index, is_index_folder
from ptlreid.retrieval.search import (
    Hits,
    Side,
    average,
    name_cameras,
    rank_gallery,
    rerank_gallery,
)
from ptlreid.retrieval.shards import Shards, is_shard_folder
from ptlreid.settings import SearchSettings
from ptlreid.workflows.search_filter import GalleryFilter, group_queries
from ptlreid.workflows.search_index import describe_index, search_index
from ptlreid.workflows.search_shards import Found, FoundPaths, search_shards, select_side

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
    target = found.index or found.shards or found.side
    _check_widths(query, target, str(run.path), gallery)
    threshold = _find_threshold(run, settings, found.extractor)
    readout = found.extractor.readout
    about = {"run": str(run.path), "gallery": gallery, "flip": readout.flip, "normalize": readout.normalize}
    return distributed.run_on_main(lambda: _search(query, target, settings, threshold, about=about, progress=progress))


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
    content = _open(file, settings, progress)
    query = _select_queries(content, queries, file)
    target = content if gallery is None else _open_gallery(gallery, settings, progress)
    _check_widths(query, target, str(file), str(gallery))
    if settings.query_camera is not None:
        query = replace(query, cameras=np.full(len(query.features), settings.query_camera, dtype=object))
    about = {"features": str(file), "gallery": str(gallery or file)}
    return _search(query, target, settings, settings.threshold_distance, about=about, progress=progress)


def _open_gallery(file: Path, settings: SearchSettings, progress: Progress) -> Side | Shards | Index:
    return Index.open(file, progress) if is_index_folder(file) else _open(file, settings, progress)


def _open(file: Path, settings: SearchSettings, progress: Progress) -> Side | Shards:
    """The features in a file; shards are left where they are, except for re-ranking."""
    if is_shard_folder(file) and not settings.rerank:
        return Shards.open(file, progress)
    content = feature_files.read_in_place(file)
    return Side(content.features, name_cameras(content.features.camids, content.names))


def _select_queries(content: Side | Shards, queries: Sequence[str], file: Path) -> Side:
    """The images called `queries`, by default all."""
    if isinstance(content, Shards):
        if not queries:
            return select_side(content, np.arange(len(content)))
        example = content.read_columns(0, "paths").paths[0]
        return select_side(content, _find_rows(queries, content.find_rows(queries), example, file))
    if not queries:
        return content
    known = {path: row for row, path in reversed([*enumerate(content.features.paths.tolist())])}
    return content.select(_find_rows(queries, known, content.features.paths[0], file))


def _find_threshold(run: RunFolder, settings: SearchSettings, extractor: Extractor) -> float | None:
    """The threshold as a distance: the one given, or that of the run's calibration for such features."""
    if settings.threshold is None or settings.threshold_distance is not None:
        return settings.threshold_distance
    from ptlreid.calibrations import FeatureOrigin, find_threshold

    return find_threshold(run, settings.threshold, FeatureOrigin.of(extractor, settings.distance))


def _check_widths(query: Side, gallery: Side | Shards | Index, first: str, second: str) -> None:
    width = gallery.features.width if isinstance(gallery, Side) else gallery.width
    if query.features.width != width:
        raise DataError(
            f"{second} has features of width {width}, {first} of width {query.features.width}: "
            "expected the same width. Extract both with the same weights."
        )


def _search(
    query: Side,
    gallery: Side | Shards | Index,
    settings: SearchSettings,
    threshold: float | None,
    *,
    about: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """The answers, with the settings in effect."""
    if settings.exact and not isinstance(gallery, Index):
        raise OptionError("--exact without --index: expected both, as every other search is exact. Leave it out.")
    if isinstance(gallery, Index):
        found = search_index(query, gallery, settings, progress)
    elif isinstance(gallery, Shards):
        found = search_shards(query, gallery, settings, progress)
    else:
        found = _search_side(query, gallery, settings, progress)
    answers = [
        _answer(query.features.paths[one.rows].tolist(), hits, found.paths, threshold)
        for one, hits in zip(found.people, found.hits, strict=True)
    ]
    in_effect = settings.model_copy(update={"metric": settings.distance}).model_dump() | dict(about)
    about_index = {"index": describe_index(gallery, exact=found.exact)} if isinstance(gallery, Index) else {}
    return {"queries": answers, "threshold": threshold, **about_index, "settings": in_effect}


def _search_side(query: Side, gallery: Side, settings: SearchSettings, progress: Progress) -> Found:
    """What is found in a gallery in memory."""
    side, chosen = gallery, GalleryFilter(settings)
    if chosen.active:
        side = gallery.select(chosen.keep(gallery.features.paths, gallery.cameras))
        chosen.finish(progress)
    people = group_queries(query, side.features.paths, side.cameras, settings)
    features, searched = average(query.features, people) if settings.averages else (query.features, people)
    common: dict[str, Any] = {"size": settings.top, "memory_budget": settings.budget_bytes}
    if settings.rerank:
        common |= {"k1": settings.rerank_k1, "k2": settings.rerank_k2, "weight": settings.rerank_lambda}
        found = rerank_gallery(features, searched, side.features, **common)
    else:
        found = rank_gallery(features, searched, side.features, metric=settings.distance, **common)
    return Found(people, found, side.features.paths)


def _answer(paths: list[str], hits: Hits, gallery: FoundPaths, threshold: float | None) -> dict[str, Any]:
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


def _find_rows(queries: Sequence[str], known: Mapping[str, int], example: str, file: Path) -> np.ndarray:
    """The rows of the images called `queries`. `known`: the row of each path, such as `example`."""
    missing = [query for query in queries if query not in known]
    if missing:
        raise DataError(
            f"{file}: no image is called {missing[0]}, expected a path such as {example}. Give paths as the file has "
            "them, or none to search for all."
        )
    return np.array([known[query] for query in queries])
