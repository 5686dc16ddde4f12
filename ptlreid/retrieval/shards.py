"""Features in a folder of shards, memory-mapped, with a manifest that every file is checked against.

docs/file-formats.md describes the folder; `ptlreid embed --shards` writes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ptlreid import contents
from ptlreid.errors import DataError
from ptlreid.json_files import read_json
from ptlreid.progress import Progress, Silent
from ptlreid.retrieval.memory_plan import free_memory_bytes
from ptlreid.retrieval.shard_files import Columns, columns_file, map_matrix, matrix_file, read_columns, read_paths
from ptlreid.retrieval.types import Features
from ptlreid.shards_schema import KIND, Manifest, ShardEntry

_REMEDY = "Repeat the command that wrote the folder, `ptlreid embed --shards`."
# Keys of the manifest that features must share to be compared, as messages call them.
KINDS = {
    "weights": "weights",
    "network": "network",
    "readout": "readout",
    "view": "view",
    "cameras": "statistics of cameras",
    "width": "width",
    "names": "names of identities or cameras",
}
_BLOCK = 1 << 16  # rows that are converted at a time


def manifest_file(folder: Path) -> Path:
    """The file that states what the shards of a folder are."""
    return folder / "manifest.json"


def is_shard_folder(path: Path) -> bool:
    """Whether the folder says by its manifest that it holds shards, complete or not."""
    try:
        with manifest_file(path).open("rb") as stream:
            return KIND.encode() in stream.read(200)
    except OSError:
        return False


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of shards; `DataError` where it is damaged, or contradicts itself."""
    manifest = read_json(manifest_file(folder), Manifest, _REMEDY)
    numbers = [one["number"] for one in manifest["shards"]]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= count_shards(manifest)):
        raise DataError(f"{manifest_file(folder)}: shards = {numbers[:10]}: expected ascending numbers. {_REMEDY}")
    return manifest


