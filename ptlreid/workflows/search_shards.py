"""A search in a folder of shards, which is read block by block within the memory budget, and as exact as in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptlreid.progress import Progress
from ptlreid.retrieval.search import Hits, Person, Side, average, find_own, name_cameras
from ptlreid.retrieval.shards import Shards
from ptlreid.retrieval.streamed_search import GalleryBlock, plan_rows, rank_blocks
from ptlreid.settings import SearchSettings
from ptlreid.workflows.search_filter import GalleryFilter, group_queries

FoundPaths = np.ndarray | Mapping[int, str]  # paths of gallery images by their row, at least those that were found


@dataclass(frozen=True)
class Found:
    """The people who were searched for, and the nearest images of each. `exact`: not by an index."""

    people: list[Person]
    hits: list[Hits]
    paths: FoundPaths
    exact: bool = True


def search_shards(query: Side, shards: Shards, settings: SearchSettings, progress: Progress) -> Found:
    """What `search` finds in the same features in memory."""
    people = group_queries(query, np.empty(0, dtype=object), np.empty(0, dtype=object), settings)
    features = average(query.features, people)[0] if settings.averages else query.features
    chosen = GalleryFilter(settings)
    blocks = _read_blocks(query, shards, settings, chosen, progress)
    hits = rank_blocks(features, blocks, size=settings.top, metric=settings.distance)
    if chosen.active:
        chosen.finish(progress)
    rows = np.unique(np.concatenate([one.columns for one in hits]))
    return Found(people, hits, shards.find_paths(rows))


def sample_side(shards: Shards, paths: Sequence[str]) -> Side:
    """The images of the shards that are called `paths`, and one of each camera: at least one."""
    rows, known = [], set()
    for index, start in enumerate(shards.starts[:-1]):
        columns = shards.read_columns(index, "paths", *shards.manifest["names"])
        rows += [
            start + row for found in find_own(np.array(paths, dtype=object), columns.paths).values() for row in found
        ]
        cameras = name_cameras(columns.camids, columns.names)
        names, firsts = np.unique(cameras.astype(str), return_index=True)
        rows += [
            start + first for name, first in zip(names.tolist(), firsts.tolist(), strict=True) if name not in known
        ]
        known |= set(names.tolist())
    return select_side(shards, np.unique(rows))


def select_side(shards: Shards, rows: np.ndarray) -> Side:
    """The images at these rows, in their order."""
    features, names = shards.select(rows)
    return Side(features, name_cameras(features.camids, names))


def _read_blocks(
    query: Side, shards: Shards, settings: SearchSettings, chosen: GalleryFilter, progress: Progress
) -> Iterator[GalleryBlock]:
    """The images that are searched, block by block. Paths and cameras are read only where they decide."""
    by_path, by_camera = chosen.needs_paths or settings.exclude_query, chosen.needs_cameras
    wanted = [*(["paths"] if by_path else []), *(shards.manifest["names"] if by_camera else [])]
    rows = plan_rows(len(query.features), shards.width, settings.budget_bytes)
    paths = cameras = np.empty(0, dtype=object)
    people = _renumber(group_queries(query, paths, cameras, settings), settings)
    with progress.task("search shards", len(shards)) as advance:
        for index, start in enumerate(shards.starts[:-1]):
            if by_path or by_camera:
                columns = shards.read_columns(index, *wanted)
                paths, cameras = columns.paths, name_cameras(columns.camids, columns.names)
            for first, matrix in shards.read_blocks(index, rows):
                part, at = slice(first, first + len(matrix)), start + first
                kept = shards.drop_removed(np.arange(at, at + len(matrix))) - at
                if chosen.active:
                    kept = kept[chosen.keep(paths[part][kept], cameras[part][kept])]
                if by_path or by_camera:
                    people = _renumber(group_queries(query, paths[part][kept], cameras[part][kept], settings), settings)
                if len(kept):
                    yield GalleryBlock(
                        matrix[kept] if len(kept) < len(matrix) else matrix, start + first + kept, people
                    )
                advance(start + part.stop)


def _renumber(people: list[Person], settings: SearchSettings) -> list[Person]:
    """The people, each with one row where their features are means."""
    return [replace(one, rows=np.array([row])) for row, one in enumerate(people)] if settings.averages else people
