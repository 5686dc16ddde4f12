"""Packs: the resized images of a dataset in one HDF5 file in its folder, read without decoding.

The pixels are contiguous in the file: readers map them into memory and need HDF5 only for the index. A packed image
is used only as long as its file has the size and modification time that it had when it was packed.
docs/file-formats.md describes the file for other programs.

Damage to HDF5's own structures could keep the library busy for ever, or lead to other pixels. Files of format 1.8 have
a checksum in each of them, and the index has a digest. No string is of variable length: their heaps have no checksums.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import h5py
import numpy as np

from ptlreid.contents import file_state
from ptlreid.errors import DataError
from ptlreid.network_types import Interpolation
from ptlreid.progress import Progress
from ptlreid.views import EvalView, View

SCHEMA = "2"
FORMAT = "v108"  # of HDF5, in h5py's words
_SIGNATURE = b"\x89HDF\r\n\x1a\n\x02"  # of a file of that format
_LEVELS = 4  # folders that are searched for a pack, upwards from that of the image
_ADVICE = "Rebuild it with `ptlreid pack`, or remove it."


def pack_name(view: View) -> str:
    """The file name of a pack for this view, such as packed-256x128.h5 or packed-384x128-bicubic.h5."""
    suffix = "" if view.interpolation == "bilinear" else f"-{view.interpolation}"
    return f"packed-{view.height}x{view.width}{suffix}.h5"


def pack_attributes(view: View) -> dict[str, str | int]:
    """Everything that the pixels of a pack depend on, besides the image files."""
    described = view.describe()
    return {"schema": SCHEMA, **{key: described[key] for key in ("height", "width", "decoding", "interpolation")}}


@dataclass(frozen=True)
class Pack:
    """The index of a pack of N images.

    `paths`: the image files, relative to the pack's folder, with `/`. `states`: see `file_state`. `digests`: of the
    bytes of each file. `pixel_digests`: of its packed pixels. `offset`: where the pixels begin in the file.
    `version`: the state of the pack itself when it was opened.
    """

    file: Path
    version: tuple[int, int]
    shape: tuple[int, int, int, int]
    offset: int
    paths: list[str]
    states: list[tuple[int, int]]
    digests: list[str]
    pixel_digests: list[str]

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each image by its path."""
        return {path: row for row, path in enumerate(self.paths)}

    @cached_property
    def images(self) -> np.ndarray | None:
        """(N, H, W, 3) uint8, memory-mapped; None if the file was replaced since the pack was opened."""
        try:
            images = np.memmap(self.file, np.uint8, "r", self.offset, self.shape)
        except (OSError, ValueError):
            return None
        return np.asarray(images) if file_state(self.file) == self.version else None


def index_arrays(
    paths: list[str], states: list[tuple[int, int]], digests: list[str], pixel_digests: list[str]
) -> dict[str, np.ndarray]:
    """The index of a pack as the arrays that its file has, by name."""
    text = "\0".join(paths).encode("utf-8", "surrogateescape")
    return {
        "paths": np.frombuffer(text, np.uint8),
        "states": np.array(states, np.int64).reshape(-1, 2),
        "digests": np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 16),
        "contents": np.frombuffer(bytes.fromhex("".join(pixel_digests)), np.uint8).reshape(-1, 16),
    }


