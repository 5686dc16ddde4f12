"""Features on disk with a fingerprint of everything they depend on, so that stale ones are never used.

`load_or_extract` is the entry point. docs/file-formats.md describes the file format; `partial` stores the completed
rows of an interrupted extraction.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from ptlreid import contents, distributed
from ptlreid.cache import partial
from ptlreid.errors import DataError
from ptlreid.features import Extractor
from ptlreid.hdf5_strings import check_heaps
from ptlreid.models.graph_file import GraphFile
from ptlreid.models.weights import WeightsFile
from ptlreid.progress import Progress
from ptlreid.records import Records
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.types import Features

SCHEMA = "2"
CONTENT = "content"  # the attribute that holds the digest of the features
FOLDER = "folder"  # the attribute that holds the digest of the path of the dataset's folder
OTHER_FOLDERS = 3  # files of a name kept for further folders of a dataset, the latest ones

Dtype = Literal["float32", "float16"]

# The parts of a fingerprint, as messages call them.
_PARTS = {
    "schema": "the file's schema",
    "weights": "the weights",
    "network": "the network",
    "readout": "the readout",
    "view": "the view",
    "cameras": "the statistics of cameras",
    "dtype": "the precision",
    "images": "the images",
    "labels": "the identities, cameras or clothes",
}


def load_or_extract(
    file: Path, extractor: Extractor, records: Records, *, dtype: Dtype, progress: Progress
) -> Features:
    """The features of `records`: read from `file` if its fingerprint matches, otherwise extracted into it.

    Where `file` has the features of a dataset in another folder, another name takes its place: see `_choose_file`.

    A damaged file, or one with another fingerprint, is replaced, with a note on the parts that changed. Extracted
    features are saved in blocks, so that an interrupted extraction resumes; the file is written atomically, so that
    concurrent writers leave a complete file. With several processes, the main one reads and writes, all extract, and
    all get the features. With float16, new features are rounded too, and so equal those read later.
    """
    expected = distributed.run_on_main(functools.partial(fingerprint, extractor, records, dtype))
    file = distributed.run_on_main(functools.partial(_choose_file, file, expected, records))
    matrix = distributed.run_on_main(functools.partial(_load, file, expected, len(records), progress))
    if matrix is None:
        matrix = _extract(file, expected, extractor, records, progress)
    return _as_features(matrix, records)


def describe_status(file: Path, extractor: Extractor, records: Records, dtype: Dtype) -> str:
    """The action that `load_or_extract` would take, in words; no features are read."""
    expected = fingerprint(extractor, records, dtype)
    file = _choose_file(file, expected, records)
    reason = find_mismatch(file, expected) if file.is_file() else "no cached features"
    if reason is None:
        return "cached"
    rows = partial.count_rows(file, expected)
    return f"to extract: {reason}" + (f"; resuming at {rows}/{len(records)}" if rows else "")


def fingerprint(extractor: Extractor, records: Records, dtype: Dtype) -> dict[str, str]:
    """The digests of everything that the features of `records` depend on, by part. No image is decoded."""
    model = extractor.model
    assert isinstance(model, WeightsFile | GraphFile), "features of a network in memory are not cached"
    columns = (records.pids, records.camids, records.clothes)
    labels = hashlib.blake2b(b"".join(one.tobytes() for one in columns if one is not None), digest_size=16)
    return {
        "schema": SCHEMA,
        "weights": model.digest,
        "network": json.dumps(model.spec.describe(), sort_keys=True),
        "readout": json.dumps(extractor.readout.describe(), sort_keys=True),
        "view": json.dumps(extractor.view.describe(), sort_keys=True),
        "cameras": _cameras_digest(extractor, records),
        "dtype": dtype,
        "images": contents.digest_all(records.paths),
        "labels": labels.hexdigest(),
    }


def _cameras_digest(extractor: Extractor, records: Records) -> str:
    """A digest of the statistics that the images are normalised by; "" where the extractor has none of any camera."""
    if extractor.cameras is None:
        return ""
    rows = extractor.cameras.find_rows(records.sources, records.camids)
    return hashlib.blake2b(extractor.cameras.digest.encode() + rows.tobytes(), digest_size=16).hexdigest()


def write_copy(
    file: Path, features: Features, expected: dict[str, str], *, names: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes features with the fingerprint `expected` to a file of the same format, for other programs.

    `names`: see `feature_files.write`.
    """
    stored = features.matrix.astype(expected["dtype"], copy=False)
    attributes = expected | {CONTENT: _digest(stored)}
    feature_files.write(file, features, attributes, dtype=expected["dtype"], names=names)


def find_file(file: Path, extractor: Extractor, records: Records, dtype: Dtype) -> Path:
    """Where `load_or_extract` keeps the features of `records`: `file`, or another name for another folder's images."""
    return _choose_file(file, fingerprint(extractor, records, dtype), records)


def read_paths(file: Path) -> set[str]:
    """The paths of the images whose features are in `file`; none if it is missing or damaged."""
    if not file.is_file():
        return set()
    try:
        check_heaps(file)
        with h5py.File(file, "r", locking=False) as content:
            return set(content["paths"].asstr("utf-8", "surrogateescape")[:])
    except _UNREADABLE:
        return set()


def has_images(file: Path, records: Records) -> bool:
    """Whether the features in `file` are of these images as they are now: the same bytes, in the same order."""
    try:
        check_heaps(file)
        with h5py.File(file, "r", locking=False) as content:
            return str(content.attrs.get("images", "")) == contents.digest_all(records.paths)
    except (*_UNREADABLE, DataError):
        return False