def count_shards(manifest: Manifest) -> int:
    """The number of shards once all are complete."""
    return -(-manifest["list"]["images"] // manifest["rows_per_shard"])


@dataclass(frozen=True)
class Shards:
    """A complete folder of shards, or several, one after another, without those that have no image.

    Row r of all is row r - `starts[i]` of shard i.

    `folder`, `manifest`: of the first. `places`: the folder of each shard and its entry there. `matrices`: the features
    of each, read-only maps of the files in the type that they are stored in. `removed`: (R,) int64, ascending rows that
    no search finds.
    """

    folder: Path
    manifest: Manifest
    places: Sequence[tuple[Path, ShardEntry]]
    matrices: Sequence[np.ndarray]
    starts: Sequence[int]
    removed: np.ndarray

    @classmethod
    def open(cls, folder: Path, progress: Progress | None = None) -> Shards:
        """The shards in a folder, each of the right size and with the digest that the manifest states.

        Digests are computed at the first use, and again for files that changed since: they are kept with the state of
        each file in the index of digests in the folder, see `contents`. Raises `DataError` that names the shard.
        """
        manifest = read_manifest(folder)
        missing = sorted(set(range(count_shards(manifest))) - {one["number"] for one in manifest["shards"]})
        if missing:
            raise DataError(
                f"{folder}: {len(missing)} of {count_shards(manifest)} shards are not extracted yet, the first of them "
                f"{missing[0]}: expected all. {_REMEDY}"
            )
        if not manifest["rows"]:
            raise DataError(f"{folder}: all of its images were skipped, expected at least one. {_REMEDY}")
        filled = [one for one in manifest["shards"] if one["rows"]]
        matrices = [map_shard(folder, manifest, one) for one in filled]
        starts = np.cumsum([0, *(len(matrix) for matrix in matrices)]).tolist()
        with (progress or Silent()).task("check shards", len(matrices)) as advance:
            for done, entry in enumerate(filled, start=1):
                check_digests(folder, entry)
                advance(done)
        places = [(folder, entry) for entry in filled]
        return cls(folder, manifest, places, matrices, starts, np.empty(0, dtype=np.int64))

    def join(self, others: Iterable[Shards]) -> Shards:
        """These shards and those of other folders, in order, as one; `DataError` where features are of another kind."""
        places, matrices = [*self.places], [*self.matrices]
        for other in others:
            differing = [words for key, words in KINDS.items() if self.manifest[key] != other.manifest[key]]  # type: ignore[literal-required]  # keys of both
            if differing:
                raise DataError(
                    f"{other.folder}: its features are of other {' and other '.join(differing)} than those of "
                    f"{self.folder}: expected the same. Extract both with the same run and options."
                )
            places += other.places
            matrices += other.matrices
        starts = np.cumsum([0, *(len(matrix) for matrix in matrices)]).tolist()
        return replace(self, places=places, matrices=matrices, starts=starts)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        return self.manifest["width"]

    @property
    def attributes(self) -> Mapping[str, str]:
        """What the features depend on, as a feature file states it."""
        manifest = self.manifest
        described = {name: json.dumps(manifest[name], sort_keys=True) for name in ("network", "readout", "view")}
        return described | {name: manifest[name] for name in ("weights", "cameras", "dtype")}

    def drop_removed(self, rows: np.ndarray) -> np.ndarray:
        """Ascending `rows` without those that were removed."""
        if not (len(rows) and len(self.removed)):
            return rows
        low, high = np.searchsorted(self.removed, [rows[0], rows[-1] + 1])
        return np.setdiff1d(rows, self.removed[low:high], assume_unique=True)

    def read_columns(self, index: int, *wanted: str) -> Columns:
        """The columns of a shard: the numbers, and of the texts those `wanted`."""
        folder, entry = self.places[index]
        return read_columns(folder, entry["number"], rows=entry["rows"], wanted=wanted)

    def read_blocks(self, index: int, rows: int, within: range | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """A shard in blocks of at most so many rows: the first row in the shard, and (B, D) as stored, in memory.

        They are read and not mapped, as pages of a map that were touched count as memory of the process. `within`:
        the rows of the shard that are read; None for all.
        """
        folder, entry = self.places[index]
        file, matrix = matrix_file(folder, entry["number"]), self.matrices[index]
        chosen = within if within is not None else range(len(matrix))
        with file.open("rb") as stream:
            for first in range(chosen.start, chosen.stop, rows):
                yield first, _read_part(stream, matrix, range(first, min(first + rows, chosen.stop)))

    def read_rows(self, index: int, rows: np.ndarray) -> np.ndarray:
        """(N, D) as stored: the features at these ascending rows of a shard, N >= 1, read and not mapped."""
        folder, entry = self.places[index]
        matrix = self.matrices[index]
        found = np.empty((len(rows), self.width), dtype=matrix.dtype)
        size, row_bytes = 0, matrix.strides[0]
        starts = np.flatnonzero(np.diff(rows, prepend=-2) > 1)  # of runs of rows, each of which is read at once
        with (
            matrix_file(folder, entry["number"]).open("rb", buffering=0) as stream,
            found.data.cast("B") as content,
        ):
            data = stream.seek(0, os.SEEK_END) - matrix.nbytes
            for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
                stream.seek(data + int(rows[first]) * row_bytes)
                size += stream.readinto(content[first * row_bytes : last * row_bytes]) or 0
        if size != found.nbytes:
            raise DataError(
                f"{matrix_file(folder, entry['number'])}: was cut off while it was read: expected {len(matrix)} rows. "
                f"{_REMEDY}"
            )
        return found

    def find_paths(self, rows: np.ndarray) -> dict[int, str]:
        """The path of each of these rows."""
        found: dict[int, str] = {}
        shard_of = np.searchsorted(self.starts, rows, side="right") - 1
        for index in np.unique(shard_of).tolist():
            here, (folder, entry) = rows[shard_of == index], self.places[index]
            paths = read_paths(folder, entry["number"], here - self.starts[index], rows=entry["rows"])
            found |= dict(zip(here.tolist(), paths, strict=True))
        return found

    def find_rows(self, paths: Iterable[str]) -> dict[str, int]:
        """The first row of each of the images that are called so; those that are missing are left out."""
        wanted, found = set(paths), dict[str, int]()
        for index, start in enumerate(self.starts[:-1]):
            for row, path in enumerate(self.read_columns(index, "paths").paths.tolist()):
                if path in wanted:
                    found.setdefault(path, start + row)
        return found

    def read_matrix(self, rows: np.ndarray) -> np.ndarray:
        """(R, D) float32: the features at these rows, in their order."""
        matrix = np.empty((len(rows), self.width), dtype=np.float32)
        shard_of = np.searchsorted(self.starts, rows, side="right") - 1
        for index in np.unique(shard_of).tolist():
            here = np.flatnonzero(shard_of == index)
            for first in range(0, len(here), _BLOCK):
                part = here[first : first + _BLOCK]
                local, place = np.unique(rows[part] - self.starts[index], return_inverse=True)
                matrix[part] = self.read_rows(index, local)[place]
        return matrix

    def select(self, rows: np.ndarray) -> tuple[Features, dict[str, np.ndarray]]:
        """The features at these rows, in their order, as float32, with the further columns of text.

        Raises `DataError` where they do not fit into memory.
        """
        needed, free = 4 * len(rows) * self.width, free_memory_bytes()
        if needed > free:
            raise DataError(
                f"{self.folder}: its features take {needed / 1e9:,.1f} GB as float32, and {free / 1e9:,.1f} GB of "
                "memory are free: expected features that fit. `ptlreid search --gallery` and `ptlreid evaluate "
                "--gallery` read block by block."
            )
        names = self.manifest["names"]
        numbers = np.empty((len(rows), 3), dtype=np.int64)
        texts = np.empty((len(rows), 1 + len(names)), dtype=object)
        shard_of, labelled = np.searchsorted(self.starts, rows, side="right") - 1, False
        for index in np.unique(shard_of).tolist():
            here, columns = np.flatnonzero(shard_of == index), self.read_columns(index, "paths", *names)
            local = rows[here] - self.starts[index]
            labelled = columns.clothes is not None
            clothes = columns.clothes if columns.clothes is not None else columns.pids
            for place, column in enumerate((columns.pids, columns.camids, clothes)):
                numbers[here, place] = column[local]
            for place, column in enumerate((columns.paths, *(columns.names[name] for name in names))):
                texts[here, place] = column[local]
        pids, camids, clothes = (np.ascontiguousarray(numbers[:, place]) for place in range(3))
        features = Features(self.read_matrix(rows), pids, camids, texts[:, 0].copy(), clothes if labelled else None)
        return features, {name: texts[:, place].copy() for place, name in enumerate(names, start=1)}

    def read(self) -> tuple[Features, dict[str, np.ndarray]]:
        """The same of all features that were not removed, in memory."""
        return self.select(self.drop_removed(np.arange(len(self))))


def _read_part(stream: BinaryIO, matrix: np.ndarray, rows: range) -> np.ndarray:
    """These rows of a matrix, from the end of whose file they are counted."""
    stream.seek(rows.start * matrix.strides[0] - matrix.nbytes, os.SEEK_END)
    block = np.fromfile(stream, matrix.dtype, len(rows) * matrix.shape[1])
    if block.size != len(rows) * matrix.shape[1]:
        raise DataError(f"{stream.name}: was cut off while it was read: expected {len(matrix)} rows. {_REMEDY}")
    return block.reshape(len(rows), -1)


def map_shard(folder: Path, manifest: Manifest, entry: ShardEntry) -> np.ndarray:
    """The features of a complete shard, see `map_matrix`; `DataError` where one of its files is missing, too."""
    if not (file := columns_file(folder, entry["number"])).is_file():
        raise DataError(f"{file}: no such file, expected the columns of a shard. {_REMEDY}")
    return map_matrix(folder, entry["number"], rows=entry["rows"], width=manifest["width"], dtype=manifest["dtype"])


def check_digests(folder: Path, entry: ShardEntry) -> None:
    """Raise `DataError` where the bytes of one of a shard's two files are not those that were written."""
    contents.use_index(folder, most_bytes=1 << 62)
    files = {"matrix": matrix_file(folder, entry["number"]), "columns": columns_file(folder, entry["number"])}
    for (name, file), digest in zip(files.items(), contents.digest_each(files.values()), strict=True):
        if digest.tobytes().hex() != (expected := entry[name]):  # type: ignore[literal-required]  # two of its keys
            raise DataError(
                f"{file}: changed since it was written: expected bytes with the digest {expected}. Restore the file, "
                "or repeat the command that wrote the folder with --verify, which extracts the shard again."
            )
