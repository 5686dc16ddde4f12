"""Features on disk, HDF5: with a fingerprint of everything they depend on, so that stale ones are never used.

A file holds the datasets `features` (N, D) float32, `pids` and `camids` (N,) int64, `paths` (N,) UTF-8, and one
attribute for each part of the fingerprint. docs/file-formats.md describes it for other programs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ptlreid.errors import DataError
from ptlreid.files import digest_all, replacing
from ptlreid.models.weights import Saved
from ptlreid.outputs import Readout
from ptlreid.progress import Progress, Silent
from ptlreid.records import Records
from ptlreid.retrieval.values import Features
from ptlreid.views import EvalView

SCHEMA = "1"

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
    """What features are made with: weights of a network, the way they are read, and the view of an image."""

    saved: Saved
    readout: Readout
    view: EvalView


def cached(
    file: Path,
    source: Source,
    records: Records,
    extract: Callable[[], Features],
    *,
    progress: Progress | None = None,
) -> Features:
    """The features of `records`: read from `file` where its fingerprint is the same, otherwise from `extract()`.

    A file of another fingerprint, or one that is damaged, is replaced, and `progress` is told which part changed.
    New features are written aside and renamed: two writers at once both leave a whole file.
    """
    progress = progress or Silent()
    expected = fingerprint(source, records)
    if file.is_file():
        reason = mismatch(file, expected)
        if reason is None:
            progress.note(f"{file.name}: {len(records)} features reused, no image decoded")
            return read(file)
        progress.note(f"{file.name}: not used, {reason}; extracting anew")
    features = extract()
    write(file, features, expected)
    return features


def fingerprint(source: Source, records: Records) -> dict[str, str]:
    """What the features of `records` depend on, by part; every image file is read, none is decoded."""
    labels = hashlib.blake2b(records.pids.tobytes() + records.camids.tobytes(), digest_size=16)
    return {
        "schema": SCHEMA,
        "weights": source.saved.digest,
        "network": json.dumps(source.saved.spec.describe(), sort_keys=True),
        "readout": json.dumps(source.readout.describe(), sort_keys=True),
        "view": json.dumps(source.view.describe(), sort_keys=True),
        "dtype": "float32",
        "images": digest_all(records.paths),
        "labels": labels.hexdigest(),
    }


def mismatch(file: Path, expected: dict[str, str]) -> str | None:
    """Why the features in `file` are not those of the fingerprint `expected`; None when they are."""
    try:
        with h5py.File(file, "r") as content:
            found = {part: str(content.attrs.get(part, "")) for part in _PARTS}
            whole = {"features", "pids", "camids", "paths"} <= set(content)
    except OSError:
        return "it is damaged"
    changed = [words for part, words in _PARTS.items() if found[part] != expected[part]]
    if changed:
        return f"{', '.join(changed)} changed"
    return None if whole else "it is not whole"


def read(file: Path) -> Features:
    """The features in `file`; `DataError` when it is damaged or lacks a part."""
    try:
        with h5py.File(file, "r") as content:
            paths = np.array(content["paths"].asstr()[:], dtype=object)
            return Features(content["features"][:], content["pids"][:], content["camids"][:], paths)
    except (OSError, KeyError) as error:
        raise DataError(f"{file}: not a whole feature file ({error}). Remove it and evaluate again.") from None


def write(file: Path, features: Features, attributes: dict[str, str]) -> None:
    """Write the features and their fingerprint to `file`, aside and renamed."""
    rows = max(1, min(len(features.matrix), 2**20 // max(1, features.matrix[:1].nbytes)))  # about 1 MiB a chunk
    with replacing(file) as temporary, h5py.File(temporary, "w") as content:
        content.create_dataset("features", data=features.matrix, chunks=(rows, features.matrix.shape[1]))
        content["pids"], content["camids"] = features.pids, features.camids
        content.create_dataset("paths", data=features.paths, dtype=h5py.string_dtype())
        content.attrs.update(attributes)
