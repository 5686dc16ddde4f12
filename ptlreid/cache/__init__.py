"""Features on disk: with a fingerprint of everything they depend on, so that stale ones are never used.

`cached` is the way in. docs/file-formats.md describes the file for other programs; `partial` keeps what an interrupted
extraction has got.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from ptlreid import contents, distributed
from ptlreid.cache import partial
from ptlreid.errors import DataError
from ptlreid.models.weights import WeightsFile
from ptlreid.network_types import Readout
from ptlreid.progress import Progress, Silent
from ptlreid.records import Records
from ptlreid.retrieval import feature_files
from ptlreid.retrieval.types import Features
from ptlreid.views import EvalView

SCHEMA = "2"
CONTENT = "content"  # the attribute with the digest of the features themselves

Dtype = Literal["float32", "float16"]
Extract = Callable[[int], Iterator[np.ndarray]]  # the features of the records from this row on, some rows at a time

# Each part of a fingerprint by the words in which a change is reported.
_PARTS = {
    "schema": "the file's schema",
    "weights": "the weights",
    "network": "the network",
    "readout": "how features are read",
    "view": "the view",
    "dtype": "the number format",
    "images": "the images",
    "labels": "the identities or cameras",
}


@dataclass(frozen=True)
class Source:
    """What features are made with: weights of a network, the way they are read, the view of an image; how stored."""

    saved: WeightsFile
    readout: Readout
    view: EvalView
    dtype: Dtype = "float32"


def load_or_extract(
    file: Path, source: Source, records: Records, extract: Extract, *, progress: Progress | None = None
) -> Features:
    """The features of `records`: read from `file` where its fingerprint is the same, otherwise from `extract`.

    A file of another fingerprint, or one that is damaged, is replaced, and `progress` is told which part changed.
    What is extracted is kept in blocks, so that an interrupted extraction goes on; the whole is written aside and
    renamed: two writers at once both leave a whole file. Of joined processes, the main one reads and writes, all
    extract, and all get the features. As float16, features are rounded before their first use, too.
    """
    progress = progress or Silent()
    expected = distributed.run_on_main(lambda: fingerprint(source, records))
    matrix = distributed.run_on_main(lambda: _reused(file, expected, len(records), progress))
    return _extracted(file, expected, records, extract, progress) if matrix is None else _features(matrix, records)


def status(file: Path, source: Source, records: Records) -> str:
    """What `cached` would do, in words; the features themselves are not read."""
    expected = fingerprint(source, records)
    reason = mismatch(file, expected) if file.is_file() else "nothing is there"
    if reason is None:
        return "cached"
    rows = partial.count_rows(file, expected)
    return f"to extract: {reason}" + (f"; going on after {rows} of {len(records)}" if rows else "")


def fingerprint(source: Source, records: Records) -> dict[str, str]:
    """What the features of `records` depend on, by part; image files are digested, not decoded."""
    labels = hashlib.blake2b(records.pids.tobytes() + records.camids.tobytes(), digest_size=16)
    return {
        "schema": SCHEMA,
        "weights": source.saved.digest,
        "network": json.dumps(source.saved.spec.describe(), sort_keys=True),
        "readout": json.dumps(source.readout.describe(), sort_keys=True),
        "view": json.dumps(source.view.describe(), sort_keys=True),
        "dtype": source.dtype,
        "images": contents.digest_all(records.paths),
        "labels": labels.hexdigest(),
    }


def mismatch(file: Path, expected: dict[str, str]) -> str | None:
    """Why the features in `file` are not those of the fingerprint `expected`; None when they are, if undamaged."""
    try:
        with h5py.File(file, "r") as content:
            found = {part: str(content.attrs.get(part, "")) for part in _PARTS}
    except _UNREADABLE:
        return "it is damaged"
    if not any(found.values()):
        return "another program wrote it"
    changed = [words for part, words in _PARTS.items() if found[part] != expected[part]]
    return f"{', '.join(changed)} changed" if changed else None


# What h5py raises for files that are cut, overwritten or without what is asked for.
_UNREADABLE = (OSError, KeyError, RuntimeError, ValueError, TypeError)


def _reused(file: Path, expected: dict[str, str], size: int, progress: Progress) -> np.ndarray | None:
    """The matrix in `file`, None where it may not be used or is not there."""
    if not file.is_file():
        return None
    reason = mismatch(file, expected)
    if reason is None:
        try:
            with h5py.File(file, "r") as content:
                matrix, digest = content["features"][:], content.attrs[CONTENT]
            if digest == _digest(matrix):
                progress.note(f"{file.name}: {size} features reused, no image decoded")
                return np.asarray(matrix)
            reason = "its features changed"
        except _UNREADABLE:
            reason = "it is damaged"
    progress.note(f"{file.name}: not used, {reason}; extracting anew")
    return None


def _extracted(
    file: Path, expected: dict[str, str], records: Records, extract: Extract, progress: Progress
) -> Features:
    """The features of `records`, in `file` when this returns; what was there of them is not extracted again."""
    size, dtype = len(records), np.dtype(expected["dtype"])
    main = distributed.is_main() or not distributed.active()
    with partial.open_partial(file, expected) if main else nullcontext(partial.NOTHING) as kept:
        known = distributed.run_on_main(lambda: kept.rows)
        matrix, done = np.empty((size, known.shape[1]), dtype), len(known)
        matrix[:done] = known
        if done:
            progress.note(f"{file.name}: going on after {done} of {size} features")
        with progress.task(f"extract {file.stem}", size) as advance:
            for rows in extract(done) if done < size else ():
                stored = _as_stored(rows, dtype, records.paths[done : done + len(rows)])
                matrix = matrix if matrix.shape[1] else np.empty((size, rows.shape[1]), dtype)
                matrix[done : done + len(rows)] = stored
                kept.append(stored)
                done += len(rows)
                advance(done)
        features = _features(matrix, records)
        attributes = expected | {CONTENT: _digest(matrix)}
        distributed.run_on_main(lambda: feature_files.write(file, features, attributes, dtype=dtype.name))
    return features


def _as_stored(rows: np.ndarray, dtype: np.dtype, paths: np.ndarray) -> np.ndarray:
    """The rows as `dtype`; `DataError` for a number that it cannot hold."""
    with np.errstate(over="ignore"):
        stored = rows.astype(dtype, copy=False)
    lost = (np.isinf(stored) & np.isfinite(rows)).any(axis=1)
    if lost.any():
        raise DataError(f'{paths[lost.argmax()]}: a feature too large for {dtype}. Set dtype = "float32".')
    return stored


def _features(matrix: np.ndarray, records: Records) -> Features:
    paths = np.array([str(path) for path in records.paths], dtype=object)
    return Features(matrix.astype(np.float32, copy=False), records.pids, records.camids, paths)


def _digest(matrix: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(matrix).data, digest_size=16).hexdigest()
