"""Folders of images whose cached features are current, found without reading a digest for each image.

After a search in a folder, its files are noted as they are: names, and the state of each, by which `contents` tells
whether a file has changed. As long as both are the same, the cached features are those of the images. Of 100,000 files
that is known in half a second; reading names, labels and digests as the first search does takes ten times as long.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptlreid import cache, contents
from ptlreid.datasets._source_files import list_names
from ptlreid.errors import DataError, PtlreidError
from ptlreid.features import Extractor
from ptlreid.files import atomic_write
from ptlreid.models.weights import WeightsFile
from ptlreid.records import Records
from ptlreid.retrieval import array_files
from ptlreid.retrieval.types import Features

_SCHEMA = 1


@dataclass(frozen=True)
class KnownFolder:
    """The features of a folder's images. `cameras`: (N,) object array of str, what the cameras are called.

    `source`: what the records call the dataset of all images.
    """

    features: Features
    cameras: np.ndarray
    source: str


def describe(extractor: Extractor, settings: dict[str, Any]) -> str:
    """What features and labels depend on besides the folder, as text. `settings`: those of how it is read."""
    assert isinstance(extractor.model, WeightsFile), "features of a network in memory are not cached"
    parts = {
        "schema": [_SCHEMA, cache.SCHEMA],
        "weights": extractor.model.digest,
        "network": extractor.model.spec.describe(),
        "readout": extractor.readout.describe(),
        "view": extractor.view.describe(),
        "cameras": extractor.cameras.digest if extractor.cameras else "",
        "settings": settings,
    }
    return json.dumps(parts, sort_keys=True)


def save(
    file: Path, folder: Path, key: str, *, features_file: Path, records: Records, cameras: np.ndarray, began_ns: int
) -> None:
    """Note in `file` that the features of `records`, all images in `folder`, are in `features_file`.

    `cameras`: what their cameras are called. Nothing is noted where the folder is being written to: a file that changed
    after `began_ns`, or shortly before, may not be the one whose features these are.
    """
    names = list_names(folder)
    if names is None or [str(path) for path in records.paths] != [str(folder / name) for name in names]:
        return
    states = contents.read_states(f"{folder}/", names)
    if (states < 0).any() or states[:, 2].max() >= began_ns - contents.MARGIN_NS:
        return
    stored = array_files.read_arrays(features_file, (), mapped=("features",)).attributes
    known, codes = np.unique(cameras.astype(str), return_inverse=True)
    about = {"key": key, "features": features_file.name, "content": stored[cache.CONTENT]}
    about |= {"source": str(records.sources[0]), "cameras": known.tolist()}
    texts = [_join(names), json.dumps(about).encode()]
    arrays = dict(zip(("names", "about"), (np.frombuffer(text, np.uint8) for text in texts), strict=True))
    try:
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, states=states, codes=codes.astype(np.int32), **arrays)  # type: ignore[arg-type]
    except PtlreidError:  # the disk is full: it saves time only
        return


def find(file: Path, folder: Path, key: str) -> KnownFolder | None:
    """The features of the images in `folder`, if `file` notes them with this key and nothing has changed since."""
    noted = None if contents.verifying() else _read(file)
    if noted is None or noted.about.get("key") != key:
        return None
    try:
        features_file = file.with_name(noted.about["features"])
        stored = array_files.read_arrays(features_file, ("features", "pids", "camids"), mapped=("features",))
    except DataError:
        return None
    matrix = stored.arrays["features"]
    with ThreadPoolExecutor(1) as pool:  # hashing, and waiting for the file system at the same time
        digest = pool.submit(_digest, matrix)
        names = list_names(folder)
        same = names is not None and _join(names) == noted.names
        same = same and np.array_equal(contents.read_states(f"{folder}/", names or []), noted.states)
        if names is None or not same or digest.result() != noted.about["content"]:
            return None
    return _make(folder, names, stored, noted)


@dataclass(frozen=True)
class _Noted:
    """`names`: of the files, between zero bytes. `states`: (N, 4). `codes`: (N,), places in `about["cameras"]`."""

    about: dict[str, Any]
    names: bytes
    states: np.ndarray
    codes: np.ndarray


def _read(file: Path) -> _Noted | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            return _Noted(about, content["names"].tobytes(), content["states"], content["codes"])
    except _UNREADABLE:
        return None


def _join(names: Sequence[str]) -> bytes:
    return "\0".join(names).encode(errors="surrogateescape")


def _make(folder: Path, names: Sequence[str], stored: array_files.Arrays, noted: _Noted) -> KnownFolder:
    paths = np.empty(len(names), dtype=object)
    prefix = str(folder / "x")[:-1]
    paths[:] = [prefix + name for name in names]
    matrix = stored.arrays["features"].astype(np.float32, copy=False)
    features = Features(matrix, stored.arrays["pids"], stored.arrays["camids"], paths)
    return KnownFolder(features, np.array(noted.about["cameras"], dtype=object)[noted.codes], noted.about["source"])


def _digest(matrix: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(matrix).data, digest_size=16).hexdigest()


# What NumPy and json raise for files that are missing, truncated, overwritten or of another kind.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
