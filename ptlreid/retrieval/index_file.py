"""An index over shards on disk: a folder with `index.json`, what faiss searches, and two arrays.

docs/file-formats.md describes the folder; `ptlreid index` writes it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from ptlreid import contents
from ptlreid.errors import DataError
from ptlreid.files import atomic_write, file_digest
from ptlreid.index_schema import KIND, IndexManifest, IndexSource
from ptlreid.json_files import read_json, write_json
from ptlreid.progress import Progress, Silent
from ptlreid.retrieval.array_files import read_arrays
from ptlreid.retrieval.index_structure import import_faiss
from ptlreid.retrieval.shards import Shards, manifest_file

_REMEDY = "Build the index again with `ptlreid index build`."
_OWN = re.compile(r"(graph|arrays)-(\d+)\.(faiss|npz)")
_LEFT = re.compile(r"\.(index\.json|(graph|arrays)-\d+)\..*|\.contents\.npz")  # by a process that was killed


def index_file(folder: Path) -> Path:
    """The file that states what the index in a folder is."""
    return folder / "index.json"


def is_index_folder(path: Path) -> bool:
    """Whether the folder says by its file that it holds an index."""
    try:
        with index_file(path).open("rb") as stream:
            return KIND.encode() in stream.read(200)
    except OSError:
        return False


def read_manifest(folder: Path) -> IndexManifest:
    """What the index in a folder is; `DataError` where the file is damaged."""
    return read_json(index_file(folder), IndexManifest, _REMEDY)


def holds_others(folder: Path) -> bool:
    """Whether a folder holds anything that is not of an index, complete or not."""
    return any(not (_OWN.fullmatch(name) or _LEFT.fullmatch(name)) for name in _list_names(folder))


@dataclass(frozen=True)
class Index:
    """An index and the shards that it is of, without the images that were `removed` from it.

    `centre`: (D,) float32, subtracted from features before faiss sees them.
    """

    folder: Path
    manifest: IndexManifest
    shards: Shards
    centre: np.ndarray

    @classmethod
    def open(cls, folder: Path, progress: Progress | None = None) -> Index:
        """The index in a folder. Its files and its shards have the digests that it states, or `DataError` says which.

        Digests are computed at the first use, and again for files that changed since: see `Shards.open`.
        """
        manifest = read_manifest(folder)
        contents.use_index(folder, most_bytes=1 << 62)
        for kind in ("graph", "arrays"):
            _check_digest(folder / manifest[kind], manifest[f"{kind}_digest"])  # type: ignore[literal-required]
        arrays = read_arrays(folder / manifest["arrays"], ("centre", "removed")).arrays
        centre, removed = arrays["centre"], arrays["removed"]
        if centre.shape != (manifest["width"],) or len(removed) != manifest["removed"]:
            raise DataError(f"{folder / manifest['arrays']}: is not as it was written. {_REMEDY}")
        shards = replace(open_sources(folder, manifest["sources"], progress), removed=removed)
        if (len(shards), shards.width) != (manifest["rows"], manifest["width"]):
            found = f"{len(shards):,} rows of width {shards.width}"
            raise DataError(
                f"{folder}: its shards have {found}, expected {manifest['rows']:,} of {manifest['width']}. {_REMEDY}"
            )
        return cls(folder, manifest, shards, centre)

    @property
    def width(self) -> int:
        return self.shards.width

    def read_graph(self, *, change: bool) -> Any:
        """What faiss searches: mapped from the file where that is possible, or in memory, to `change` it."""
        faiss, file = import_faiss(), self.folder / self.manifest["graph"]
        try:
            graph = faiss.read_index(str(file), 0 if change else faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            reason = str(error).rpartition("Error: ")[2]
            raise DataError(f"{file}: faiss {faiss.__version__} cannot read it ({reason:.200}). {_REMEDY}") from None
        if (graph.ntotal, graph.d) != (self.manifest["rows"], self.manifest["width"]):
            raise DataError(f"{file}: holds {graph.ntotal:,} images, expected {self.manifest['rows']:,}. {_REMEDY}")
        return graph

    def prepare(self, matrix: np.ndarray) -> np.ndarray:
        """(N, D) float32: features as faiss sees them."""
        return prepare(matrix, self.manifest["metric"], self.centre)


def prepare(matrix: np.ndarray, metric: Literal["euclidean", "cosine"], centre: np.ndarray) -> np.ndarray:
    """A float32 copy of (N, D) features, minus `centre`; L2-normalised before for cosine distance."""
    rows = matrix.astype(np.float32)
    if metric == "cosine":
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(lengths > 0, lengths, 1)
    rows -= centre
    return rows


def describe_source(folder: Path, shards: Shards) -> IndexSource:
    """How the index in `folder` refers to a folder of shards."""
    place = os.path.relpath(shards.folder.resolve(), folder.resolve())
    return {"folder": place, "manifest": file_digest(manifest_file(shards.folder)), "rows": len(shards)}


def open_sources(folder: Path, sources: Sequence[IndexSource], progress: Progress | None = None) -> Shards:
    """The shards that an index is of, as one; `DataError` where a manifest has changed since."""
    opened = []
    for source in sources:
        place = Path(os.path.normpath(folder.resolve() / source["folder"]))
        if not manifest_file(place).is_file():
            raise DataError(
                f"{folder}: is an index of the shards in {place}, and there are none: expected them there. Move them "
                "back, or build the index again."
            )
        if file_digest(manifest_file(place)) != source["manifest"]:
            raise DataError(
                f"{place}: its shards were written again after the index {folder}: expected the manifest that was "
                f"indexed. {_REMEDY}"
            )
        opened.append(Shards.open(place, progress or Silent()))
    return opened[0].join(opened[1:])


def save_index(
    folder: Path, manifest: IndexManifest, *, graph: Any | None, centre: np.ndarray, removed: np.ndarray
) -> None:
    """Write an index: new files first, then `index.json`, so that a killed process leaves the old index or the new.

    `graph`: None to keep the file that the manifest names. Files that it no longer names are deleted.
    """
    number = max([0, *(int(match[2]) for match in map(_OWN.fullmatch, _list_names(folder)) if match)]) + 1
    names = {"arrays": f"arrays-{number}.npz"}
    with atomic_write(folder / names["arrays"]) as temporary:
        with temporary.open("wb") as stream:
            np.savez(stream, centre=centre, removed=removed)
        digests = {"arrays_digest": file_digest(temporary)}
    if graph is not None:
        names["graph"] = f"graph-{number}.faiss"
        with atomic_write(folder / names["graph"]) as temporary:
            _write_graph(graph, temporary)
            digests["graph_digest"] = file_digest(temporary)
    content = cast(IndexManifest, {**manifest, **names, **digests, "removed": len(removed)})
    write_json(index_file(folder), cast(dict[str, Any], content))
    for name in _list_names(folder):
        if _OWN.fullmatch(name) and name not in (content["graph"], content["arrays"]):
            (folder / name).unlink(missing_ok=True)


def _list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _write_graph(graph: Any, file: Path) -> None:
    """`OSError` where the disk is full. faiss has an exception of its own, without a reason, and none for the last
    bytes of a file that it writes itself.
    """
    faiss = import_faiss()
    try:
        with file.open("wb") as stream:
            faiss.write_index(graph, faiss.PyCallbackIOWriter(stream.write))
    except RuntimeError as error:
        full = shutil.disk_usage(file.parent).free < 1 << 20
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number) if full else str(error)) from None


def _check_digest(file: Path, expected: str) -> None:
    if not file.is_file():
        raise DataError(f"{file}: no such file, expected a part of the index. {_REMEDY}")
    (found,) = contents.digest_each([file])
    if found.tobytes().hex() != expected:
        raise DataError(f"{file}: changed since it was written: expected the digest {expected}. {_REMEDY}")
