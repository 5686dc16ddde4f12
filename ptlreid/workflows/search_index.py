"""A search by an index over shards: candidates that are compared again exactly, or all shards with `--exact`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ptlreid.errors import OptionError
from ptlreid.progress import Progress
from ptlreid.retrieval.index_file import Index
from ptlreid.retrieval.index_search import IndexSearch
from ptlreid.retrieval.search import Hits, Person, Side, average, find_own, name_cameras
from ptlreid.settings import SearchSettings
from ptlreid.workflows.index import start_faiss
from ptlreid.workflows.search_filter import GalleryFilter, group_queries
from ptlreid.workflows.search_shards import Found, search_shards

_OWN_FILES = 20  # rows of a person's own files that may be among the nearest; more are found by searching all shards


def search_index(query: Side, index: Index, settings: SearchSettings, progress: Progress) -> Found:
    """What the index finds of what `search_shards` would; the same with `exact`, or where the index falls short."""
    if settings.rerank:
        raise OptionError("--rerank with --index: needs all features in memory, expected without. Leave one out.")
    if settings.exact:
        return search_shards(query, index.shards, settings, progress)
    _check_metric(index, settings)
    start_faiss()
    search = IndexSearch(index, index.read_graph(change=False), index.manifest["effort"])
    nothing = np.empty(0, dtype=object)
    people = group_queries(query, nothing, nothing, settings)
    features, searched = average(query.features, people) if settings.averages else (query.features, people)
    hits: list[Hits] = [Hits(np.empty(0, dtype=np.int64), np.empty(0))] * len(people)
    short = False
    for numbers, allowed in _group_people(query, people, index, settings, progress):
        size = settings.top + (_OWN_FILES if settings.exclude_query else 0)
        group = [searched[number] for number in numbers]
        left = len(index.shards) - len(index.shards.removed) if allowed is None else int(np.count_nonzero(allowed))
        for number, one in zip(
            numbers, search.rank(features, group, size=size, metric=settings.distance, allowed=allowed), strict=True
        ):
            hits[number] = _drop_own(query, people[number], one, index, settings)
            short = short or (len(hits[number].columns) < settings.top and len(one.columns) < left)
    if short:
        progress.note(f"{index.folder}: finds too few of the images that are left, so all shards are searched")
        return search_shards(query, index.shards, settings, progress)
    rows = np.unique(np.concatenate([one.columns for one in hits]))
    return Found(people, hits, index.shards.find_paths(rows), exact=False)


def describe_index(index: Index, *, exact: bool) -> dict[str, Any]:
    """What an answer says of the index, in the form of `--json`. `exact`: whether all shards were searched instead."""
    recall = index.manifest["recall"]
    return {"folder": str(index.folder), "structure": index.manifest["structure"], "exact": exact} | {
        "recall": {key: recall[key] for key in ("at", "mean", "low", "high", "queries")}
    }


def _check_metric(index: Index, settings: SearchSettings) -> None:
    """Raise `OptionError` for another metric than the index's. The order of L2-normalised features is that of both."""
    metric = index.manifest["metric"]
    if settings.distance != metric and not index.shards.manifest["readout"].get("normalize"):
        raise OptionError(
            f"metric = {settings.distance!r}: the index {index.folder} is one of {metric} distances, expected the "
            "same. Add --exact, or build an index with the other --metric."
        )


def _group_people(
    query: Side, people: list[Person], index: Index, settings: SearchSettings, progress: Progress
) -> Iterator[tuple[list[int], np.ndarray | None]]:
    """The numbers of people who may find the same images, and (N,) bool which these are; None for all."""
    chosen = GalleryFilter(settings)
    if not chosen.active:
        yield list(range(len(people))), None
        return
    shards, codes = index.shards, dict[str, int]()
    left, camera_of = np.zeros(len(shards), dtype=bool), np.empty(len(shards), dtype=np.int32)
    wanted = [*(["paths"] if chosen.needs_paths else []), *shards.manifest["names"]]
    with progress.task("read cameras and paths", len(shards)) as advance:
        for number, start in enumerate(shards.starts[:-1]):
            columns, stop = shards.read_columns(number, *wanted), shards.starts[number + 1]
            cameras = name_cameras(columns.camids, columns.names)
            present = shards.drop_removed(np.arange(start, stop))
            left[present] = chosen.keep(columns.paths[present - start], cameras[present - start])
            names, which = np.unique(cameras.astype(str), return_inverse=True)
            camera_of[start:stop] = np.array([codes.setdefault(name, len(codes)) for name in names.tolist()])[which]
            advance(stop)
    chosen.finish(progress)
    own: dict[frozenset[str], list[int]] = {}
    for number, one in enumerate(people):
        excluded = frozenset(query.cameras[one.rows].tolist() if settings.exclude_same_camera else [])
        own.setdefault(excluded, []).append(number)
    for excluded, numbers in own.items():
        yield numbers, left & ~np.isin(camera_of, [codes[name] for name in excluded if name in codes])


def _drop_own(query: Side, one: Person, hits: Hits, index: Index, settings: SearchSettings) -> Hits:
    """The first hits, with `exclude_query` those that are not a file of the query."""
    kept = np.ones(len(hits.columns), dtype=bool)
    if settings.exclude_query and len(kept):
        paths = index.shards.find_paths(hits.columns)
        gallery = np.array([paths[column] for column in hits.columns.tolist()], dtype=object)
        for columns in find_own(query.features.paths[one.rows], gallery).values():
            kept[columns] = False
    rows = np.flatnonzero(kept)[: settings.top]
    return replace(hits, columns=hits.columns[rows], distances=hits.distances[rows])