def find_mismatch(file: Path, expected: dict[str, str]) -> str | None:
    """Why `file` does not have the fingerprint `expected`; None if it does, although its data may be damaged."""
    try:
        check_heaps(file)
        with h5py.File(file, "r", locking=False) as content:
            stored = {part: str(content.attrs.get(part, "")) for part in _PARTS}
    except _UNREADABLE:
        return "the file is damaged"
    if not any(stored.values()):
        return "the file was written by another program"
    changed = [words for part, words in _PARTS.items() if stored[part] != expected[part]]
    return f"{', '.join(changed)} changed" if changed else None


def _choose_file(file: Path, expected: dict[str, str], records: Records) -> Path:
    """`file`; a name with the digest of the dataset's folder if `file` has the features of another folder's images.

    Images that changed in their folder thus replace their features, and a copy of the same images shares them.
    """
    folder = _folder_digest(records)
    other = file.with_name(f"{file.stem}.{folder}{file.suffix}")
    if other.is_file():
        return other
    if file.is_file() and find_mismatch(file, expected):
        with suppress(*_UNREADABLE), h5py.File(file, "r", locking=False) as content:
            return file if str(content.attrs.get(FOLDER, folder)) == folder else other
    return file


def _folder_digest(records: Records) -> str:
    folder = contents.dataset_folder(records.paths[0])
    return hashlib.blake2b(os.fsencode(folder), digest_size=4).hexdigest()


def _remove_oldest(file: Path) -> None:
    """Of the files for other folders, of which `file` has just been written, keep the latest."""
    name = re.fullmatch(r"(.+)\.[0-9a-f]{8}", file.stem)
    if name:
        same = re.compile(re.escape(name[1]) + r"\.[0-9a-f]{8}\.h5")
        others = [path for path in file.parent.iterdir() if same.fullmatch(path.name)]
        with suppress(FileNotFoundError):  # another process has removed it
            for path in sorted(others, key=lambda path: path.stat().st_mtime_ns)[:-OTHER_FOLDERS]:
                path.unlink()


# The exceptions of h5py for truncated, overwritten or incomplete files.
_UNREADABLE = (OSError, KeyError, RuntimeError, ValueError, TypeError, MemoryError)


def _load(file: Path, expected: dict[str, str], size: int, progress: Progress) -> np.ndarray | None:
    """The matrix in `file`; None if the file is stale, damaged or missing."""
    if not file.is_file():
        return None
    reason = find_mismatch(file, expected)
    if reason is None:
        try:
            with h5py.File(file, "r", locking=False) as content:
                matrix, digest = content["features"][:], content.attrs[CONTENT]
            if digest == _digest(matrix):
                partial.remove_abandoned(file)
                progress.note(f"{file.name}: {size} cached features, no image decoded")
                return np.asarray(matrix)
            reason = "its features changed"
        except _UNREADABLE:
            reason = "the file is damaged"
    progress.note(f"{file.name}: not used, {reason}; re-extracting")
    return None


def _extract(
    file: Path, expected: dict[str, str], extractor: Extractor, records: Records, progress: Progress
) -> np.ndarray:
    """The feature matrix of `records`, which is also written to `file`; resumes an interrupted extraction."""
    main = distributed.is_main() or not distributed.active()
    with partial.open_partial(file, expected) if main else nullcontext(partial.NOTHING) as store:
        matrix = extract_rows(store, file, extractor, records, dtype=np.dtype(expected["dtype"]), progress=progress)
        features, attributes = _as_features(matrix, records), expected | {CONTENT: _digest(matrix)}
        attributes[FOLDER] = _folder_digest(records)
        distributed.run_on_main(lambda: feature_files.write(file, features, attributes, dtype=expected["dtype"]))
        distributed.run_on_main(functools.partial(_remove_oldest, file))
    return matrix


def extract_rows(
    store: partial.Partial, file: Path, extractor: Extractor, records: Records, *, dtype: np.dtype, progress: Progress
) -> np.ndarray:
    """(N, D) `dtype`: the features of `records`, from the first row on that is not in `store`, which gets the others.

    `file`: what the progress is called after.
    """
    size, completed = len(records), distributed.run_on_main(functools.partial(getattr, store, "rows"))
    matrix, done = np.empty((size, completed.shape[1]), dtype), len(completed)
    matrix[:done] = completed
    if done:
        progress.note(f"{file.name}: resuming at {done}/{size}")
    with progress.task(f"extract {file.stem}", size) as advance:
        steps = extractor.stream(records, start=done, progress=progress) if done < size else ()
        for rows in steps:
            stored = _as_stored(rows, dtype, records.paths[done : done + len(rows)])
            matrix = matrix if matrix.shape[1] else np.empty((size, rows.shape[1]), dtype)
            matrix[done : done + len(rows)] = stored
            store.append(stored)
            done += len(rows)
            advance(done)
    return matrix


def _as_stored(rows: np.ndarray, dtype: np.dtype, paths: np.ndarray) -> np.ndarray:
    """The rows as `dtype`; `DataError` for a value out of its range."""
    with np.errstate(over="ignore"):
        stored = rows.astype(dtype, copy=False)
    overflowed = (np.isinf(stored) & np.isfinite(rows)).any(axis=1)
    if overflowed.any():
        raise DataError(f"{paths[overflowed.argmax()]}: a feature is too large for {dtype}. Use --dtype float32.")
    return stored


def _as_features(matrix: np.ndarray, records: Records) -> Features:
    paths = np.array([str(path) for path in records.paths], dtype=object)
    return Features(matrix.astype(np.float32, copy=False), records.pids, records.camids, paths, records.clothes)


def _digest(matrix: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(matrix).data, digest_size=16).hexdigest()
