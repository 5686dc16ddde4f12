"""`ptlreid prepare NAME --pack`: the images of a dataset resized once, in one file that is read without decoding."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ptlreid import files, packs
from ptlreid.datasets import DatasetRef, Fault
from ptlreid.errors import DataError, PtlreidError
from ptlreid.locks import wait_for_lock
from ptlreid.packs import Pack
from ptlreid.progress import Progress
from ptlreid.settings.prepare import PackSettings
from ptlreid.views import decode, resize

_BLOCK = 64  # images at a time: 6 MB at 256×128


@dataclass(frozen=True)
class Packing:
    """A pack of so many `images`, of which so many are `new`: the others were in the pack before."""

    file: Path
    images: int
    new: int


@dataclass(frozen=True)
class _Image:
    """One image to be packed, (H, W, 3) uint8, and the state and digest of its file."""

    state: tuple[int, int]
    digest: str
    pixels: np.ndarray


def pack(found: DatasetRef, folder: Path, config: PackSettings, progress: Progress) -> Packing:
    """Pack every image that the dataset reads in `folder`, in the size of `config`.

    Whatever an earlier pack of that size holds stays, as long as its file is unchanged: the images of other variants
    too. Raises `DataError` for an image that cannot be decoded, and leaves the earlier pack as it was.
    """
    file = folder / packs.name(config.height, config.width)
    parts = found.read(folder, whole=True).parts
    wanted = {path.relative_to(folder).as_posix() for part in parts for path in part.paths}
    with wait_for_lock(file, progress, command="ptlreid pack"):
        for left in folder.glob(f".{file.name}.*.part"):  # by one that was killed: it wrote under the same lock
            left.unlink()
        before = _current(file, progress)
        if not wanted <= before.keys():
            _write(file, sorted(wanted | before.keys()), before, config, progress)
    return Packing(file, len(wanted | before.keys()), len(wanted - before.keys()))


def faults(file: Path, digests: Mapping[Path, str], progress: Progress) -> Iterator[Fault]:
    """What is wrong with the pack in `file`. `digests`: of the bytes of each image of the dataset.

    It is serious where training would see other pixels than those of the image files.
    """
    try:
        found = packs.open_pack(file)
    except DataError as error:
        yield Fault("pack", file, f"cannot be used ({error})", "Pack again, or remove it.", serious=False)
        return
    places = {file.parent / path: place for path, place in found.places.items()}
    current = {path for path in digests if path in places and packs.state(path) == found.states[places[path]]}
    late = [path for path in digests if path not in current]
    if late:
        fault = f"lacks {len(late):,} images that came or changed since, such as {late[0]}; their files are read"
        remedy = "Bring it up to date: `ptlreid prepare DATA --pack` with its --height and --width."
        yield Fault("pack", file, fault, remedy, serious=False)
    for path in sorted(current):
        if found.digests[places[path]] != digests[path]:
            yield Fault("pack", path, f"was changed, its time and size were not, and {file} shows it as it was", _ANEW)
    if found.images is None:
        yield Fault("pack", file, "was replaced while it was checked", "Check again.", serious=False)
        return
    with progress.task(f"verify {file.name}", len(found.paths)) as advance:
        for place, image in enumerate(found.images):
            if _digest(image) != found.contents[place]:
                yield Fault("pack", file, f"holds other pixels of {found.paths[place]} than were packed", _ANEW)
            advance(place + 1)


_ANEW = "Remove the pack, and make it again with `ptlreid prepare --pack`."


def _current(file: Path, progress: Progress) -> dict[str, tuple[Pack, int]]:
    """What is in the pack and still as its image file is, by path: the pack, and the place there."""
    if not file.exists():
        return {}
    try:
        before = packs.open_pack(file)
    except DataError as error:
        progress.note(f"{error} It is made anew.")
        return {}
    return {
        path: (before, place)
        for path, place in before.places.items()
        if packs.state(file.parent / path) == before.states[place]
    }


def _write(
    file: Path, paths: list[str], before: dict[str, tuple[Pack, int]], config: PackSettings, progress: Progress
) -> None:
    """A pack of the images at `paths` below its folder, their pixels from `before` or from their files."""
    shape = (len(paths), config.height, config.width, 3)
    needed, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if needed > free:
        raise PtlreidError(f"{file}: needs {needed:,} bytes, and the disk has {free:,}. Make room, and pack again.")
    states, digests, contents = [], [], []
    with (
        files.atomic_write(file) as temporary,
        h5py.File(temporary, "w") as content,
        progress.task(f"pack {file.name}", len(paths)) as advance,
    ):
        pixels = content.create_dataset("images", shape, np.uint8)  # one after another, see `packs`
        for start in range(0, len(paths), _BLOCK):
            some = [_image(file.parent / path, before.get(path)) for path in paths[start : start + _BLOCK]]
            resized = resize([image.pixels for image in some], config.height, config.width)
            pixels[start : start + len(some)] = resized
            states += [image.state for image in some]
            digests += [image.digest for image in some]
            contents += [_digest(image) for image in resized]
            advance(start + len(some))
        for key, values in (("paths", paths), ("digests", digests), ("contents", contents)):
            content.create_dataset(key, data=values, dtype=h5py.string_dtype())
        content["states"] = np.array(states, dtype=np.int64)
        content.attrs.update(packs.attributes(config.height, config.width))


def _image(path: Path, before: tuple[Pack, int] | None) -> _Image:
    """The image as it was packed before, if that is whole, or from its file."""
    if before is not None:
        pack, place = before
        if pack.images is not None and _digest(pack.images[place]) == pack.contents[place]:
            return _Image(pack.states[place], pack.digests[place], pack.images[place])
    # The state before the content: a change meanwhile makes the image stale.
    state = packs.state(path)
    return _Image(state, files.file_digest(path), decode(path))


def _digest(image: np.ndarray) -> str:
    return hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
