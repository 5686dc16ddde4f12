"""`ptlreid pack`: the images of a dataset resized once, into one file that is read without decoding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ptlreid import contents, files, packs
from ptlreid.datasets import DatasetRef, Fault
from ptlreid.errors import DataError
from ptlreid.locks import wait_for_lock
from ptlreid.packs import Pack
from ptlreid.progress import Progress
from ptlreid.settings.prepare import PackSettings
from ptlreid.views import EvalView, decode, resize

_INDEX_BYTES = 256  # for each image: its digests and state, and where its path is
_BLOCK = 64  # images at a time: 6 MB at 256×128


@dataclass(frozen=True)
class Packing:
    """The result of `pack`: the file has `images` in total, of which `new` were packed by this call."""

    file: Path
    images: int
    new: int


@dataclass(frozen=True)
class _Image:
    """One image to be packed, (H, W, 3) uint8, with the state and digest of its file."""

    state: tuple[int, int]
    digest: str
    pixels: np.ndarray


_FileStates = dict[str, tuple[tuple[int, int], str]]  # state and digest of files, by path


def pack(dataset: DatasetRef, folder: Path, settings: PackSettings, progress: Progress) -> Packing:
    """Pack all images of the dataset in `folder`, in the size and with the interpolation of `settings`.

    Images in an existing pack of that kind are kept if their files are unchanged, also those of other variants.
    Raises `DataError` for an image that cannot be decoded; the existing pack is then left unchanged.
    """
    view = EvalView(settings.height, settings.width, settings.interpolation)
    file = folder / packs.pack_name(view)
    parts = dataset.read(folder, all_images=True).parts
    wanted = {path.relative_to(folder).as_posix() for part in parts for path in part.paths}
    with wait_for_lock(file, progress, command="ptlreid pack"):
        for leftover in folder.glob(f".{file.name}.*.part"):  # left by a killed process: its lock is ours now
            leftover.unlink()
        existing = _read_current(file, progress)
        if not wanted <= existing.keys():
            _write(file, sorted(wanted | existing.keys()), existing, view, progress)
    return Packing(file, len(wanted | existing.keys()), len(wanted - existing.keys()))


def faults(file: Path, digests: Mapping[Path, str], progress: Progress) -> Iterator[Fault]:
    """The faults of the pack in `file`. `digests`: of the bytes of each image in the dataset.

    A fault is serious if training would use other pixels than those of the image files.
    """
    try:
        packed = packs.open_pack(file)
    except DataError as error:
        yield Fault("pack", file, f"cannot be used ({error})", "Pack again, or remove it.", serious=False)
        return
    rows = {file.parent / path: row for path, row in packed.rows.items()}
    current = {path for path in digests if path in rows and contents.file_state(path) == packed.states[rows[path]]}
    missing = [path for path in digests if path not in current]
    if missing:
        fault = f"lacks {len(missing):,} images that are new or changed, such as {missing[0]}; their files are decoded"
        remedy = "Update it with `ptlreid pack` and its --height, --width and --interpolation."
        yield Fault("pack", file, fault, remedy, serious=False)
    for path in sorted(current):
        if packed.digests[rows[path]] != digests[path]:
            fault = f"its bytes changed although its size and time did not, and {file} holds the old image"
            yield Fault("pack", path, fault, _REMEDY)
    if packed.images is None:
        yield Fault("pack", file, "was replaced during the check", "Check again.", serious=False)
        return
    with progress.task(f"verify {file.name}", len(packed.paths)) as advance:
        for row, image in enumerate(packed.images):
            if _digest(image) != packed.pixel_digests[row]:
                yield Fault("pack", file, f"the pixels of {packed.paths[row]} in it have changed", _REMEDY)
            advance(row + 1)


_REMEDY = "Remove the pack, and run `ptlreid pack` again."


def _read_current(file: Path, progress: Progress) -> dict[str, tuple[Pack, int]]:
    """The packed images whose files are unchanged, by path: the pack, and the row in it."""
    if not file.exists():
        return {}
    try:
        existing = packs.open_pack(file)
    except DataError as error:
        progress.note(f"{error} It will be rebuilt.")
        return {}
    return {
        path: (existing, row)
        for path, row in existing.rows.items()
        if contents.file_state(file.parent / path) == existing.states[row]
    }


def _write(
    file: Path, paths: list[str], before: dict[str, tuple[Pack, int]], view: EvalView, progress: Progress
) -> None:
    """Write a pack of the images at `paths` below its folder, their pixels from `before` or from their files."""
    shape = (len(paths), view.height, view.width, 3)
    needed = math.prod(shape) + sum(map(len, paths)) + _INDEX_BYTES * len(paths)
    described = _describe_files(file.parent, [path for path in paths if path not in before])
    states, digests, pixel_digests = [], [], []
    with (
        files.atomic_output(file, needed) as output,
        h5py.File(output, "w", libver=(packs.FORMAT, packs.FORMAT)) as content,
        progress.task(f"pack {file.name}", len(paths)) as advance,
    ):
        pixels = content.create_dataset("images", shape, np.uint8)  # contiguous, see `packs`
        for start in range(0, len(paths), _BLOCK):
            images = [_load(file.parent, path, before, described) for path in paths[start : start + _BLOCK]]
            resized = resize([image.pixels for image in images], view)
            pixels[start : start + len(images)] = resized
            states += [image.state for image in images]
            digests += [image.digest for image in images]
            pixel_digests += [_digest(image) for image in resized]
            advance(start + len(images))
        index = packs.index_arrays(paths, states, digests, pixel_digests)
        for key, values in index.items():
            content[key] = values
        attributes = {**packs.pack_attributes(view), "index": packs.index_digest(index)}
        for key, value in attributes.items():
            content.attrs[key] = np.bytes_(value) if isinstance(value, str) else value


def _describe_files(folder: Path, paths: list[str]) -> _FileStates:
    # State, digest, pixels, in this order: if a file changes in between, its state differs from that in the pack, and
    # the packed image is not used.
    states = [contents.file_state(folder / path) for path in paths]
    digests = contents.digest_each([folder / path for path in paths])
    return {path: (state, digest.tobytes().hex()) for path, state, digest in zip(paths, states, digests, strict=True)}


def _load(folder: Path, path: str, before: dict[str, tuple[Pack, int]], described: _FileStates) -> _Image:
    """The image from the existing pack, if its pixels are intact, otherwise from its file."""
    if path in before:
        pack, row = before[path]
        if pack.images is not None and _digest(pack.images[row]) == pack.pixel_digests[row]:
            return _Image(pack.states[row], pack.digests[row], pack.images[row])
        described = _describe_files(folder, [path])
    return _Image(*described[path], decode(folder / path))


def _digest(image: np.ndarray) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
