"""Packed images: those of a dataset at one size in one HDF5 file of its folder, read without any decoding.

Their pixels lie in it one after another, so that a reader maps them into memory and needs HDF5 for the index alone.
An image is used only while its file has the size and the time of change that it had when it was packed.
docs/file-formats.md describes the file for other programs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from ptlreid.errors import DataError
from ptlreid.progress import Progress, Silent
from ptlreid.views import INTERPOLATION

SCHEMA = "1"
_LEVELS = 4  # of folders above an image in which its pack is looked for
_AGAIN = "Make it again with `ptlreid prepare --pack`, or remove it."


def name(height: int, width: int) -> str:
    """The file's name, such as packed-256x128.h5."""
    return f"packed-{height}x{width}.h5"


def attributes(height: int, width: int) -> dict[str, str | int]:
    """What the pixels of a pack depend on beside the image files."""
    return {"schema": SCHEMA, "height": height, "width": width, "interpolation": INTERPOLATION}


def state(path: str | Path) -> tuple[int, int]:
    """Size and time of change of a file, in bytes and nanoseconds; (-1, -1) where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - in half the time of Path.stat, for each image of an epoch
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Pack:
    """A pack of N images without their pixels.

    `paths`: of the image files, below the pack's folder, with `/`. `states`: see `state`. `digests`, `contents`: of
    the bytes of each file, and of its packed pixels. `offset`: where in the file the pixels begin. `version`: the
    state of the pack itself when it was opened.
    """

    file: Path
    version: tuple[int, int]
    shape: tuple[int, int, int, int]
    offset: int
    paths: list[str]
    states: list[tuple[int, int]]
    digests: list[str]
    contents: list[str]

    @cached_property
    def places(self) -> dict[str, int]:
        """The number of each image by its path."""
        return {path: place for place, path in enumerate(self.paths)}

    @cached_property
    def images(self) -> np.ndarray | None:
        """(N, H, W, 3) uint8, mapped; None where another pack has taken the file's name since."""
        try:
            images = np.memmap(self.file, np.uint8, "r", self.offset, self.shape)
        except (OSError, ValueError):
            return None
        return np.asarray(images) if state(self.file) == self.version else None


def open_pack(file: Path) -> Pack:
    """The pack in `file`; `DataError` when it is damaged or of another kind."""
    version = state(file)
    try:
        with h5py.File(file, "r") as content:
            images = content["images"]
            expected = attributes(*images.shape[1:3])
            found = {key: content.attrs[key] for key in expected}
            if found != expected or file.name != name(*images.shape[1:3]):
                raise DataError(f"{file}: is of another kind: {found}, and not {expected}. {_AGAIN}")
            paths, digests, contents = (content[key].asstr()[:].tolist() for key in ("paths", "digests", "contents"))
            states = [(size, changed) for size, changed in content["states"][:].tolist()]
            pack = Pack(file, version, images.shape, images.id.get_offset() or 0, paths, states, digests, contents)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: is no whole pack ({error}). {_AGAIN}") from None
    lengths = {len(values) for values in (paths, states, digests, contents)}
    if lengths != {pack.shape[0]} or not pack.offset:
        raise DataError(f"{file}: is no whole pack (its parts differ in length, or its pixels lie apart). {_AGAIN}")
    return pack


class Packed:
    """What can be had from packs for some records, by row. Each process maps a pack when it first reads from it."""

    def __init__(self, places: dict[int, tuple[Pack, int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def get(self, row: int) -> np.ndarray | None:
        """The (H, W, 3) uint8 image, not to be written to; None where its file must be read."""
        if row not in self._places:
            return None
        pack, place = self._places[row]
        return None if pack.images is None else pack.images[place]


def find(paths: Iterable[Path], height: int, width: int, progress: Progress | None = None) -> Packed:
    """The images at `paths` that are in packs of this size, in a folder above each.

    `progress` is told of every pack that cannot be used, or not for all images, and why.
    """
    finder = _Finder(name(height, width), progress or Silent())
    places: dict[int, tuple[Pack, int]] = {}
    stale: dict[Path, list[str]] = {}
    for row, path in enumerate(map(str, paths)):
        folder, _, file = path.rpartition(os.sep)
        home = finder.home(folder)
        if home is None:
            continue
        pack, below = home
        place = pack.places.get(below + file)
        if place is None or pack.states[place] != state(path):
            stale.setdefault(pack.file, []).append(path)
        else:
            places[row] = pack, place
    for pack_file, missed in stale.items():
        finder.progress.note(
            f"{pack_file}: {len(missed):,} images came or changed after it was made, such as {missed[0]}. They are "
            "read from their files; `ptlreid prepare --pack` brings it up to date."
        )
    return Packed(places)


class _Finder:
    """Which pack belongs to a folder of images: each is looked for, and opened, once."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name, self.progress = name, progress
        self._homes: dict[str, tuple[Pack, str] | None] = {}
        self._packs: dict[Path, Pack | None] = {}

    def home(self, folder: str) -> tuple[Pack, str] | None:
        """The pack, and the path from its folder to `folder`, such as `query/`; None where there is none."""
        if folder not in self._homes:
            self._homes[folder] = self._look(Path(folder))
        return self._homes[folder]

    def _look(self, folder: Path) -> tuple[Pack, str] | None:
        for above in [folder, *folder.parents][:_LEVELS]:
            if above not in self._packs:
                self._packs[above] = self._open(above / self.name)
            pack = self._packs[above]
            if pack is not None:
                return pack, "".join(f"{part}/" for part in folder.relative_to(above).parts)
        return None

    def _open(self, file: Path) -> Pack | None:
        if not file.is_file():
            return None
        try:
            return open_pack(file)
        except DataError as error:
            self.progress.note(f"{error} Until then, image files are read.")
            return None
