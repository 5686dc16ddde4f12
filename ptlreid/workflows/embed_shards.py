"""`ptlreid embed --shards`: features in a folder of shards, by any number of processes, any of which may be killed.

Each process takes the next shard that is not complete and not locked, extracts and writes it, and adds it to the
manifest. Nothing is exchanged but files, so processes may be on several hosts with a shared disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from typing import Any, cast

import numpy as np

from ptlreid import cache, contents
from ptlreid.cache import partial
from ptlreid.errors import DataError, OptionError
from ptlreid.features import Extractor
from ptlreid.json_files import write_json
from ptlreid.locks import lock_if_free, wait_for_lock
from ptlreid.models.graph_file import GraphFile
from ptlreid.models.weights import WeightsFile
from ptlreid.progress import Progress
from ptlreid.retrieval.feature_exports import SUFFIXES
from ptlreid.retrieval.feature_files import NAMES
from ptlreid.retrieval.shard_files import Columns, matrix_file, write_shard
from ptlreid.retrieval.shards import (
    KINDS,
    check_digests,
    count_shards,
    is_shard_folder,
    manifest_file,
    map_shard,
    read_manifest,
)
from ptlreid.settings import EmbedSettings
from ptlreid.shards_schema import Manifest, ShardEntry
from ptlreid.workflows import embed
from ptlreid.workflows.image_sets import ImageSet

_POLL_SECONDS = 1.0  # between looks at shards that other processes extract
# Keys of the manifest that the shards of a folder share, as messages call them.
_SHARED = KINDS | {"dtype": "dtype", "rows_per_shard": "rows a shard", "list": "images, labels or cameras"}


def check_folder(folder: Path) -> None:
    """Raise `OptionError` for a place where no folder of shards can be."""
    if folder.suffix in SUFFIXES or folder.is_file():
        raise OptionError(f"--out {folder} with --shards: is a file, expected a folder. Name one.")


def embed_shards(
    images: ImageSet, extractor: Extractor, settings: EmbedSettings, folder: Path, progress: Progress
) -> dict[str, Any]:
    """What is in the folder once all shards are complete, whichever process wrote them.

    Raises `DataError` where the folder has shards of other images, weights or options, which are never mixed.
    """
    assert settings.shards is not None
    embed.note_cameras(images.records.sources, images.records.camids, extractor, settings, progress)
    writer = _Writer(images, extractor, settings, folder, progress)
    writer.claim()
    if contents.verifying():
        writer.check_images()
    waiting = False
    while missing := writer.find_missing():
        if any(writer.write(number) for number in missing):
            continue
        if not waiting:
            progress.note(f"{folder}: waiting for other processes, which extract {len(missing)} shards")
            waiting = True
        sleep(_POLL_SECONDS)
    return writer.finish()


@dataclass(frozen=True)
class _Writer:
    """One of the processes that write the shards of a folder."""

    images: ImageSet
    extractor: Extractor
    settings: EmbedSettings
    folder: Path
    progress: Progress

    @property
    def rows(self) -> int:
        """Listed images a shard."""
        assert self.settings.shards is not None
        return self.settings.shards

    def claim(self) -> None:
        """Write a manifest without shards, or compare the one that is there with what it would be."""
        file = manifest_file(self.folder)
        with self._lock():
            if not file.is_file():
                write_json(file, cast(dict[str, Any], self._describe(self.extractor.network.feature_width)))
                return
            if not is_shard_folder(self.folder):
                raise DataError(f"{file}: is of another program, expected a folder without it. Choose another --out.")
            found = read_manifest(self.folder)
            self._refuse_others(found)
            whole = [entry for entry in found["shards"] if self._is_whole(found, entry)]
            if len(whole) < len(found["shards"]):
                self._save(found, whole)

    def _refuse_others(self, found: Manifest) -> None:
        """Raise `DataError` where the manifest is of other images, weights or options."""
        expected = self._describe(found["width"])
        differing = [
            f"{words} ({_shorten(found[key])}, not {_shorten(expected[key])})"  # type: ignore[literal-required]  # keys of both
            for key, words in _SHARED.items()
            if found[key] != expected[key]  # type: ignore[literal-required]
        ]
        if differing:
            raise DataError(
                f"{self.folder}: holds shards with other {'; other '.join(differing)}: expected the same, as shards "
                "are not mixed. Repeat the command that wrote them, or choose another --out."
            )

    def _is_whole(self, manifest: Manifest, entry: ShardEntry) -> bool:
        """Whether the files of a shard are there and of the right size, and with --verify hold what was written."""
        try:
            map_shard(self.folder, manifest, entry)
            if contents.verifying():
                check_digests(self.folder, entry)
        except DataError as error:
            self.progress.note(f"extracting shard {entry['number']} again: {error}")
            return False
        return True

    def find_missing(self) -> list[int]:
        """The shards that are not complete."""
        manifest = read_manifest(self.folder)
        complete = {one["number"] for one in manifest["shards"]}
        return [number for number in range(count_shards(manifest)) if number not in complete]

    def write(self, number: int) -> bool:
        """Extract a shard, and add it to the manifest; False if another process does, or did."""
        file = matrix_file(self.folder, number)
        with lock_if_free(self.folder / f".{file.stem}.lock") as free:
            if not free or number not in self.find_missing():
                return False
            images = self._part(number)
            if self.settings.skip_bad:
                images = embed.skip_bad_images(images, self.progress)
            expected = cache.fingerprint(self.extractor, images.records, self.settings.dtype)
            with partial.open_partial(file, expected) as store:
                matrix = self._extract(images, store, file)
                if not len(matrix):  # all were skipped
                    matrix = matrix.reshape(0, read_manifest(self.folder)["width"])
                records = images.records
                paths = np.array([str(path) for path in records.paths], dtype=object)
                columns = Columns(records.pids, records.camids, paths, records.clothes, images.names)
                digests = write_shard(self.folder, number, matrix, columns)
                skipped = [{"path": path, "reason": reason} for path, reason in images.skipped.items()]
                entry = {"number": number, "rows": len(matrix), "matrix": digests[0], "columns": digests[1]}
                self._add(cast(ShardEntry, entry | {"images": expected["images"], "skipped": skipped}))
        return True

    def check_images(self) -> None:
        """For --verify: raise `DataError` where the images of a complete shard have changed."""
        for entry in read_manifest(self.folder)["shards"]:
            skipped = {one["path"] for one in entry["skipped"]}
            paths = [path for path in self._part(entry["number"]).records.paths if str(path) not in skipped]
            if contents.digest_all(paths) != entry["images"]:
                raise DataError(
                    f"{matrix_file(self.folder, entry['number'])}: its images changed since they were extracted, from "
                    f"{paths[0]} to {paths[-1]}: expected the same. Choose another --out."
                )

    def finish(self) -> dict[str, Any]:
        """What is in the folder. Removes what killed processes left of shards that are complete."""
        with self._lock():
            manifest = read_manifest(self.folder)
        for entry in manifest["shards"]:
            file = matrix_file(self.folder, entry["number"])
            partial.remove_abandoned(file)
            with lock_if_free(self.folder / f".{file.stem}.lock"):
                pass
        skipped = [one for entry in manifest["shards"] for one in entry["skipped"]]
        if not manifest["rows"]:
            raise embed.none_readable(replace(self.images, skipped={one["path"]: one["reason"] for one in skipped}))
        left_out, records = {one["path"] for one in skipped}, self.images.records
        kept = np.array([str(path) not in left_out for path in records.paths])
        pids, camids = records.pids[kept], records.camids[kept]
        return {
            "files": [str(self.folder)],
            "shards": len(manifest["shards"]),
            "images": manifest["rows"],
            "width": manifest["width"],
            "identities": len(np.unique(pids[pids >= 0])),
            "cameras": len(np.unique(camids[camids >= 0])),
            "skipped": skipped,
        }

    def _lock(self) -> Any:
        return wait_for_lock(manifest_file(self.folder), self.progress, command="ptlreid embed")

    def _part(self, number: int) -> ImageSet:
        first = number * self.rows
        return self.images.select(np.arange(first, min(first + self.rows, len(self.images.records))))

    def _extract(self, images: ImageSet, store: partial.Partial, file: Path) -> np.ndarray:
        dtype = np.dtype(self.settings.dtype)
        with embed.naming_bad_images(images, self.settings, self.progress):
            return cache.extract_rows(store, file, self.extractor, images.records, dtype=dtype, progress=self.progress)

    def _add(self, entry: ShardEntry) -> None:
        """Add a complete shard to the manifest."""
        with self._lock():
            manifest = read_manifest(self.folder)
            self._save(manifest, [*(one for one in manifest["shards"] if one["number"] != entry["number"]), entry])

    def _save(self, manifest: Manifest, complete: list[ShardEntry]) -> None:
        """Write the manifest with these shards."""
        manifest["shards"] = sorted(complete, key=lambda one: one["number"])
        manifest["rows"] = sum(one["rows"] for one in complete)
        write_json(manifest_file(self.folder), cast(dict[str, Any], manifest))

    def _describe(self, width: int) -> Manifest:
        """The manifest without shards."""
        model, records, names = self.extractor.model, self.images.records, self.images.names
        assert isinstance(model, WeightsFile | GraphFile), "features of a network in memory are not kept"
        shared = cache.fingerprint(self.extractor, records.select(np.arange(0)), self.settings.dtype)
        numbers = [records.pids, records.camids, *([] if records.clothes is None else [records.clothes])]
        if self.extractor.cameras:
            numbers.append(self.extractor.cameras.find_rows(records.sources, records.camids))
        digest = hashlib.blake2b(digest_size=16)
        for texts in (map(str, records.paths), *(column.tolist() for column in names.values())):
            _digest_texts(digest, texts)
        for column in numbers:
            digest.update(column.tobytes())
        return {
            "kind": "ptlreid shards",
            "schema": 1,
            "weights": model.digest,
            "network": json.loads(shared["network"]),
            "readout": json.loads(shared["readout"]),
            "view": json.loads(shared["view"]),
            "cameras": self.extractor.cameras.digest if self.extractor.cameras else "",
            "dtype": self.settings.dtype,
            "width": width,
            "rows_per_shard": self.rows,
            "list": {"images": len(records), "digest": digest.hexdigest()},
            "names": [name for name in NAMES if name in names],
            "rows": 0,
            "shards": [],
        }


def _digest_texts(digest: Any, texts: Iterable[str]) -> None:
    for text in texts:
        digest.update(os.fsencode(text) + b"\0")
    digest.update(b"\0")


def _shorten(value: object) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
