"""Folders of images whose cached features are current, found without reading a digest for each image.

After a search in a folder, its files are noted as they are: all names in it and in the folders in it, and the state of
each file, by which `contents` tells whether a file has changed. As long as both are the same, the cached features are
those of the images. Of 100,000 files that is known in half a second; reading names, labels and digests as the first
search does takes ten times as long.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
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
from ptlreid.models.graph_file import GraphFile
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
    model = extractor.model
    assert isinstance(model, WeightsFile | GraphFile), "features of a network in memory are not cached"
    parts = {
        "schema": [_SCHEMA, cache.SCHEMA],
        "weights": model.digest,
        "network": model.spec.describe(),
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
    listing = list_names(folder)
    if listing is None or [str(path) for path in records.paths] != [str(folder / name) for name in listing.images]:
        return
    # A file that is no image is compared, too: an image folder could take its name.
    states = contents.read_states(f"{folder}/", listing.images + listing.others)
    if states[:, 2].max() >= began_ns - contents.MARGIN_NS:
        return
    stored = array_files.read_arrays(features_file, (), mapped=("features",)).attributes
    known, codes = np.unique(cameras.astype(str), return_inverse=True)
    about = {"key": key, "features": features_file.name, "content": stored[cache.CONTENT]}
    about |= {"source": str(records.sources[0]), "cameras": known.tolist()}
    texts = {"about": json.dumps(about).encode(), "names": _join(listing.images), "others": _join(listing.others)}
    texts |= {"folders": _join(listing.entries), "entries": _join(map("/".join, listing.entries.values()))}
    arrays = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
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
        same = _list_entries(folder, noted.folders) == noted.entries
        same = same and np.array_equal(contents.read_states(f"{folder}/", noted.names + noted.others), noted.states)
        if not same or digest.result() != noted.about["content"]:
            return None
    return _make(folder, stored, noted)


@dataclass(frozen=True)
class _Noted:
    """N images in `names`, and files that are none in `others`; (N + others, 4) `states` of both.

    `entries`: all names in each of the `folders`, joined. `codes`: (N,), places in `about["cameras"]`.
    """

    about: dict[str, Any]
    names: list[str]
    others: list[str]
    folders: list[str]
    entries: bytes
    states: np.ndarray
    codes: np.ndarray


def _read(file: Path) -> _Noted | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            about = json.loads(content["about"].tobytes())
            names, others, folders = (_split(content[name].tobytes()) for name in ("names", "others", "folders"))
            entries = content["entries"].tobytes()
            return _Noted(about, names, others, folders, entries, content["states"], content["codes"])
    except _UNREADABLE:
        return None


def _list_entries(folder: Path, folders: Sequence[str]) -> bytes:
    """All names in these folders below `folder`, as `_Noted` has them; none if a folder is not there any more."""
    try:
        return _join("/".join(sorted(os.listdir(f"{folder}/{prefix}"))) for prefix in folders)  # noqa: PTH208
    except OSError:
        return b""


def _join(names: Iterable[str]) -> bytes:
    """The names, each with a zero byte behind it."""
    return "".join(f"{name}\0" for name in names).encode(errors="surrogateescape")


def _split(text: bytes) -> list[str]:
    return text.decode(errors="surrogateescape").split("\0")[:-1]


def _make(folder: Path, stored: array_files.Arrays, noted: _Noted) -> KnownFolder:
    paths = np.empty(len(noted.names), dtype=object)
    prefix = str(folder / "x")[:-1]
    paths[:] = [prefix + name for name in noted.names]
    matrix = stored.arrays["features"].astype(np.float32, copy=False)
    features = Features(matrix, stored.arrays["pids"], stored.arrays["camids"], paths)
    return KnownFolder(features, np.array(noted.about["cameras"], dtype=object)[noted.codes], noted.about["source"])


def _digest(matrix: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(matrix).data, digest_size=16).hexdigest()


# What NumPy and json raise for files that are missing, truncated, overwritten or of another kind.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
