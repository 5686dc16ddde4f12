"""`ptlreid index`: an index over folders of shards is built, extended, reduced, measured and described."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import numpy as np

from ptlreid.cores import available_cores
from ptlreid.errors import DataError, OptionError
from ptlreid.index_schema import IndexManifest
from ptlreid.locks import wait_for_lock
from ptlreid.progress import Progress
from ptlreid.retrieval.index_file import (
    Index,
    describe_source,
    holds_others,
    index_file,
    is_index_folder,
    prepare,
    read_manifest,
    save_index,
)
from ptlreid.retrieval.index_recall import measure_recall
from ptlreid.retrieval.index_search import IndexSearch
from ptlreid.retrieval.index_structure import import_faiss, make_graph, plan_structure
from ptlreid.retrieval.memory_plan import free_memory_bytes
from ptlreid.retrieval.shards import Shards, is_shard_folder
from ptlreid.settings import IndexSettings

_BLOCK_ROWS = 1 << 16  # that are added at a time
_CENTRE_ROWS = 10_000  # whose mean is the centre


def build_index(folders: Sequence[Path], out: Path, settings: IndexSettings, progress: Progress) -> dict[str, Any]:
    """Builds an index of the shards in `folders` in the folder `out`; what `describe` says of it.

    An index that is there is replaced, with a note if images had been removed from it. Raises `OptionError` where there
    is something else, or the memory budget does not suffice.
    """
    faiss = start_faiss()
    if out.is_file() or (not is_index_folder(out) and holds_others(out)):
        raise OptionError(f"--out {out}: holds something else, expected a new folder or an index. Choose another.")
    parts = _open(folders, progress)
    shards = parts[0].join(parts[1:])
    plan = plan_structure(
        settings.kind, len(shards), shards.width, code_bytes=settings.code_bytes, num_lists=settings.num_lists
    )
    _check_budget(plan.build_bytes, settings.kind, settings.budget_bytes)
    rng = np.random.default_rng(settings.seed)
    drawn = np.sort(rng.choice(len(shards), min(len(shards), max(plan.training_rows, _CENTRE_ROWS)), replace=False))
    nothing = np.zeros(shards.width, dtype=np.float32)
    sample = prepare(shards.read_matrix(drawn), settings.metric, nothing)
    centre = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    with progress.task("train index", None):
        graph = make_graph(plan, sample - centre if plan.training_rows else sample[:0], shards.width, settings.seed)
    del sample
    with _lock(out, progress):
        removed = _count_removed(out)
        if removed:
            progress.note(f"{out}: images that were removed from the index before and are in it again: {removed:,}")
        about: dict[str, Any] = {
            "kind": "ptlreid index",
            "schema": 1,
            "structure": settings.kind,
            "factory": plan.factory,
            "faiss": faiss.__version__,
            "metric": settings.metric,
            "width": shards.width,
            "rows": len(shards),
            "removed": 0,
            "seed": settings.seed,
            "sources": [describe_source(out, one) for one in parts],
        }
        index = Index(out, cast(IndexManifest, about), shards, centre)
        _fill(graph, index, 0, progress)
        return _save(index, graph, settings.recall, progress)


def _count_removed(folder: Path) -> int:
    """How many images were removed from the index in a folder; 0 without a readable one."""
    try:
        return read_manifest(folder)["removed"] if is_index_folder(folder) else 0
    except DataError:
        return 0


def add_to_index(folder: Path, folders: Sequence[Path], settings: IndexSettings, progress: Progress) -> dict[str, Any]:
    """Adds the shards in further folders; the recall is measured again. The structure keeps its training."""
    start_faiss()
    with _lock(folder, progress):
        index = Index.open(folder, progress)
        known = {(folder.resolve() / one["folder"]).resolve() for one in index.manifest["sources"]}
        for one in folders:
            if one.resolve() in known:
                raise OptionError(f"{one}: is in the index {folder} already, expected other shards. Leave it out.")
        others = _open(folders, progress)
        joined = replace(index.shards.join(others), removed=index.shards.removed)
        sources = [*index.manifest["sources"], *(describe_source(folder, one) for one in others)]
        structure, code = index.manifest["structure"], _code_bytes(index)
        plan = plan_structure(structure, len(joined), joined.width, code_bytes=code or None, num_lists=None)
        _check_budget(plan.build_bytes, structure, settings.budget_bytes)
        about = cast(IndexManifest, {**index.manifest, "rows": len(joined), "sources": sources})
        graph = index.read_graph(change=True)
        extended = Index(folder, about, joined, index.centre)
        _fill(graph, extended, len(index.shards), progress)
        return _save(extended, graph, index.manifest["recall"]["target"], progress)


def remove_from_index(folder: Path, paths: Sequence[str], glob: str | None, progress: Progress) -> dict[str, Any]:
    """Removes the images called `paths`, and those whose path matches `glob`; what `describe` says, and how many.

    No search of the index finds them any more, an exact one neither. The shards still hold them.
    """
    with _lock(folder, progress):
        index = Index.open(folder, progress)
        rows = _find_rows(index.shards, paths, glob, progress)
        removed = np.union1d(index.shards.removed, rows)
        if len(removed) == len(index.shards):
            raise DataError(
                f"{folder}: would hold no image any more, expected at least one. Delete the folder instead."
            )
        save_index(folder, index.manifest, graph=None, centre=index.centre, removed=removed)
        newly = len(removed) - len(index.shards.removed)
        return _describe(read_manifest(folder), index) | {"newly_removed": newly}


def measure_index(folder: Path, settings: IndexSettings, progress: Progress) -> dict[str, Any]:
    """Chooses for another recall how much of the index a search visits, and measures what it then finds."""
    start_faiss()
    with _lock(folder, progress):
        index = Index.open(folder, progress)
        target = settings.recall if "recall" in settings.model_fields_set else index.manifest["recall"]["target"]
        return _save(index, index.read_graph(change=False), target, progress, changed=False)


def describe_index(folder: Path, progress: Progress) -> dict[str, Any]:
    """What an index is, in the form of `--json`: docs/scale.md."""
    index = Index.open(folder, progress)
    return _describe(index.manifest, index)


def start_faiss() -> Any:
    """faiss, with as many threads as this process may use cores."""
    faiss = import_faiss()
    faiss.omp_set_num_threads(min(available_cores(), faiss.omp_get_max_threads()))
    return faiss


def _describe(manifest: IndexManifest, index: Index) -> dict[str, Any]:
    left_out = ("kind", "schema", "graph", "graph_digest", "arrays", "arrays_digest")
    size = sum((index.folder / name).stat().st_size for name in (manifest["graph"], manifest["arrays"]))
    about = {key: value for key, value in manifest.items() if key not in left_out}
    return {"index": str(index.folder), **about, "bytes": size, "weights": index.shards.manifest["weights"]}


def _open(folders: Sequence[Path], progress: Progress) -> list[Shards]:
    """The shards in each folder; `OptionError` for another place, or one that is named twice."""
    for place, folder in enumerate(folders):
        if not is_shard_folder(folder):
            raise OptionError(
                f"{folder}: is no folder of shards, expected one. Write it with `ptlreid embed --shards`."
            )
        if folder.resolve() in [one.resolve() for one in folders[:place]]:
            raise OptionError(f"{folder}: is named twice, expected each folder once. Leave one out.")
    return [Shards.open(folder, progress) for folder in folders]


def _check_budget(needed: int, structure: str, memory_budget: int | None) -> None:
    """Raise `OptionError` where an index needs more than the budget, or than the free memory."""
    budget = memory_budget or free_memory_bytes()
    if needed > budget:
        which = "the memory budget" if memory_budget else "free memory"
        raise OptionError(
            f"kind = {structure!r}: the index needs {needed / 1e9:,.3g} GB while it is built, {which} is "
            f"{budget / 1e9:,.3g} GB: expected less. Use --kind ivfpq or fewer --code-bytes."
        )


def _fill(graph: Any, index: Index, first_row: int, progress: Progress) -> None:
    """Add all images from `first_row` on, which is where a shard begins, block by block."""
    shards = index.shards
    with progress.task("fill index", len(shards)) as advance:
        for number, start in enumerate(shards.starts[:-1]):
            if start >= first_row:
                for first, matrix in shards.read_blocks(number, _BLOCK_ROWS):
                    graph.add(index.prepare(matrix))
                    advance(start + first + len(matrix))


def _save(index: Index, graph: Any, target: float, progress: Progress, *, changed: bool = True) -> dict[str, Any]:
    search = IndexSearch(index, graph, effort=1)
    effort, recall = measure_recall(search, target=target, seed=index.manifest["seed"], progress=progress)
    if recall["high"] < target:
        progress.note(
            f"recall {recall['mean']:.3f}, less than the {target:g} that was asked for: use more --code-bytes, or "
            "--kind hnsw"
        )
    manifest = cast(IndexManifest, {**index.manifest, "effort": effort, "recall": recall})
    removed = index.shards.removed
    save_index(index.folder, manifest, graph=graph if changed else None, centre=index.centre, removed=removed)
    return _describe(read_manifest(index.folder), index)


def _find_rows(shards: Shards, paths: Sequence[str], glob: str | None, progress: Progress) -> np.ndarray:
    """(R,) ascending rows of the images called `paths`, each with all its rows, and of those that match `glob`."""
    wanted, seen, found = set(paths), set[str](), []
    with progress.task("read paths", len(shards)) as advance:
        for index, start in enumerate(shards.starts[:-1]):
            for row, path in enumerate(shards.read_columns(index, "paths").paths.tolist()):
                if path in wanted or (glob and fnmatchcase(path, glob)):
                    seen.add(path)
                    found.append(start + row)
            advance(shards.starts[index + 1])
    if missing := sorted(wanted - seen):
        example = shards.find_paths(np.array([0]))[0]
        raise DataError(
            f"{shards.folder}: no image is called {missing[0]}, expected a path such as {example}. Give paths as the "
            "shards have them."
        )
    if not found:
        raise DataError(f"--glob {glob}: no image of the index matches it, expected at least one. Correct it.")
    return np.array(found)


def _code_bytes(index: Index) -> int:
    """Bytes of a code, which end the factory's name; 0 for other structures."""
    if index.manifest["structure"] != "ivfpq":
        return 0
    return int(index.manifest["factory"].rpartition("PQ")[2].removesuffix("np"))


def _lock(folder: Path, progress: Progress) -> AbstractContextManager[None]:
    return wait_for_lock(index_file(folder), progress, command="ptlreid index")