def index_digest(arrays: dict[str, np.ndarray]) -> str:
    """The digest of `index_arrays`, as the attribute `index` of a pack has it."""
    content = b"".join(array.tobytes() for array in arrays.values())
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def open_pack(file: Path) -> Pack:
    """The pack in `file`; `DataError` if it is damaged, or of another version or size."""
    version = file_state(file)
    try:
        with file.open("rb") as stream:
            if stream.read(len(_SIGNATURE)) != _SIGNATURE:
                raise ValueError("damaged, or of an earlier version")
        with h5py.File(file, "r", locking=False) as content:
            images = content["images"]
            views = {pack_name(view): view for view in _views(*images.shape[1:3])}
            expected = pack_attributes(views.get(file.name) or next(iter(views.values())))
            found = {key: _plain(content.attrs.get(key)) for key in expected}
            if found != expected or file.name not in views:
                raise DataError(f"{file}: a pack with {found}: expected {expected}. {_ADVICE}")
            index = {key: content[key][:] for key in ("paths", "states", "digests", "contents")}
            if _plain(content.attrs.get("index")) != index_digest(index):
                raise ValueError("its index is damaged")
            shape, offset = images.shape, images.id.get_offset() or 0
        paths = index["paths"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        states = [(size, changed) for size, changed in index["states"].tolist()]
        digests, pixel_digests = ([row.tobytes().hex() for row in index[key]] for key in ("digests", "contents"))
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(f"{file}: not a complete pack ({error}). {_ADVICE}") from None
    lengths = {len(values) for values in (paths, states, digests, pixel_digests)}
    if lengths != {shape[0]} or not offset:
        raise DataError(
            f"{file}: not a complete pack (its parts differ in length, or its pixels are not contiguous). {_ADVICE}"
        )
    return Pack(file, version, shape, offset, paths, states, digests, pixel_digests)


def _views(height: int, width: int) -> list[EvalView]:
    """The views of images of this size."""
    return [EvalView(height, width, interpolation) for interpolation in get_args(Interpolation)]


def _plain(value: object) -> object:
    """An attribute as a Python value."""
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode() if isinstance(value, bytes) else value


@dataclass(frozen=True)
class PackedImages:
    """The images that are in packs: for each such row, the pack and the image's position in it.

    Each process maps a pack when it first reads from it.
    """

    found: dict[int, tuple[Pack, int]]

    def __len__(self) -> int:
        return len(self.found)

    def get(self, row: int) -> np.ndarray | None:
        """The (H, W, 3) uint8 image, read-only; None if its file must be decoded."""
        if row not in self.found:
            return None
        pack, position = self.found[row]
        return None if pack.images is None else pack.images[position]


def find_packed(paths: Iterable[Path], view: View, progress: Progress | None = None) -> PackedImages:
    """The images at `paths` that are in a pack for this view in a folder above them.

    `progress` gets a note on each pack that cannot be used, or not for all images, with the reason.
    """
    packs: dict[Path, Pack | None] = {}  # each pack is searched for, and opened, once
    homes: dict[str, tuple[Pack, str] | None] = {}
    found: dict[int, tuple[Pack, int]] = {}
    stale: dict[Path, list[str]] = {}
    for row, path in enumerate(map(str, paths)):
        folder, _, file = path.rpartition(os.sep)
        if folder not in homes:
            homes[folder] = _find_home(Path(folder), view, packs, progress)
        home = homes[folder]
        if home is None:
            continue
        pack, prefix = home
        position = pack.rows.get(prefix + file)
        if position is None or pack.states[position] != file_state(path):
            stale.setdefault(pack.file, []).append(path)
        else:
            found[row] = pack, position
    for pack_file, missed in stale.items():
        if progress:
            progress.note(
                f"{pack_file}: {len(missed):,} images are new or changed since it was built, such as {missed[0]}. They "
                "are decoded from their files; `ptlreid pack` updates the pack."
            )
    return PackedImages(found)


def _find_home(
    folder: Path, view: View, packs: dict[Path, Pack | None], progress: Progress | None
) -> tuple[Pack, str] | None:
    """The pack for a folder of images, and the path from the pack's folder to it, such as `query/`."""
    for parent in [folder, *folder.parents][:_LEVELS]:
        file = parent / pack_name(view)
        if file not in packs:
            packs[file] = _try_to_open(file, progress) if file.is_file() else None
            if progress and not file.is_file():
                _note_others(parent, view, progress)
        pack = packs[file]
        if pack is not None:
            return pack, "".join(f"{part}/" for part in folder.relative_to(parent).parts)
    return None


def _note_others(folder: Path, view: View, progress: Progress) -> None:
    """A note on each pack in `folder` of the view's size but of another interpolation."""
    for other in _views(view.height, view.width):
        if other.interpolation != view.interpolation and (folder / pack_name(other)).is_file():
            progress.note(
                f"{folder / pack_name(other)}: a pack of {other.interpolation} images: expected {view.interpolation}. "
                f"Image files are decoded; `ptlreid pack --interpolation {view.interpolation}` packs them."
            )


def _try_to_open(file: Path, progress: Progress | None) -> Pack | None:
    try:
        return open_pack(file)
    except DataError as error:
        if progress:
            progress.note(f"{error} Until then, image files are decoded.")
        return None
